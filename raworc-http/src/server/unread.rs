//! What of a refused request's body nobody has read. It is taken and forgotten before the refusal is sent: whoever still
//! writes on a connection that ends meanwhile sees it break, and not why they were refused.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use http::header::EXPECT;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use tokio::sync::oneshot;

/// So many bytes are taken.
const LIMIT: usize = 64 << 20;

/// For how long in all.
const TIME: Duration = Duration::from_secs(5);

/// Where it has no length, for as long as something comes so soon: what never ends, as what somebody types, keeps nobody
/// waiting for an answer.
const PAUSE: Duration = Duration::from_millis(250);

/// Takes what is left of a request's body where it is refused.
pub(super) async fn take(request: Request, next: Next) -> Response {
    take_where(request, next, |status| status.is_client_error() || status.is_server_error()).await
}

/// The same of a program's, but where it is told to come again: its computer may be hostile, and would keep its place meanwhile
/// with what it never sends.
pub(super) async fn take_of_program(request: Request, next: Next) -> Response {
    let comes_again = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS];
    take_where(request, next, |status| status.is_client_error() && !comes_again.contains(&status)).await
}

async fn take_where(request: Request, next: Next, is_taken: impl FnOnce(StatusCode) -> bool) -> Response {
    let (parts, body) = request.into_parts();
    if body.is_end_stream() {
        return next.run(Request::from_parts(parts, body)).await;
    }
    // Who asks first whether to send it does not, once they are told no. Reading it would tell them yes.
    let is_asked_for = parts.headers.contains_key(EXPECT);
    let (back, mut left) = oneshot::channel();
    let watched = Watched { body, is_begun: false, back: Some(back) };
    let response = next.run(Request::from_parts(parts, Body::new(watched))).await;
    // One that stood still has had its time.
    if is_taken(response.status())
        && response.status() != StatusCode::REQUEST_TIMEOUT
        && let Ok((body, is_begun)) = left.try_recv()
        && (is_begun || !is_asked_for)
    {
        // What comes of it changes nothing.
        let _ = tokio::time::timeout(TIME, forget(body)).await;
    }
    response
}

async fn forget(mut body: Body) {
    let pause = if body.size_hint().exact().is_some() { TIME } else { PAUSE };
    let mut left = LIMIT;
    while let Ok(Some(Ok(frame))) = tokio::time::timeout(pause, body.frame()).await {
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        if left == 0 {
            break;
        }
    }
}

/// A body that comes back with whether it was begun, where it is dropped before its end.
struct Watched {
    body: Body,
    is_begun: bool,
    back: Option<oneshot::Sender<(Body, bool)>>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.is_begun = true;
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.back = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(back) = self.back.take().filter(|_| !self.body.is_end_stream()) {
            // Nobody wants it where the request itself was given up.
            let _ = back.send((std::mem::take(&mut self.body), self.is_begun));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use axum::middleware::from_fn;
    use axum::routing::post;
    use futures::stream::{self, StreamExt};
    use tokio::time::Instant;
    use tower::ServiceExt;

    use super::*;

    fn router() -> Router {
        let begins = |body: Body| async move {
            drop(body.into_data_stream().next().await);
            StatusCode::CONFLICT
        };
        let router = Router::new()
            .route("/refused", post(|| async { StatusCode::UNAUTHORIZED }))
            .route("/begun", post(begins))
            .route("/late", post(|| async { StatusCode::REQUEST_TIMEOUT }))
            .route("/busy", post(|| async { StatusCode::SERVICE_UNAVAILABLE }))
            .route("/taken", post(|| async { StatusCode::ACCEPTED }));
        Router::new()
            .nest("/caller", router.clone().layer(from_fn(take)))
            .nest("/program", router.layer(from_fn(take_of_program)))
    }

    /// How many of three pieces are taken of what is sent there, each so long after the one before, and how long that takes.
    async fn taken_of(path: &str, pause: Duration, expect: bool) -> (usize, u128) {
        let taken = Arc::new(AtomicUsize::new(0));
        let counts = Arc::clone(&taken);
        let pieces = stream::iter(0..3).then(move |_| {
            let counts = Arc::clone(&counts);
            async move {
                tokio::time::sleep(pause).await;
                counts.fetch_add(1, Ordering::Relaxed);
                Ok::<_, axum::Error>(Bytes::from_static(b"piece"))
            }
        });
        let mut request = Request::post(path);
        if expect {
            request = request.header(EXPECT, "100-continue");
        }
        let request = request.body(Body::from_stream(pieces)).expect("a request");
        let began = Instant::now();
        drop(router().oneshot(request).await.expect("an answer"));
        (taken.load(Ordering::Relaxed), began.elapsed().as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn the_body_of_a_refused_request_is_taken_as_long_as_it_comes_on() {
        let soon = Duration::from_millis(100);
        assert_eq!(taken_of("/caller/refused", soon, false).await, (3, 300));
        assert_eq!(taken_of("/caller/begun", soon, false).await, (3, 300));
        assert_eq!(taken_of("/caller/refused", Duration::from_secs(1), false).await, (0, 250), "it comes too slowly");
        assert_eq!(taken_of("/caller/late", soon, false).await, (0, 0), "it has had its time");
        assert_eq!(taken_of("/caller/taken", soon, false).await, (0, 0), "it is not refused");
        assert_eq!(taken_of("/caller/busy", soon, false).await, (3, 300));
        assert_eq!(taken_of("/program/refused", soon, false).await, (3, 300));
        assert_eq!(taken_of("/program/busy", soon, false).await, (0, 0), "it comes again");
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_whether_to_send_a_body_is_not_told_yes_by_a_refusal() {
        let soon = Duration::from_millis(100);
        assert_eq!(taken_of("/caller/refused", soon, true).await, (0, 0));
        assert_eq!(taken_of("/caller/begun", soon, true).await, (3, 300), "it is being sent already");
    }
}
