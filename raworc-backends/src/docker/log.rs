//! What a program wrote, cut out of what the engine keeps of all starts.

use std::collections::VecDeque;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::query_parameters::{LogsOptions as Query, LogsOptionsBuilder};
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use jiff::{SignedDuration, Timestamp};
use raworc_core::runtime::{LogsOptions, RuntimeError};

use super::error;

/// A stretch of a log: when it was written, and what.
type Entry = (Timestamp, Bytes);

/// How long before its noted start a program may have written.
const EARLY: SignedDuration = SignedDuration::from_millis(250);

/// From when on the log of a start that is over is read. A program that ends at once has written before the engine notes its
/// start; where nothing was written since, that is looked at too.
pub(super) async fn begin(docker: &Docker, container: &str, started: Timestamp) -> Result<Timestamp, RuntimeError> {
    let last = query(started, false).tail("1").build();
    let written = entries(docker, container, last, started).try_next().await?;
    Ok(if written.is_some() { started } else { started.saturating_sub(EARLY).unwrap_or(started) })
}

/// The log from `since` on.
pub(super) async fn read(
    docker: Docker,
    container: String,
    since: Timestamp,
    options: LogsOptions,
) -> Result<BoxStream<'static, Result<Bytes, RuntimeError>>, RuntimeError> {
    let Some(bytes) = options.tail else {
        let entries = entries(&docker, &container, query(since, options.follow).build(), since);
        return Ok(entries.map_ok(|(_, bytes)| bytes).boxed());
    };
    let kept = usize::try_from(bytes).unwrap_or(usize::MAX);
    // A line has at least one byte. The last one is looked at in any case: what follows it is new.
    let tail = query(since, false).tail(&bytes.max(1).to_string()).build();
    let mut written = entries(&docker, &container, tail, since);
    let (mut last, mut size, mut chunks) = ((since, 0), 0, VecDeque::new());
    while let Some((at, chunk)) = written.try_next().await? {
        // Parts of one long line bear the same time.
        last = if at == last.0 { (at, last.1 + 1) } else { (at, 1) };
        size += chunk.len();
        chunks.push_back(chunk);
        while let Some(first) = chunks.front_mut()
            && size > kept
        {
            let cut = first.len().min(size - kept);
            drop(first.split_to(cut));
            size -= cut;
            if first.is_empty() {
                chunks.pop_front();
            }
        }
    }
    let tail = stream::iter(chunks.into_iter().map(Ok));
    if !options.follow {
        return Ok(tail.boxed());
    }
    let (from, mut seen) = last;
    let more = entries(&docker, &container, query(from, true).build(), from);
    let more = more.try_filter_map(move |(at, chunk)| {
        let is_old = at == from && seen > 0;
        seen -= usize::from(is_old);
        async move { Ok((!is_old).then_some(chunk)) }
    });
    Ok(tail.chain(more).boxed())
}

fn query(since: Timestamp, follow: bool) -> LogsOptionsBuilder {
    // Whole seconds, which is why what is older is cut below.
    let seconds = i32::try_from(since.as_second()).unwrap_or(0);
    LogsOptionsBuilder::new().stdout(true).stderr(true).timestamps(true).follow(follow).since(seconds)
}

/// What was written at `since` or later.
fn entries(
    docker: &Docker,
    container: &str,
    query: Query,
    since: Timestamp,
) -> BoxStream<'static, Result<Entry, RuntimeError>> {
    let told = docker.logs(container, Some(query)).map_err(error::of("read the log"));
    let entries = told.try_filter_map(move |output: LogOutput| async move {
        Ok(stamped(output.into_bytes()).filter(|(at, _)| *at >= since))
    });
    entries.boxed()
}

/// The engine writes the time before each stretch, and one space.
fn stamped(mut stretch: Bytes) -> Option<Entry> {
    let space = stretch.iter().position(|byte| *byte == b' ')?;
    let at = std::str::from_utf8(&stretch[..space]).ok()?.parse().ok()?;
    Some((at, stretch.split_off(space + 1)))
}
