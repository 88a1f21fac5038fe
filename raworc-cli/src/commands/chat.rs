//! `raworc chat`.

use std::io::Write;

use anyhow::Context as _;
use raworc_core::control::SendMessage;
use raworc_http::client::Ask;
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};

use super::context::{Context, now};
use super::work::Work;
use crate::args::ChatArgs;
use crate::exit::{Exit, code_of};
use crate::output::{Ink, agent};
use crate::terminal;

const HELP: &str = "  /status   how the agent is, and why
  /sleep    put it to sleep; the next message wakes it
  /wake     wake it
  /cancel   cancel the message that it works on
  /quit     leave; so does Ctrl-D. The agent stays as it is
  !COMMAND  run a shell command in its computer, without a model
  Ctrl-C    cancel the running message";

struct Chat<'a> {
    context: &'a Context,
    args: ChatArgs,
    lines: Lines<BufReader<Stdin>>,
    person: bool,
}

/// Talks with an agent, line by line.
///
/// # Errors
/// Where the agent is not there, or the server is lost.
pub async fn run(context: &Context, args: ChatArgs) -> anyhow::Result<()> {
    let found = context.client.agent(&args.agent.name).await?;
    let person = terminal::stdin_is_terminal();
    if person {
        let name = context.console.out.paint(Ink::Bold, found.name.as_str());
        context.console.note(format!("{name} is {}. /help lists what you can do, /quit leaves.", found.status.state()));
    }
    let lines = BufReader::new(tokio::io::stdin()).lines();
    Chat { context, args, lines, person }.talk().await
}

impl Chat<'_> {
    async fn talk(&mut self) -> anyhow::Result<()> {
        while let Some(line) = self.next_line().await? {
            let line = line.trim();
            if line == "/quit" || line == "/exit" {
                break;
            }
            let outcome = match line.strip_prefix('/') {
                _ if line.is_empty() => Ok(()),
                Some(command) => self.command(command).await,
                None => self.say(line).await,
            };
            if let Err(error) = outcome {
                // Whoever types can go on; a script cannot see what went wrong.
                if !self.person || [Exit::Unreachable, Exit::Denied].map(Exit::code).contains(&code_of(&error)) {
                    return Err(error);
                }
                let console = &self.context.console;
                console.say(crate::exit::render(&error, &console.err.paint(Ink::Red, "error"), "hint"));
            }
        }
        Ok(())
    }

    async fn next_line(&mut self) -> anyhow::Result<Option<String>> {
        loop {
            if self.person {
                let mut err = std::io::stderr().lock();
                let prompt = self.context.console.err.paint(Ink::Cyan, &format!("{}>", self.args.agent.name));
                write!(err, "{prompt} ").and_then(|()| err.flush()).context("cannot prompt")?;
            }
            tokio::select! {
                line = self.lines.next_line() => {
                    let line = line.context("cannot read standard input")?;
                    if line.is_none() && self.person {
                        self.context.console.say("");
                    }
                    return Ok(line);
                }
                pressed = tokio::signal::ctrl_c() => {
                    pressed.context("Ctrl-C cannot be received")?;
                    self.context.console.say("\nNothing runs. /quit or Ctrl-D leaves.");
                }
            }
        }
    }

    async fn say(&mut self, line: &str) -> anyhow::Result<()> {
        let (client, console, name) = (&self.context.client, &self.context.console, &self.args.agent.name);
        let request = SendMessage::text(line);
        let mut work = Work::begin(client, console, name, &request, Ask::new(), !self.args.no_steps).await?;
        let ended = loop {
            tokio::select! {
                ended = work.finish() => break ended?,
                pressed = tokio::signal::ctrl_c() => pressed.context("Ctrl-C cannot be received")?,
            }
            console.note(format!("\n{}", console.err.paint(Ink::Dim, "Cancelling.")));
            // It may have ended in this moment.
            if let Err(error) = client.cancel_message(name, work.id(), Ask::new()).await {
                tracing::debug!(%error, "the message could not be cancelled");
            }
        };
        work.conclude(&ended)
    }

    async fn command(&mut self, command: &str) -> anyhow::Result<()> {
        let (client, console, name) = (&self.context.client, &self.context.console, &self.args.agent.name);
        match command.trim() {
            "help" | "?" => console.note(HELP),
            "status" => {
                let explanation = client.explain(name).await?;
                console.note(agent::explanation(name.as_str(), &explanation, now(), console).trim_end());
            }
            "sleep" => {
                client.sleep(name, false, Ask::new()).await?;
                console.note(format!("{name} goes to sleep."));
            }
            "wake" => {
                client.wake(name, false, Ask::new()).await?;
                console.note(format!("{name} wakes up."));
            }
            "cancel" => {
                let agent = client.cancel(name, Ask::new()).await?;
                console.note(match agent.status.message {
                    Some(_) => format!("{name} is told to give up its message."),
                    None => format!("{name} works on no message."),
                });
            }
            other => console.note(format!("There is no /{other}. /help lists what there is.")),
        }
        Ok(())
    }
}
