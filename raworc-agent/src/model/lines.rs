//! Lines out of pieces of any size.

use super::ModelFailure;

/// Bytes that one line may hold: a whole answer in one line stays far below.
pub(super) const LINE_LIMIT: usize = 4 << 20;

/// Puts lines together.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    buffer: Vec<u8>,
}

impl Lines {
    /// The next line of what has come, without its line break. Takes of `bytes` what it reads; none is left where there is
    /// no further line.
    pub(super) fn next(&mut self, bytes: &mut &[u8]) -> Result<Option<Vec<u8>>, ModelFailure> {
        let end = memchr::memchr(b'\n', bytes);
        let (piece, rest) = match end {
            Some(end) => (&bytes[..end], &bytes[end + 1..]),
            None => (*bytes, [].as_slice()),
        };
        if self.buffer.len() + piece.len() > LINE_LIMIT {
            return Err(ModelFailure::Garbage(format!("a line of more than {LINE_LIMIT} bytes")));
        }
        self.buffer.extend_from_slice(piece);
        *bytes = rest;
        Ok(end.map(|_| self.take()))
    }

    /// The last line, which no line break ended.
    pub(super) fn take(&mut self) -> Vec<u8> {
        let mut line = std::mem::take(&mut self.buffer);
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        line
    }
}

/// What could not be read, for people.
pub(super) fn garbage(line: &[u8]) -> ModelFailure {
    let text = String::from_utf8_lossy(line);
    let start = crate::truncate::beginning(text.trim(), 120).replace('\0', "\u{fffd}");
    ModelFailure::Garbage(format!("it says {start:?}"))
}

/// What a failure means in what stood after the last line break: an answer that had begun is merely cut.
pub(super) fn at_end(failure: ModelFailure, begun: bool) -> ModelFailure {
    match failure {
        ModelFailure::Garbage(_) if begun => ModelFailure::Cut,
        other => other,
    }
}
