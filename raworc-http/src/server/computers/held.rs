//! A stream from a computer, and what it holds for as long as it is open.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use axum::BoxError;
use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use raworc_core::control::{ActivityGuard, TokenRecord};
use raworc_core::ids::AgentName;
use tokio_util::task::AbortOnDropHandle;

use crate::server::state::{Ends, OpenPlace};
use crate::server::{ApiState, StreamGuard};

/// What an open stream takes: its caller's place, that in the computer, and what keeps the agent awake.
pub(super) type Holds = (Option<StreamGuard>, Option<OpenPlace>, Option<ActivityGuard>);

/// A body from a computer, and what it holds until it has ended, nobody wants it any more, or its login is over. The
/// last is watched by a task of its own: nobody asks the body of a caller who does not read.
pub(super) struct Held {
    agent: AgentName,
    state: Arc<Mutex<State>>,
    _watch: AbortOnDropHandle<()>,
}

enum State {
    Open { body: Body, waker: Option<Waker>, _holds: Holds },
    Over(Ends),
}

impl Held {
    pub(super) fn new(api: ApiState, token: TokenRecord, agent: AgentName, body: Body, holds: Holds) -> Self {
        let state = Arc::new(Mutex::new(State::Open { body, waker: None, _holds: holds }));
        // Weak, so that all is given back at the moment when the body is dropped.
        let watched = Arc::downgrade(&state);
        let watch = tokio::spawn(async move { end(&watched, api.ends(&token).await) });
        Self { agent, state, _watch: AbortOnDropHandle::new(watch) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn end(state: &Weak<Mutex<State>>, ends: Ends) {
    let Some(state) = state.upgrade() else { return };
    let was = std::mem::replace(&mut *lock(&state), State::Over(ends));
    if let State::Open { waker: Some(waker), .. } = was {
        waker.wake();
    }
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = match &mut *self.state() {
            // An error, not an end that looks whole.
            State::Over(ends) => Poll::Ready(Some(Err(BoxError::from(*ends)))),
            State::Open { body, waker, .. } => {
                match waker {
                    Some(waker) => waker.clone_from(cx.waker()),
                    None => *waker = Some(cx.waker().clone()),
                }
                Pin::new(body).poll_frame(cx).map_err(BoxError::from)
            }
        };
        if let Poll::Ready(Some(Err(error))) = &frame {
            tracing::info!(agent = %self.agent, %error, "a stream from a computer broke off");
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        matches!(&*self.state(), State::Open { body, .. } if body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match &*self.state() {
            State::Open { body, .. } => body.size_hint(),
            State::Over(_) => SizeHint::default(),
        }
    }
}
