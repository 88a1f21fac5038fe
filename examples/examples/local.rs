//! An agent with a computer of Linux namespaces and its rows in SQLite, by the library alone: made, given work, and deleted.
//!
//! Run it: `cargo run -p raworc-examples --example local`. scripts/release runs the same program against the crates as they
//! are packaged.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use raworc_backends::local::{LocalOptions, LocalRuntime, PROGRAM_PATH};
use raworc_backends::sqlite::{SqliteOptions, SqliteStore};
use raworc_core::agent::{Agent, State};
use raworc_core::control::{Call, ControlPlane, CreateAgent, Parts, SendMessage};
use raworc_core::entropy::SystemEntropy;
use raworc_core::ids::{AgentName, RuntimeName, TenantName, UserName};
use raworc_core::message::MessageState;
use raworc_core::operator::{Operator, OperatorSettings};
use raworc_core::principal::Principal;
use raworc_core::runtime::Runtimes;
use raworc_core::seal::MasterKey;
use raworc_http::server::Tokens;
use raworc_http::server::agents::egress::Egress;
use raworc_http::server::agents::gateway::Upstreams;
use raworc_http::server::agents::{AgentsListener, AgentsState, Links, ListenerLimits, agents_router};
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(60);

#[cfg_attr(not(test), expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a program that tells"))]
fn main() -> ExitCode {
    // This very file is also what builds a computer, which has to be alone in its process, and the program inside.
    if let Some(code) = raworc_backends::local::init_main() {
        return code;
    }
    if std::env::args().nth(1).as_deref() == Some("agentd") {
        return raworc_agent::main();
    }
    #[cfg(test)]
    return tests::main();
    #[cfg(not(test))]
    match run() {
        Ok(reply) => {
            print!("{reply}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What the agent answers.
fn run() -> anyhow::Result<String> {
    tokio::runtime::Runtime::new()?.block_on(ask("!echo a thought > thoughts; pwd; cat thoughts"))
}

async fn ask(text: &str) -> anyhow::Result<String> {
    let directory = tempfile::tempdir()?;
    let place = |name: &str| directory.path().join(name);
    let listener = AgentsListener::unix(place("link/agents.sock"), ListenerLimits::default()).await?;
    let options = LocalOptions::new(RuntimeName::new("local")?, "example", place("local"))
        .with_link_dir(place("link"))
        .with_program_file(std::env::current_exe()?)
        .with_program([PROGRAM_PATH, "agentd"])
        .with_private([place("store")]);
    let local = LocalRuntime::open(options).await?;
    let agent_url = local.agent_url();
    let runtimes = Runtimes::new().with(Arc::new(local), agent_url, None);

    let store = Arc::new(SqliteStore::open(SqliteOptions::new(place("store"))).await?);
    let key = MasterKey::generate(&SystemEntropy);
    let control = ControlPlane::start(Parts::new(store.clone(), runtimes.clone(), key)).await?;
    let closing = CancellationToken::new();
    let state = AgentsState {
        control: control.clone(),
        tokens: Tokens::new(&control),
        links: Links::start(&control),
        upstreams: Upstreams::default(),
        egress: Egress::default(),
        closing: closing.clone(),
    };
    let serving = tokio::spawn(listener.serve(agents_router(state), closing.clone().cancelled_owned()));
    let operator = Operator::start(&control, runtimes, OperatorSettings::default()).await?;

    let (tenant, name) = (TenantName::default(), AgentName::new("ada")?);
    let call = Call::by(Principal::user(UserName::new("you")?, tenant.clone()));
    control.create_agent(&call, &tenant, CreateAgent::named(name.clone())).await?;
    let answered = control.ask(&call, &tenant, &name, SendMessage::text(text), LIMIT).await?;
    anyhow::ensure!(answered.message.state == MessageState::Done, "it ended otherwise: {:?}", answered.message);
    let reply = answered.reply.ok_or_else(|| anyhow::anyhow!("it is done, and there is no reply"))?;
    let agent = control.delete(&call, &tenant, &name).await?;
    let is_gone = |agent: &Agent| agent.status.state() == State::Deleted && agent.status.computer.is_none();
    control.wait_for_agent(&call, &agent, LIMIT, is_gone).await?;

    operator.shutdown().await;
    closing.cancel();
    serving.await?;
    store.close().await;
    Ok(reply.text())
}

#[cfg(test)]
mod tests {
    use std::process::ExitCode;

    use libtest_mimic::{Arguments, Trial};

    pub(super) fn main() -> ExitCode {
        let trial = Trial::test("local::an_agent_of_the_library_alone_answers", || {
            assert_eq!(super::run()?, "/agent\na thought\n");
            Ok(())
        });
        libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit_code()
    }
}
