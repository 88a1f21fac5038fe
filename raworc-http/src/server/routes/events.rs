//! The log, as it grows: server-sent events whose ids are revisions.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;

use axum::extract::{FromRequestParts, State};
use axum::response::sse::{Event as SseEvent, Sse};
use axum::response::{IntoResponse, Response};
use futures::Stream;
use futures::stream;
use http::header::{CACHE_CONTROL, HeaderValue};
use http::request::Parts;
use raworc_core::control::{Call, Followed, Following, TokenRecord};
use raworc_core::ids::{AgentName, Revision, TenantName};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::{DeltaData, ErrorBody};
use crate::server::extract::{AgentAt, AgentsOf, Caller, Query};
use crate::server::openapi::LastEventIdHeader;
use crate::server::state::Ends;
use crate::server::{ApiError, ApiState, StreamGuard};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(of_tenant)).routes(routes!(of_agent))
}

/// One of the server-sent events of a stream.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it stands for an event in the description")]
struct StreamedEvent {
    /// The revision, where the event is in the log.
    id: Option<String>,
    /// The kind of the event, `delta` or `error`.
    event: Option<String>,
    /// An `Event`, a `DeltaData` or an `ErrorBody`, in JSON.
    data: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct SinceQuery {
    /// After this revision; from now on where absent. `Last-Event-ID` goes before it.
    since: Option<u64>,
    /// Begin with the latest so many events that the log has, instead; fewer where 65,536 others have come since.
    last: Option<usize>,
    /// With `false`: end with an event `end` at where the log ends now.
    follow: Option<bool>,
}

/// The log as it was asked for.
async fn open(
    state: &ApiState,
    call: &Call,
    tenant: &TenantName,
    agent: Option<&AgentName>,
    (LastEventId(seen), query): (LastEventId, SinceQuery),
) -> Result<(Following, bool), ApiError> {
    if query.since.is_some() && query.last.is_some() {
        return Err(ApiError::invalid("last", "give either since or last"));
    }
    let since = match (seen.or(query.since), query.last) {
        (Some(revision), _) => Some(Revision(revision)),
        (None, Some(count)) => Some(state.control().before_latest(call, tenant, agent, count).await?),
        (None, None) => None,
    };
    let following = state.control().follow(call, tenant, agent, since).await?;
    let ends = query.follow == Some(false);
    Ok((if ends { following.to_its_end() } else { following }, ends))
}

/// The id of the last event that a caller has seen.
struct LastEventId(Option<u64>);

impl FromRequestParts<ApiState> for LastEventId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &ApiState) -> Result<Self, ApiError> {
        let Some(value) = parts.headers.get("last-event-id") else {
            return Ok(Self(None));
        };
        let refused = || ApiError::invalid("Last-Event-ID", "the ids of events are numbers");
        match value.to_str().map_err(|_| refused())?.trim() {
            "" => Ok(Self(None)),
            text if text.bytes().all(|c| c.is_ascii_digit()) => text.parse().map(Some).map(Self).map_err(|_| refused()),
            _ => Err(refused()),
        }
    }
}

/// What happens in a tenant, from now on or after a revision.
///
/// A stream of server-sent events. The id of each is its revision, the name its kind, the data an `Event` in JSON.
/// Who is no admin sees the events of their own agents.
#[utoipa::path(
    get, path = "/events", operation_id = "follow_events", tag = "events",
    params(SinceQuery, LastEventIdHeader),
    responses(
        (status = 200, description = "The stream.", content_type = "text/event-stream", body = StreamedEvent),
        (status = 410, description = "`gone`: the log does not go back that far", body = ErrorBody),
        (status = 429, description = "`too_many_requests`: too many streams are open", body = ErrorBody),
    )
)]
async fn of_tenant(
    State(state): State<ApiState>,
    AgentsOf { caller, tenant }: AgentsOf,
    last: LastEventId,
    Query(query): Query<SinceQuery>,
) -> Result<Response, ApiError> {
    let guard = state.open_stream(&caller.call.principal)?;
    let opened = open(&state, &caller.call, &tenant, None, (last, query)).await?;
    Ok(stream_of(state, opened, guard, caller.token))
}

/// What happens to an agent, from now on or after a revision.
///
/// As the tenant's stream, and with `delta` events besides: words as the model writes them, best effort, without an id.
#[utoipa::path(
    get, path = "/agents/{name}/events", operation_id = "follow_agent", tag = "events",
    params(("name" = AgentName, Path, description = "The agent's name."), SinceQuery, LastEventIdHeader),
    responses(
        (status = 200, description = "The stream.", content_type = "text/event-stream", body = StreamedEvent),
        (status = 410, description = "`gone`: the log does not go back that far", body = ErrorBody),
        (status = 429, description = "`too_many_requests`: too many streams are open", body = ErrorBody),
    )
)]
async fn of_agent(
    State(state): State<ApiState>,
    caller: Caller,
    at: AgentAt,
    last: LastEventId,
    Query(query): Query<SinceQuery>,
) -> Result<Response, ApiError> {
    let guard = state.open_stream(&at.call.principal)?;
    let opened = open(&state, &at.call, &at.tenant, Some(&at.name), (last, query)).await?;
    Ok(stream_of(state, opened, guard, caller.token))
}

fn stream_of(
    state: ApiState,
    (following, ends_itself): (Following, bool),
    guard: StreamGuard,
    token: TokenRecord,
) -> Response {
    let ending = state.clone();
    let ends = Box::pin(async move { ending.ends(&token).await });
    let teller = Teller { state, following, ends_itself, ends, said: None, over: false, _guard: guard };
    let mut response = Sse::new(teller.into_stream()).into_response();
    // What stands between must hand on each event as it comes.
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// Tells one listener what happens.
struct Teller {
    state: ApiState,
    following: Following,
    /// The end of `following` is the one that was asked for.
    ends_itself: bool,
    /// Why the stream has to end, once it has to.
    ends: Pin<Box<dyn Future<Output = Ends> + Send>>,
    /// The last id that the listener knows.
    said: Option<Revision>,
    over: bool,
    _guard: StreamGuard,
}

impl Teller {
    fn into_stream(self) -> impl Stream<Item = Result<SseEvent, Infallible>> {
        stream::unfold(self, |mut teller| async move { teller.next().await.map(|event| (Ok(event), teller)) })
    }

    async fn next(&mut self) -> Option<SseEvent> {
        if self.over {
            return None;
        }
        // From the beginning the listener knows where to resume, even if nothing happens.
        if self.said.is_none() {
            return Some(self.position());
        }
        let state = self.state.clone();
        let options = state.options();
        tokio::select! {
            biased;
            _ = &mut self.ends => None,
            next = self.following.next() => match next {
                None if self.ends_itself => {
                    self.over = true;
                    Some(SseEvent::default().event("end").data("{}"))
                }
                None => None,
                Some(Ok(Followed::Event(event))) => {
                    self.said = Some(event.revision);
                    let sse = SseEvent::default().id(event.revision.to_string()).event(event.kind.as_str());
                    Some(sse.json_data(&*event).unwrap_or_default())
                }
                Some(Ok(Followed::Delta(delta))) => {
                    let data = DeltaData { message: delta.message, text: delta.text.clone() };
                    Some(SseEvent::default().event("delta").json_data(data).unwrap_or_default())
                }
                Some(Err(error)) => {
                    self.over = true;
                    Some(failure(error))
                }
            },
            () = tokio::time::sleep(options.keep_alive) => Some(self.position()),
        }
    }

    /// A comment that shows life, with an id where there is a newer one: what was passed over need not be read again.
    fn position(&mut self) -> SseEvent {
        let position = self.following.position();
        let sse = SseEvent::default().comment("alive");
        if self.said.is_some_and(|said| said >= position) {
            return sse;
        }
        self.said = Some(position);
        sse.id(position.to_string())
    }
}

fn failure(error: raworc_core::error::Error) -> SseEvent {
    let error = ApiError::from(error).into_info();
    SseEvent::default().event("error").json_data(ErrorBody { error }).unwrap_or_default()
}
