//! The log of an agent's program: its own word where it runs, else what is left of it.

use std::error::Error as _;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use futures::{StreamExt, stream};
use http::{HeaderValue, Method, header};
use raworc_core::agent::Agent;
use raworc_core::control::{ControlPlane, LogStream};
use raworc_core::runtime::LogsOptions;
use tokio::sync::broadcast;

use super::reach::{Visit, link_request};
use crate::api::ErrorBody;
use crate::server::ApiError;
use crate::server::extract::Query;
use crate::server::state::Ends;

/// How long it may take until it is noticed that a program is gone.
const NOTICE_LIMIT: Duration = Duration::from_secs(2);

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogsQuery {
    tail: Option<u64>,
    #[serde(default)]
    follow: bool,
    #[serde(default)]
    wake: bool,
    #[serde(default)]
    previous: bool,
}

/// Read the log of the agent's program.
///
/// It is the log of the present start. Where the computer does not run, it is that of its last start as far as the
/// engine keeps it, else what was kept of one that died. To read it keeps no agent awake, and one that is
/// followed ends with its start.
#[utoipa::path(
    get, path = "/logs", tag = "computers",
    params(("tail" = Option<u64>, Query, description = "only so many bytes from its end"),
           ("follow" = Option<bool>, Query, description = "go on with what is written from now on"),
           ("wake" = Option<bool>, Query, description = "whether a slept agent is woken; false where absent"),
           ("previous" = Option<bool>, Query,
            description = "the last 64 KiB of the start before the present one, as far as they are kept")),
    responses((status = 200, description = "text", content_type = "application/octet-stream"),
              (status = 404, description = "there is no such log", body = ErrorBody)),
)]
pub(super) async fn logs(visit: Visit, Query(query): Query<LogsQuery>) -> Result<Response, ApiError> {
    let mut options = LogsOptions::default().with_follow(query.follow);
    options.tail = query.tail;
    let (control, call) = (visit.state.control(), &visit.call);
    if query.previous {
        if query.follow || query.wake {
            return Err(ApiError::invalid("previous", "a start that is over can neither be followed nor woken"));
        }
        return visit.without_link(control.previous_log(call, &visit.tenant, &visit.name, options), answer).await;
    }
    match of_program(&visit, &query).await {
        // Asleep, dead, on its way up, or deaf: what it wrote may be there all the same.
        Err(error) if matches!(error.code(), "agent_asleep" | "unreachable") => {
            let log = control.stopped_log(call, &visit.tenant, &visit.name, options);
            match visit.without_link(log, answer).await {
                Err(none) if none.code() == "not_found" && error.code() == "unreachable" => Err(error),
                answered => answered,
            }
        }
        answered => answered,
    }
}

async fn of_program(visit: &Visit, query: &LogsQuery) -> Result<Response, ApiError> {
    let reached = visit.watch(query.wake).await?;
    let tail = query.tail.map(|tail| tail.to_string());
    let mut pairs = Vec::new();
    if let Some(tail) = &tail {
        pairs.push(("tail", tail.as_str()));
    }
    if query.follow {
        pairs.push(("follow", "true"));
    }
    let agent = reached.agent.clone();
    let request = link_request(Method::GET, "/logs", &pairs, Body::empty())?;
    let answer = reached.pass(request, None).await?;
    Ok(if query.follow { to_the_end_of(agent, visit.state.control().clone(), answer) } else { answer })
}

/// A log that is followed ends with the start that it is of. It is cut off only where that goes on.
fn to_the_end_of(agent: Agent, control: ControlPlane, answer: Response) -> Response {
    answer.map(|body| {
        Body::from_stream(stream::unfold(Some((body.into_data_stream(), agent, control)), |rest| async {
            let (mut log, agent, control) = rest?;
            match log.next().await? {
                Err(error) if is_end_of_start(&control, &agent, &error).await => None,
                Err(error) => Some((Err(error), None)),
                Ok(bytes) => Some((Ok(bytes), Some((log, agent, control)))),
            }
        }))
    })
}

/// Whether a log broke off because its start is over. A program is gone before that is noticed.
async fn is_end_of_start(control: &ControlPlane, agent: &Agent, error: &axum::Error) -> bool {
    if error.source().is_some_and(|cause| cause.is::<Ends>()) {
        return is_over(control, agent).await;
    }
    let mut events = control.system().feed().subscribe();
    let noticed = async {
        while !is_over(control, agent).await {
            loop {
                match events.recv().await {
                    Ok(event) if event.agent != Some(agent.id) => {}
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => break,
                    Err(broadcast::error::RecvError::Closed) => return std::future::pending().await,
                }
            }
        }
    };
    tokio::time::timeout(NOTICE_LIMIT, noticed).await.is_ok()
}

/// Whether this start of an agent's program is over, as with a sleep.
async fn is_over(control: &ControlPlane, agent: &Agent) -> bool {
    match control.system().store().agent_by_id(agent.id).await {
        Ok(found) => found
            .value
            .is_none_or(|now| now.status.incarnation != agent.status.incarnation || !now.status.state().is_up()),
        Err(_) => false,
    }
}

fn answer(log: LogStream) -> Response {
    let mut response = Response::new(Body::from_stream(log));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
