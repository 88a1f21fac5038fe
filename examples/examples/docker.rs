//! An agent with a container of its own, by the library alone: made, given work, put to sleep, woken, deleted.
//!
//! Run it where a Docker engine answers: `cargo run -p raworc-examples --example docker`

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use raworc_backends::docker::{DockerOptions, DockerRuntime, PROGRAM_PATH};
use raworc_core::agent::{Agent, State};
use raworc_core::control::{Call, ControlPlane, CreateAgent, Parts, SendMessage, SleepMode};
use raworc_core::entropy::{Clock, EntropyExt, SystemClock, SystemEntropy};
use raworc_core::ids::{AgentName, RuntimeName, TenantName, UserName};
use raworc_core::operator::{Operator, OperatorSettings};
use raworc_core::principal::Principal;
use raworc_core::runtime::{Runtime, Runtimes};
use raworc_core::seal::MasterKey;
use raworc_core::store::{ComputerQuery, MemoryStore, Store};
use raworc_http::server::Tokens;
use raworc_http::server::agents::egress::Egress;
use raworc_http::server::agents::gateway::Upstreams;
use raworc_http::server::agents::{AgentsListener, AgentsState, Links, ListenerLimits, agents_router};
use tokio_util::sync::CancellationToken;

/// The image of the computer; any with the same C library as this program.
const IMAGE: &str = "debian:bookworm-slim";

const LIMIT: Duration = Duration::from_secs(120);

#[cfg_attr(not(test), expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a program that tells"))]
fn main() -> ExitCode {
    // This very file is the program inside the computer too.
    if std::env::args().nth(1).as_deref() == Some("agentd") {
        return raworc_agent::main();
    }
    #[cfg(test)]
    return tests::main();
    #[cfg(not(test))]
    match run(|line| println!("{line}")) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Gives the name of the installation, for whoever looks at what is left of it.
fn run(mut say: impl FnMut(String)) -> anyhow::Result<String> {
    let host = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".into());
    tokio::runtime::Runtime::new()?.block_on(tell(&host, &mut say))
}

async fn tell(host: &str, say: &mut dyn FnMut(String)) -> anyhow::Result<String> {
    // Computers are given the directory with the agents' socket, and this program as theirs.
    let directory = tempfile::tempdir()?;
    let listener = AgentsListener::unix(directory.path().join("link/agents.sock"), ListenerLimits::default()).await?;
    // Computers of an installation that its store does not know are taken away, so each run is one of its own.
    let installation = format!("example-{}", SystemEntropy.uuid(SystemClock.now()).simple());
    let options = DockerOptions::new(RuntimeName::new("docker")?, &installation, host, IMAGE)
        .with_link_dir(directory.path().join("link"))
        .with_program_file(std::env::current_exe()?)
        .with_program([PROGRAM_PATH, "agentd"]);
    let docker = Arc::new(DockerRuntime::open(options)?);
    docker.prepare(None, &|_| ()).await?;
    let runtimes = Runtimes::new().with(docker, DockerRuntime::agent_url(), None);

    let store = Arc::new(MemoryStore::default());
    let control =
        ControlPlane::start(Parts::new(store.clone(), runtimes.clone(), MasterKey::generate(&SystemEntropy))).await?;
    let closing = CancellationToken::new();
    let (tokens, links) = (Tokens::new(&control), Links::start(&control));
    let state = AgentsState {
        control: control.clone(),
        tokens,
        links,
        upstreams: Upstreams::default(),
        egress: Egress::default(),
        closing: closing.clone(),
    };
    let serving = tokio::spawn(listener.serve(agents_router(state), closing.clone().cancelled_owned()));
    let operator = Operator::start(&control, runtimes, OperatorSettings::default()).await?;

    let (tenant, name) = (TenantName::default(), AgentName::new("ada")?);
    let call = Call::by(Principal::user(UserName::new("you")?, tenant.clone()));
    let until = async |agent: Agent, done: fn(&Agent) -> bool| control.wait_for_agent(&call, &agent, LIMIT, done).await;
    let ask = async |text: &str| {
        let answered = control.ask(&call, &tenant, &name, SendMessage::text(text), LIMIT).await?;
        let reply = answered.reply.map(|reply| reply.text());
        reply.ok_or_else(|| anyhow::anyhow!("no reply to {text:?}: {:?}", answered.message.state))
    };

    let agent = control.create_agent(&call, &tenant, CreateAgent::named(name.clone())).await?;
    let agent = until(agent, |agent| agent.status.state() == State::Idle).await?;
    say(format!("{} is {}, start {}", agent.name, agent.status.state(), agent.status.incarnation));
    say(ask("!echo a thought > thoughts; pwd; cat thoughts").await?.trim_end().to_owned());
    let agent = control.sleep(&call, &tenant, &name, SleepMode::AfterMessage).await?;
    let agent = until(agent, |agent| agent.status.state() == State::Slept && agent.status.run.is_none()).await?;
    say(format!("{} is {}", agent.name, agent.status.state()));
    say(ask("!cat thoughts").await?.trim_end().to_owned());
    let agent = until(agent, |agent| agent.status.state() == State::Idle).await?;
    say(format!("{} is {}, start {}", agent.name, agent.status.state(), agent.status.incarnation));
    let agent = control.delete(&call, &tenant, &name).await?;
    until(agent, |agent| agent.status.state() == State::Deleted && agent.status.computer.is_none()).await?;
    // The agent is gone at once, and its computer as soon as the engine has taken it away.
    let query = ComputerQuery { runtime: RuntimeName::new("docker")?, reclaim: true, after: None, limit: 1 };
    while !store.computers(&query).await?.items.is_empty() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    say("nothing of it is left".to_owned());

    operator.shutdown().await;
    closing.cancel();
    serving.await?;
    Ok(installation)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, ExitCode};

    use libtest_mimic::{Arguments, Trial};

    /// What it prints, as the README has it.
    fn it_prints_what_the_readme_shows() {
        let mut printed = Vec::new();
        let installation = super::run(|lines| printed.extend(lines.lines().map(str::to_owned)));
        let label = format!("label=raworc.installation={}", installation.expect("the engine answers"));
        for list in [["ps", "--all"], ["volume", "ls"]] {
            let listed =
                Command::new("docker").args(list).args(["--quiet", "--filter", &label]).output().expect("listed");
            assert!(listed.status.success() && listed.stdout.is_empty(), "left behind: {listed:?}");
        }
        let readme = include_str!("../../README.md");
        let (_, shown) = readme.split_once("--example docker\n").expect("the example in the README");
        let (shown, _) = shown.split_once("```").expect("its end");
        assert_eq!(printed, shown.lines().collect::<Vec<_>>());
    }

    pub(super) fn main() -> ExitCode {
        let required = std::env::var("RAWORC_TEST_BACKENDS").unwrap_or_default();
        let answers = || Command::new("docker").arg("version").output().is_ok_and(|output| output.status.success());
        let is_ignored = !required.split(',').any(|name| name == "docker") && !answers();
        let test = || {
            it_prints_what_the_readme_shows();
            Ok(())
        };
        let trial = Trial::test("docker::the_example_prints_what_the_readme_shows", test).with_ignored_flag(is_ignored);
        libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit_code()
    }
}
