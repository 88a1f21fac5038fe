//! `raworc agent exec`.

use std::collections::BTreeMap;

use anyhow::Context as _;
use futures::future;
use futures::stream::{self, BoxStream, StreamExt};
use raworc_core::program::{ExecRequest, TerminalSize};
use raworc_http::client::Exec;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::ExecArgs;
use crate::commands::context::Context;
use crate::exit::{Exit, Failure, Silent};
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
            // Whoever read it has enough.
            Err(error) if error.code == "output" => Err(Silent(0).into()),
            Err(error) => Err(error.into()),
        },
        pressed = tokio::signal::ctrl_c() => {
            pressed.context("Ctrl-C cannot be received")?;
            exec.end().await?;
            Ok(130)
        }
    }
}

/// The sizes of this terminal, as they change.
fn sizes() -> anyhow::Result<BoxStream<'static, TerminalSize>> {
    let changes = signal(SignalKind::window_change()).context("signals cannot be received")?;
    let sizes =
        stream::unfold(changes, |mut changes| async { changes.recv().await.map(|()| (terminal::size(), changes)) });
    Ok(sizes.filter_map(future::ready).boxed())
}
