//! The streams of a command.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{Stream, stream};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use pty_process::OwnedWritePty;
use raworc_core::program::ExecStatus;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::ChildStdin;
use tokio::sync::watch;

/// Where output comes from.
pub(super) type Source = Box<dyn AsyncRead + Send + Sync + Unpin>;

/// Bytes of one piece.
const PIECE: usize = 32 << 10;

/// After a command's end, how long its background jobs may be silent before the stream ends.
const SILENCE: Duration = Duration::from_millis(200);

/// The end of input, as a terminal's line discipline reads it.
const END_OF_INPUT: u8 = 4;

/// Where input goes.
#[derive(Debug)]
pub(super) enum Stdin {
    /// A pipe, closed at the end.
    Pipe(ChildStdin),
    /// A terminal.
    Terminal(OwnedWritePty),
}

/// Writes what comes. A command that reads no more ends it.
pub(super) async fn write(mut stdin: Stdin, mut body: Incoming) {
    while let Some(frame) = body.frame().await {
        // A broken request is no end of input.
        let Ok(frame) = frame else { return };
        let Some(data) = frame.data_ref() else { continue };
        let written = match &mut stdin {
            Stdin::Pipe(pipe) => pipe.write_all(data).await,
            Stdin::Terminal(terminal) => terminal.write_all(data).await,
        };
        if written.is_err() {
            return;
        }
    }
    if let Stdin::Terminal(terminal) = &mut stdin {
        // A terminal that is gone has no reader to tell.
        let _ = terminal.write_all(&[END_OF_INPUT]).await;
    }
}

struct Reading {
    source: Source,
    ended: watch::Receiver<Option<ExecStatus>>,
}

/// Reads to the end, or until the command has ended and what it left behind is silent.
pub(super) fn read(
    source: Source,
    ended: watch::Receiver<Option<ExecStatus>>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::unfold(Reading { source, ended }, |mut reading| async move {
        let mut buffer = BytesMut::with_capacity(PIECE);
        let read = tokio::select! {
            biased;
            read = reading.source.read_buf(&mut buffer) => Some(read),
            () = silent(&mut reading.ended) => None,
        };
        match read {
            Some(Ok(1..)) => Some((Ok(buffer.freeze()), reading)),
            // A terminal tells its end by an error.
            Some(Ok(0) | Err(_)) => None,
            None => {
                // Background jobs would die of writing if the pipe were closed.
                tokio::spawn(async move { tokio::io::copy(&mut reading.source, &mut tokio::io::sink()).await });
                None
            }
        }
    })
}

async fn silent(ended: &mut watch::Receiver<Option<ExecStatus>>) {
    // The sender goes with the command's end.
    let _ = ended.wait_for(Option::is_some).await;
    tokio::time::sleep(SILENCE).await;
}
