//! An answer on its way through: line by line, for both wires are made of lines.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use raworc_core::control::ActivityGuard;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::upstream::{GatewayLimits, ModelFault};
use super::usage::{Counter, Tokens};

/// Bytes of one line. A piece of an answer is a few words.
const LINE_LIMIT: usize = 4 << 20;

/// Bytes of an answer in all.
const ANSWER_LIMIT: usize = 256 << 20;

/// What stands in the place of a key that a provider sends back.
const CONCEALED: &[u8] = b"[key]";

/// What a line of an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// A part of it.
    Pass,
    /// Its end.
    End,
    /// The provider says that something went wrong: the last line.
    Error,
    /// Nothing that the wire knows.
    Garbage,
}

/// Knows a wire.
pub(super) trait Reader: Send + fmt::Debug {
    /// Reads a line.
    fn line(&mut self, line: &[u8], tokens: &mut Tokens) -> Line;
    /// Whether the answer is whole though no line said so.
    fn may_end(&self) -> bool;
    /// Reads an answer in one piece. Whether it is one.
    fn whole(&self, body: &Value, tokens: &mut Tokens) -> bool;
    /// How the wire tells that an answer that has begun goes wrong.
    fn error_line(&self, code: &str, message: &str) -> String;
    /// The media type of a stream.
    fn media_type(&self) -> &'static str;
}

/// What a provider answers, in pieces of any size.
pub(super) type Upstream = Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>;

/// Passes an answer on. When it is dropped, the connection to the provider is closed.
pub(super) struct Relay {
    upstream: Upstream,
    reader: Box<dyn Reader>,
    counter: Counter,
    key: Option<SecretString>,
    silence: Duration,
    deadline: Instant,
    partial: BytesMut,
    ready: VecDeque<Bytes>,
    bytes: usize,
    ended: bool,
    _guard: Option<ActivityGuard>,
}

impl Relay {
    pub(super) fn new(
        upstream: Upstream,
        reader: Box<dyn Reader>,
        counter: Counter,
        key: Option<SecretString>,
        limits: &GatewayLimits,
        deadline: Instant,
        guard: Option<ActivityGuard>,
    ) -> Self {
        Self {
            upstream,
            reader,
            counter,
            key,
            silence: limits.silence,
            deadline,
            partial: BytesMut::new(),
            ready: VecDeque::new(),
            bytes: 0,
            ended: false,
            _guard: guard,
        }
    }

    /// Waits for the first line, so that an answer that is none can still be told by its status.
    pub(super) async fn begin(&mut self) -> Result<(), ModelFault> {
        let first = self.step().await?;
        self.ready.extend(first);
        Ok(())
    }

    /// The next lines; none after the end.
    async fn step(&mut self) -> Result<Option<Bytes>, ModelFault> {
        if let Some(ready) = self.ready.pop_front() {
            return Ok(Some(ready));
        }
        while !self.ended {
            // What is no good is left over where there was something good before it in one piece.
            if self.partial.contains(&b'\n') {
                let lines = self.lines()?;
                if !lines.is_empty() {
                    return Ok(Some(lines));
                }
            }
            match self.read().await? {
                Some(chunk) => {
                    self.partial.extend_from_slice(&chunk);
                    let lines = self.lines()?;
                    if !lines.is_empty() {
                        return Ok(Some(lines));
                    }
                    if self.partial.len() > LINE_LIMIT {
                        return Err(ModelFault::Garbage("a line of its answer is longer than 4 MiB".into()));
                    }
                }
                None => {
                    self.ended = true;
                    // The last line may lack its break.
                    if !self.partial.is_empty() {
                        self.partial.extend_from_slice(b"\n");
                        let lines = self.lines()?;
                        self.counter.done |= self.reader.may_end();
                        if !self.counter.done {
                            return Err(ModelFault::Cut);
                        }
                        return Ok(Some(lines));
                    }
                    self.counter.done |= self.reader.may_end();
                    if !self.counter.done {
                        return Err(ModelFault::Cut);
                    }
                }
            }
        }
        Ok(None)
    }

    async fn read(&mut self) -> Result<Option<Bytes>, ModelFault> {
        let silent = Instant::now() + self.silence;
        let chunk = match timeout_at(silent.min(self.deadline), self.upstream.next()).await {
            Ok(chunk) => chunk,
            Err(_) if silent < self.deadline => return Err(ModelFault::Silent(self.silence)),
            Err(_) => return Err(ModelFault::TooLong),
        };
        let chunk = chunk.transpose().map_err(|error| {
            tracing::debug!(%error, "a model's answer was cut off");
            ModelFault::Cut
        })?;
        self.bytes += chunk.as_ref().map_or(0, Bytes::len);
        if self.bytes > ANSWER_LIMIT {
            return Err(ModelFault::Garbage("its answer is longer than 256 MiB".into()));
        }
        Ok(chunk)
    }

    /// Takes the lines that are whole out of what has come.
    fn lines(&mut self) -> Result<Bytes, ModelFault> {
        let Some(last) = self.partial.iter().rposition(|&byte| byte == b'\n') else {
            return Ok(Bytes::new());
        };
        let whole = self.partial.split_to(last + 1).freeze();
        let mut passed = 0;
        for line in whole.split_inclusive(|&byte| byte == b'\n') {
            match self.reader.line(line, &mut self.counter.tokens) {
                Line::Pass => passed += line.len(),
                Line::End => {
                    passed += line.len();
                    self.ended = true;
                    self.counter.done = true;
                    break;
                }
                Line::Error => {
                    passed += line.len();
                    self.ended = true;
                    break;
                }
                Line::Garbage if passed == 0 => {
                    return Err(ModelFault::Garbage(format!("it wrote {:?}", excerpt(line, self.key.as_ref()))));
                }
                // What was good before it is passed on first.
                Line::Garbage => {
                    let mut rest = BytesMut::from(&whole[passed..]);
                    rest.extend_from_slice(&self.partial);
                    self.partial = rest;
                    break;
                }
            }
        }
        if self.ended && self.reader.media_type() == "text/event-stream" {
            return Ok([&conceal(whole.slice(..passed), self.key.as_ref())[..], b"\n"].concat().into());
        }
        Ok(conceal(whole.slice(..passed), self.key.as_ref()))
    }

    /// What is left, as the body of an answer.
    pub(super) fn into_stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send {
        futures::stream::unfold(Some(self), |relay| async {
            let mut relay = relay?;
            match relay.step().await {
                Ok(Some(bytes)) => Some((Ok(bytes), Some(relay))),
                Ok(None) => None,
                // A cut is passed on as a cut: the program sees that the answer is not whole.
                Err(ModelFault::Cut) => Some((Err(io::Error::other("the model's answer was cut off")), None)),
                Err(fault) => {
                    let line = relay.reader.error_line(fault.code(), &fault.to_string());
                    Some((Ok(line.into()), None))
                }
            }
        })
    }

    /// The whole answer, where it is no stream.
    pub(super) async fn whole(mut self) -> Result<Bytes, ModelFault> {
        let mut body = BytesMut::new();
        while let Some(chunk) = self.read().await? {
            body.extend_from_slice(&chunk);
        }
        let body = conceal(body.freeze(), self.key.as_ref());
        let good = serde_json::from_slice(&body).is_ok_and(|value| self.reader.whole(&value, &mut self.counter.tokens));
        if !good {
            return Err(ModelFault::Garbage(format!("it wrote {:?}", excerpt(&body, self.key.as_ref()))));
        }
        self.counter.done = true;
        Ok(body)
    }
}

/// The beginning of what a provider wrote, for people.
pub(super) fn excerpt(bytes: &[u8], key: Option<&SecretString>) -> String {
    let bytes = conceal(Bytes::copy_from_slice(bytes), key);
    String::from_utf8_lossy(&bytes).trim().chars().take(200).collect()
}

/// Providers have been seen to send keys back in errors.
fn conceal(bytes: Bytes, key: Option<&SecretString>) -> Bytes {
    let key = match key.map(|key| key.expose_secret().as_bytes()) {
        Some(key) if !key.is_empty() => key,
        _ => return bytes,
    };
    let find = |from: usize| bytes[from..].windows(key.len()).position(|part| part == key).map(|at| from + at);
    let Some(mut found) = find(0) else { return bytes };
    let mut clean = BytesMut::new();
    let mut from = 0;
    loop {
        clean.extend_from_slice(&bytes[from..found]);
        clean.extend_from_slice(CONCEALED);
        from = found + key.len();
        match find(from) {
            Some(next) => found = next,
            None => break,
        }
    }
    clean.extend_from_slice(&bytes[from..]);
    clean.freeze()
}
