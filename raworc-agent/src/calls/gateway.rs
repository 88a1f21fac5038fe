//! Model calls by way of the gateway.

use std::collections::VecDeque;
use std::time::Duration;

use http::{Method, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::Calls;
use crate::model::{self, ModelEvent, ModelFailure, ModelRequest, Parser};

/// How long a model may write nothing. Slow machines take minutes to read a long conversation.
const SILENCE_LIMIT: Duration = Duration::from_secs(1800);

/// Bytes of an error's body that are read.
const ERROR_LIMIT: usize = 64 << 10;

/// A model's answer, as it comes. Dropping it hangs up.
pub(crate) struct Answer {
    body: Incoming,
    parser: Box<dyn Parser>,
    ready: VecDeque<ModelEvent>,
    /// What is wrong with what came after that.
    failed: Option<ModelFailure>,
    done: bool,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("ready", &self.ready).field("done", &self.done).finish_non_exhaustive()
    }
}

impl Calls {
    /// Asks the model.
    pub(crate) async fn ask(&self, request: &ModelRequest) -> Result<Answer, ModelFailure> {
        let wire = model::wire(&request.model);
        let path = format!("gateway{}", wire.path());
        let body = wire.body(request).to_string();
        let mut http = self.traced(self.request(Method::POST, &path, body.into()));
        http.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
        let sent = tokio::time::timeout(SILENCE_LIMIT, self.server.send(http)).await;
        let response = match sent {
            Ok(Ok(response)) => response,
            Ok(Err(away)) => return Err(ModelFailure::Away(super::chain(&away))),
            Err(_) => return Err(ModelFailure::Stalled(SILENCE_LIMIT.as_secs())),
        };
        let status = response.status();
        if !status.is_success() {
            let body = error_body(response.into_body()).await;
            // The listener itself answers where the gateway refuses; a stale incarnation is known by that.
            let _ = self.refusal(&path, status, &body);
            return Err(ModelFailure::from_status(status.as_u16(), &body));
        }
        Ok(Answer {
            body: response.into_body(),
            parser: wire.parser(),
            ready: VecDeque::new(),
            failed: None,
            done: false,
        })
    }
}

async fn error_body(mut body: Incoming) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Ok(Some(Ok(frame))) = tokio::time::timeout(super::CALL_LIMIT, body.frame()).await {
        if let Some(data) = frame.data_ref() {
            bytes.extend_from_slice(data);
        }
        if bytes.len() > ERROR_LIMIT {
            break;
        }
    }
    bytes
}

impl Answer {
    /// The next piece. After [`ModelEvent::Done`] or a failure there is none.
    pub(crate) async fn next(&mut self) -> Result<ModelEvent, ModelFailure> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            if let Some(failure) = self.failed.take() {
                return Err(failure);
            }
            if self.done {
                return Err(ModelFailure::Cut);
            }
            let frame = tokio::time::timeout(SILENCE_LIMIT, self.body.frame());
            let frame = frame.await.map_err(|_| ModelFailure::Stalled(SILENCE_LIMIT.as_secs()))?;
            let mut events = Vec::new();
            let read = match frame {
                Some(Ok(frame)) => frame.data_ref().map_or(Ok(()), |data| self.parser.feed(data, &mut events)),
                // What came before a broken end may still be a whole answer.
                Some(Err(_)) | None => {
                    self.done = true;
                    self.parser.finish(&mut events)
                }
            };
            self.ready.extend(events);
            self.failed = read.err();
        }
    }
}
