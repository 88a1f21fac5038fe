//! What is written into a computer.

use std::fmt;
use std::io;

use bytes::Bytes;
use futures::Stream;
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

/// What is written into a computer: bytes that are there, or that come as they are read.
pub struct Body(reqwest::Body);

impl Body {
    /// Bytes as they come. An error breaks the call off.
    pub fn stream(bytes: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        Self(reqwest::Body::wrap_stream(bytes))
    }

    /// What can be read, to its end.
    pub fn read(from: impl AsyncRead + Send + 'static) -> Self {
        Self::stream(ReaderStream::new(from))
    }

    pub(super) fn into_inner(self) -> reqwest::Body {
        self.0
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(bytes: T) -> Self {
        Self(bytes.into().into())
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").finish_non_exhaustive()
    }
}
