//! Finds the shell's marks in what it prints.

use crate::truncate::Collector;

/// The byte around a mark.
const EDGE: u8 = 0x1e;

/// Bytes of state that a shell may tell at the end of a command.
const STATE_LIMIT: usize = 1 << 20;

/// What the shell told at the end of a command.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Finished {
    /// The command's exit code.
    pub(super) code: i32,
    /// Where the shell is now.
    pub(super) cwd: Vec<u8>,
    /// A script that sets its exported variables again.
    pub(super) exports: Vec<u8>,
}

/// Splits a shell's output into what commands printed and the state told after them.
#[derive(Debug)]
pub(super) struct Marks {
    output: Collector,
    /// The mark up to the exit code.
    mark: Vec<u8>,
    /// What may be the beginning of a mark, or the state so far.
    held: Vec<u8>,
    phase: Phase,
    closed: bool,
}

#[derive(Debug)]
enum Phase {
    Output,
    /// `returns` where the terminal puts a carriage return before each line feed.
    State {
        code: i32,
        returns: bool,
    },
    Finished(Finished),
}

impl Marks {
    pub(super) fn new(limit: usize) -> Self {
        Self { output: Collector::new(limit), mark: Vec::new(), held: Vec::new(), phase: Phase::Output, closed: false }
    }

    /// A command begins whose marks hold `token`.
    pub(super) fn expect(&mut self, token: &str) {
        self.flush();
        self.mark = [&[EDGE], token.as_bytes()].concat();
        self.phase = Phase::Output;
    }

    /// Takes what was printed so far.
    pub(super) fn take(&mut self, limit: usize) -> Collector {
        self.flush();
        std::mem::replace(&mut self.output, Collector::new(limit))
    }

    /// What the shell told, once the command has ended.
    pub(super) fn finished(&mut self) -> Option<Finished> {
        match std::mem::replace(&mut self.phase, Phase::Output) {
            Phase::Finished(finished) => Some(finished),
            other => {
                self.phase = other;
                None
            }
        }
    }

    /// Nothing will follow.
    pub(super) fn close(&mut self) {
        self.flush();
        self.closed = true;
    }

    /// Whether nothing will follow.
    pub(super) const fn closed(&self) -> bool {
        self.closed
    }

    /// Takes the next bytes.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        match &self.phase {
            Phase::Output if self.mark.is_empty() => self.output.push(bytes),
            Phase::Output => self.feed_output(bytes),
            Phase::State { code, returns } => {
                let (code, returns) = (*code, *returns);
                self.held.extend_from_slice(bytes);
                self.feed_state(code, returns);
            }
            // What background jobs print after the mark belongs to the next command.
            Phase::Finished(_) => self.output.push(bytes),
        }
    }

    fn feed_output(&mut self, bytes: &[u8]) {
        if self.held.is_empty() && memchr::memchr(EDGE, bytes).is_none() {
            self.output.push(bytes);
            return;
        }
        self.held.extend_from_slice(bytes);
        let held = std::mem::take(&mut self.held);
        let mut done = 0;
        while let Some(edge) = memchr::memchr(EDGE, &held[done..]).map(|at| done + at) {
            self.output.push(&held[done..edge]);
            done = edge;
            let rest = &held[edge..];
            if self.mark.starts_with(&rest[..rest.len().min(self.mark.len())]) {
                let Some(body) = rest.get(self.mark.len()..) else { break };
                let Some(end) = memchr::memchr(EDGE, body) else {
                    if body.len() > 16 {
                        self.output.push(&rest[..1]);
                        done += 1;
                        continue;
                    }
                    break;
                };
                let code = std::str::from_utf8(&body[..end]).ok().and_then(|text| text.trim().parse().ok());
                if let Some(code) = code {
                    let returns = body[..end].ends_with(b"\r\n");
                    self.held = body[end + 1..].to_vec();
                    self.phase = Phase::State { code, returns };
                    self.feed_state(code, returns);
                    return;
                }
            }
            self.output.push(&rest[..1]);
            done += 1;
        }
        if memchr::memchr(EDGE, &held[done..]).is_some() {
            self.held = held[done..].to_vec();
        } else {
            self.output.push(&held[done..]);
        }
    }

    fn feed_state(&mut self, code: i32, returns: bool) {
        let mark = [self.mark.as_slice(), &[EDGE]].concat();
        let found = memchr::memmem::find(&self.held, &mark);
        if found.is_none() && self.held.len() <= STATE_LIMIT {
            return;
        }
        let held = std::mem::take(&mut self.held);
        let end = found.unwrap_or(0);
        let state = if returns { without_returns(&held[..end]) } else { held[..end].to_vec() };
        let line = memchr::memchr(b'\n', &state).unwrap_or(state.len());
        let exports = state.get(line + 1..).unwrap_or_default().to_vec();
        self.phase = Phase::Finished(Finished { code, cwd: state[..line].to_vec(), exports });
        self.mark.clear();
        if found.is_some() {
            self.output.push(&held[end + mark.len()..]);
        }
    }

    /// Half a mark that never became one is output.
    fn flush(&mut self) {
        match self.phase {
            Phase::Output => {
                let held = std::mem::take(&mut self.held);
                self.output.push(&held);
            }
            Phase::State { .. } => self.held.clear(),
            Phase::Finished(_) => {}
        }
    }
}

/// What was written before the terminal put a carriage return before each line feed.
fn without_returns(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.len());
    for &byte in bytes {
        if byte == b'\n' && text.last() == Some(&b'\r') {
            text.pop();
        }
        text.push(byte);
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn marks_are_found_wherever_the_stream_is_broken(
            before in prop::collection::vec(prop_oneof![Just(EDGE), Just(b't'), any::<u8>()], 0..60),
            after in "[a-z]{0,9}",
            chunk in 1_usize..20,
            returns in any::<bool>(),
        ) {
            let mut marks = Marks::new(4096);
            marks.expect("token");
            let mut stream = before.clone();
            let state = "\x1etoken 7\n\x1e/a b\nexport A='1\r'\n\x1etoken\x1e";
            let state = if returns { state.replace('\n', "\r\n") } else { state.into() };
            stream.extend_from_slice(state.as_bytes());
            stream.extend_from_slice(after.as_bytes());
            for piece in stream.chunks(chunk) {
                marks.feed(piece);
            }
            let finished = Finished { code: 7, cwd: b"/a b".to_vec(), exports: b"export A='1\r'\n".to_vec() };
            prop_assert_eq!(marks.finished(), Some(finished));
            let mut printed = Collector::new(4096);
            printed.push(&before);
            printed.push(after.as_bytes());
            prop_assert_eq!(marks.take(1).into_text(), printed.into_text());
        }
    }
}
