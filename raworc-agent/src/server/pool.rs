//! Connections that are free again.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;

/// Connections that are kept.
const KEPT: usize = 8;

/// Connections, some of them still busy with the body of their last answer.
#[derive(Debug, Default)]
pub(super) struct Pool(Mutex<Vec<SendRequest<Full<Bytes>>>>);

impl Pool {
    /// A connection that can take a request now.
    pub(super) fn take(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut connections = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        connections.retain(|connection| !connection.is_closed());
        let free = connections.iter().position(SendRequest::is_ready)?;
        Some(connections.swap_remove(free))
    }

    /// Lets go of all connections.
    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Keeps a connection for later.
    pub(super) fn put(&self, connection: SendRequest<Full<Bytes>>) {
        let mut connections = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        connections.retain(|connection| !connection.is_closed());
        if connections.len() < KEPT {
            connections.push(connection);
        }
    }
}
