//! `raworc agent exec`.

use std::collections::BTreeMap;

use anyhow::Context as _;
use futures::StreamExt;
use raworc_core::program::ExecRequest;
use tokio::io::AsyncWriteExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::io::ReaderStream;

use crate::args::ExecArgs;
use crate::commands::context::Context;
use crate::exit::{Exit, Failure, Silent};
use crate::remote::{ByteStream, ExecStreams};
use crate::terminal;

pub(super) async fn run(context: &Context, args: ExecArgs) -> anyhow::Result<()> {
    let name = &args.agent.name;
    if args.tty && !(terminal::stdin_is_terminal() && context.console.out_is_terminal) {
        return Err(Failure::new(Exit::Usage, "-t needs a terminal on both ends, and here is none")
            .hint("leave out -t")
            .into());
    }
    let request = ExecRequest {
        command: args.command.clone(),
        cwd: args.workdir.clone(),
        env: environment(&args)?,
        terminal: if args.tty { terminal::size() } else { None },
        stdin: args.stdin,
    };
    let progress = context.console.progress(format!("reaching the computer of {name}"));
    let exec = context.remote.exec(name, &request, !args.no_wake).await?;
    drop(progress);
    let raw = if args.tty && args.stdin { Some(terminal::Restore::raw()?) } else { None };
    let code = pump(&exec, &args).await;
    drop(raw);
    match code? {
        0 => Ok(()),
        code => Err(Silent(u8::try_from(code).unwrap_or(u8::MAX)).into()),
    }
}

fn environment(args: &ExecArgs) -> Result<BTreeMap<String, String>, Failure> {
    let pairs = args.env.iter().map(|pair| match pair.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err(Failure::new(Exit::Usage, format!("--env: {pair:?}: write KEY=VALUE"))),
    });
    pairs.collect()
}

/// Moves bytes both ways until the command has ended and all that it wrote is out.
async fn pump(exec: &ExecStreams, args: &ExecArgs) -> anyhow::Result<i32> {
    let feeder = args.stdin.then(|| {
        let exec = exec.clone();
        tokio::spawn(async move {
            let body = reqwest::Body::wrap_stream(ReaderStream::new(tokio::io::stdin()));
            if let Err(error) = exec.stdin(body).await {
                tracing::debug!(%error, "standard input was not read to its end");
            }
        })
    });
    let resizer = args.tty.then(|| tokio::spawn(follow_size(exec.clone())));
    let outputs = async {
        let out = copy(exec.stdout().await?, tokio::io::stdout());
        if args.tty {
            return out.await;
        }
        let err = copy(exec.stderr().await?, tokio::io::stderr());
        tokio::try_join!(out, err).map(|_| ())
    };
    let whole = async {
        let ((), status) = tokio::try_join!(outputs, exec.wait())?;
        anyhow::Ok(status.exit_code)
    };
    let code = tokio::select! {
        code = whole => code,
        pressed = tokio::signal::ctrl_c() => {
            pressed.context("Ctrl-C cannot be received")?;
            exec.end().await?;
            Ok(130)
        }
    };
    [feeder, resizer].into_iter().flatten().for_each(|task| task.abort());
    code
}

async fn copy(mut from: ByteStream, mut to: impl tokio::io::AsyncWrite + Unpin) -> anyhow::Result<()> {
    while let Some(bytes) = from.next().await {
        // Whoever read it has enough.
        to.write_all(&bytes?).await.map_err(|_| Silent(0))?;
        to.flush().await.map_err(|_| Silent(0))?;
    }
    Ok(())
}

async fn follow_size(exec: ExecStreams) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else {
        return;
    };
    while changes.recv().await.is_some() {
        if let Some(size) = terminal::size()
            && let Err(error) = exec.resize(size).await
        {
            tracing::debug!(%error, "the terminal's size was not passed on");
        }
    }
}
