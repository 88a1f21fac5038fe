//! From the first instruction to the exit code.

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::args::{Cli, Command, GlobalArgs};
#[cfg(feature = "bench")]
use crate::commands::bench;
use crate::commands::context::Context;
#[cfg(feature = "docker")]
use crate::commands::image;
use crate::commands::{
    agent, apart, chat, completion, events, history, login, quickstart, reference, send, store, up, version,
};
use crate::exit::{Silent, code_of, render};
use crate::output::{Console, Ink};
#[cfg(feature = "otlp")]
use crate::traces;

/// Runs the command line and returns its exit code.
#[must_use]
pub fn main() -> ExitCode {
    // The helper that builds computers has to be alone in its process: no thread may exist yet.
    if let Some(code) = raworc_backends::local::init_main() {
        return code;
    }
    clap_complete::CompleteEnv::with_factory(Cli::command).complete();
    let Cli { global, command } = Cli::parse();
    if matches!(command, Command::Agentd { .. }) {
        return raworc_agent::main();
    }
    let console = Console::new(&global);
    match run(command, &global, &console) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.chain().any(|cause| cause.is::<Silent>()) {
                let word = |ink, word: &str| console.err.paint(ink, word);
                console.say(render(&error, &word(Ink::Red, "error"), &word(Ink::Cyan, "hint")));
            }
            ExitCode::from(code_of(&error))
        }
    }
}

fn run(command: Command, global: &GlobalArgs, console: &Console) -> anyhow::Result<()> {
    match command {
        // These start no runtime: they answer at once.
        Command::Version => version::run(console),
        Command::Completion(args) => completion::run(console, &args),
        Command::Reference(args) => reference::run(console, &args),
        command @ (Command::Up(_) | Command::Server(_) | Command::Operator(_) | Command::Quickstart(_)) => {
            finish(on_all_cores()?, serve(command, global, console))
        }
        #[cfg(feature = "bench")]
        Command::Bench(args) => finish(on_all_cores()?, bench::run(console, args)),
        #[cfg(feature = "bench")]
        Command::BenchServer(args) => finish(on_all_cores()?, bench::serve(args)),
        command => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            finish(runtime, call(command, global, console))
        }
    }
}

fn on_all_cores() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

fn finish(runtime: tokio::runtime::Runtime, work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let done = runtime.block_on(work);
    // Standard input may still be read by a thread that nothing can stop.
    runtime.shutdown_background();
    done
}

async fn serve(command: Command, global: &GlobalArgs, console: &Console) -> anyhow::Result<()> {
    let done = match command {
        Command::Up(args) => up::run(console, args).await,
        Command::Server(args) => apart::server(console, args).await,
        Command::Operator(args) => apart::operator(console, args).await,
        Command::Quickstart(args) => quickstart::run(console, args).await,
        other => return call(other, global, console).await,
    };
    // Whoever has it end at once waits for no collector.
    #[cfg(feature = "otlp")]
    if !done.as_ref().is_err_and(|error| error.is::<Silent>()) {
        traces::end().await;
    }
    done
}

async fn call(command: Command, global: &GlobalArgs, console: &Console) -> anyhow::Result<()> {
    let context = || Context::new(global, console);
    match command {
        Command::Login(args) => login::login(global, console, args).await,
        Command::Logout => login::logout(global, console).await,
        Command::Status => login::status(&context()?).await,
        Command::Agent(command) => agent::run(&context()?, command).await,
        Command::Send(args) => send::run(&context()?, args).await,
        Command::Chat(args) => chat::run(&context()?, args).await,
        Command::History(args) => history::run(&context()?, args).await,
        Command::Events(args) => events::run(&context()?, args).await,
        Command::Store(command) => store::run(console, command).await,
        #[cfg(feature = "docker")]
        Command::Image(command) => image::run(console, command).await,
        Command::Quickstart(_)
        | Command::Up(_)
        | Command::Server(_)
        | Command::Operator(_)
        | Command::Version
        | Command::Completion(_)
        | Command::Agentd { .. }
        | Command::Reference(_) => elsewhere(),
        #[cfg(feature = "bench")]
        Command::Bench(_) | Command::BenchServer(_) => elsewhere(),
    }
}

fn elsewhere() -> anyhow::Result<()> {
    Err(anyhow::anyhow!("this command is dispatched elsewhere"))
}
