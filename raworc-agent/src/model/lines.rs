//! Lines out of pieces of any size.

use super::ModelFailure;

/// Bytes that one line may hold: a whole answer in one line stays far below.
pub(super) const LINE_LIMIT: usize = 4 << 20;

/// Puts lines together.
#[derive(Debug, Default)]
pub(super) struct Lines {
    buffer: Vec<u8>,
}

impl Lines {
    /// Takes the next bytes and gives the lines that they end, without their line breaks.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, ModelFailure> {
        let mut lines = Vec::new();
        let mut rest = bytes;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            self.buffer.extend_from_slice(&rest[..end]);
            lines.push(self.take());
            rest = &rest[end + 1..];
        }
        self.buffer.extend_from_slice(rest);
        if self.buffer.len() > LINE_LIMIT {
            return Err(ModelFailure::Garbage(format!("a line of more than {LINE_LIMIT} bytes")));
        }
        Ok(lines)
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
