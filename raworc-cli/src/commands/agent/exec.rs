//! `raworc agent exec`.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::time::Duration;

use anyhow::Context as _;
use futures::future;
use futures::stream::{self, BoxStream, StreamExt};
use raworc_core::program::{ExecRequest, TerminalSize};
use raworc_http::client::{ClientError, Exec};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::ExecArgs;
use crate::commands::context::Context;
use crate::exit::{Exit, Failure, Silent};
use crate::terminal;

/// How long the end of a command is waited for whose caller is leaving.
const END_LIMIT: Duration = Duration::from_secs(5);

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
    let exec = context.client.exec(name, &request, !args.no_wake).await?;
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
async fn pump(exec: &Exec, args: &ExecArgs) -> anyhow::Result<i32> {
    let input = args.stdin.then(tokio::io::stdin);
    let sizes = if args.tty { sizes()? } else { stream::empty().boxed() };
    tokio::select! {
        ended = exec.attach(input, tokio::io::stdout(), tokio::io::stderr(), sizes) => match ended {
            Ok(status) => Ok(status.exit_code),
            Err(error) => {
                // Nobody would know of it any more.
                let ended = tokio::time::timeout(END_LIMIT, exec.end()).await;
                tracing::debug!(?ended, "a command that nobody is attached to any more");
                if is_read_no_further(&error) { Err(Silent(0).into()) } else { Err(error.into()) }
            }
        },
        pressed = tokio::signal::ctrl_c() => {
            pressed.context("Ctrl-C cannot be received")?;
            exec.end().await?;
            Ok(130)
        }
    }
}

/// Whether whoever read the output has enough. Where it cannot be written for another reason, some of it is lost.
fn is_read_no_further(error: &ClientError) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<std::io::Error>());
    error.code == "output" && cause.is_some_and(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

/// The sizes of this terminal, as they change.
fn sizes() -> anyhow::Result<BoxStream<'static, TerminalSize>> {
    let changes = signal(SignalKind::window_change()).context("signals cannot be received")?;
    let sizes =
        stream::unfold(changes, |mut changes| async { changes.recv().await.map(|()| (terminal::size(), changes)) });
    Ok(sizes.filter_map(future::ready).boxed())
}
