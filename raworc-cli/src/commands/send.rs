//! `raworc send`.

use std::io::Read;

use anyhow::Context as _;
use raworc_core::control::SendMessage;
use raworc_core::message::{Part, Role};
use raworc_http::client::Ask;

use super::context::Context;
use super::work::{Ended, Work, failure};
use crate::args::SendArgs;
use crate::duration::short;
use crate::exit::{Exit, Failure, Silent};
use crate::output::{Format, Ink};
use crate::terminal;

/// Sends a message.
///
/// # Errors
/// Where it is not accepted, or its work fails.
pub async fn run(context: &Context, args: SendArgs) -> anyhow::Result<()> {
    let role = if args.system { Role::System } else { Role::User };
    let request = SendMessage { role, parts: vec![Part::text(text(&args)?)] };
    let (name, mut ask) = (&args.agent.name, Ask::new());
    if let Some(key) = &args.idempotency_key {
        ask = ask.with_key(key);
    }
    let console = &context.console;
    if args.no_wait {
        let message = context.client.send(name, &request, ask).await?;
        return console.show(&message, &message.id.to_string(), || message.id.to_string());
    }
    let mut work = Work::begin(&context.client, console, name, &request, ask, !args.no_steps).await?;
    let ended = match args.timeout {
        None => finish(context, &args, &mut work).await?,
        Some(limit) => tokio::time::timeout(limit, finish(context, &args, &mut work)).await.map_err(|_| {
            Failure::new(Exit::TimedOut, format!("{name} has not answered within {}; the work goes on", short(limit)))
                .hint(format!("`raworc history {name}` shows the answer when it is there"))
        })??,
    };
    if console.format == Format::Table {
        return work.conclude(&ended);
    }
    console.show(&ended, &ended.message.id.to_string(), String::new)?;
    match ended.message.state {
        raworc_core::message::MessageState::Done => Ok(()),
        _ => Err(failure(&ended.message, name).into()),
    }
}

/// Follows the message; the first Ctrl-C cancels it, the second one leaves it to itself.
async fn finish(context: &Context, args: &SendArgs, work: &mut Work) -> anyhow::Result<Ended> {
    let mut asked = false;
    loop {
        tokio::select! {
            ended = work.finish() => return ended,
            pressed = tokio::signal::ctrl_c() => {
                pressed.context("Ctrl-C cannot be received")?;
                if asked {
                    return Err(Silent(130).into());
                }
                asked = true;
                let hint = context.console.err.paint(Ink::Dim, "Cancelling. Ctrl-C again leaves it to itself.");
                context.console.note(format!("\n{hint}"));
            }
        }
        if asked {
            // It may have ended in this moment.
            if let Err(error) = context.client.cancel_message(&args.agent.name, work.id(), Ask::new()).await {
                tracing::debug!(%error, "the message could not be cancelled");
            }
        }
    }
}

fn text(args: &SendArgs) -> anyhow::Result<String> {
    let mut parts = Vec::new();
    let (dash, words) = match args.text.as_slice() {
        [words @ .., last] if last == "-" => (true, words),
        words => (false, words),
    };
    if !words.is_empty() {
        parts.push(words.join(" "));
    }
    for file in &args.file {
        let text = std::fs::read_to_string(file).map_err(|error| {
            Failure::new(Exit::NotFound, format!("cannot read {} as text", file.display())).because(error).hint(
                format!(
                    "a file that is no text goes there by: raworc agent cp {} {}:/agent/",
                    file.display(),
                    args.agent.name
                ),
            )
        })?;
        parts.push(text);
    }
    // Where there is something to say, standard input may be open and never end, as with cron and ssh.
    if dash || (parts.is_empty() && !terminal::stdin_is_terminal()) {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes).context("cannot read standard input")?;
        let text = String::from_utf8(bytes).map_err(|_| {
            Failure::new(Exit::Usage, "standard input is no text in UTF-8")
                .hint("copy it into the computer with `raworc agent cp`, and say where it is")
        })?;
        if !text.trim().is_empty() {
            parts.push(text);
        }
    }
    if parts.is_empty() {
        let name = &args.agent.name;
        return Err(Failure::new(Exit::Usage, "there is nothing to send")
            .hint(format!("raworc send {name} 'Say what you can do', or raworc chat {name}"))
            .into());
    }
    Ok(parts.join("\n\n"))
}
