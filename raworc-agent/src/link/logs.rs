//! `GET /logs`: what the program itself has logged.

use bytes::Bytes;
use futures::stream;
use http::Response;

use super::reply::{self, Body, LinkError};
use crate::log::Log;

/// The last `tail` bytes, and with `follow` what comes from then on.
pub(super) fn read(log: &Log, tail: Option<u64>, follow: bool) -> Result<Response<Body>, LinkError> {
    let start = log.position(tail.unwrap_or(u64::MAX));
    let stream = stream::unfold((log.clone(), start), move |(log, position)| async move {
        let (bytes, next) = if follow { log.wait_from(position).await } else { log.read_from(position) };
        if bytes.is_empty() {
            return None;
        }
        Some((Ok(Bytes::from(bytes)), (log, next)))
    });
    Ok(reply::bytes(stream))
}
