//! Two hundred agents on one engine, by the whole product: half of them with an open network, of which each installation has
//! one. It takes minutes, and is run where it is asked for.

use std::time::Duration;

use futures::future::join_all;
use raworc_core::agent::{Agent, AgentSpec, NetworkMode, State};
use raworc_core::control::{CreateAgent, SendMessage};
use raworc_core::ids::AgentName;
use raworc_core::labels::Selector;
use raworc_core::quantity::{Bytes, Cpu};
use raworc_http::client::{Ask, Client, ClientError};
use tokio::time::Instant;

use crate::home::Home;
use crate::up::Up;
use crate::{Cleared, ask, docker, host, is_empty, label, on_slim};

const AGENTS: usize = 200;

/// How long all of them may take for one thing.
const LIMIT: Duration = Duration::from_secs(900);

const PASSWORD: &str = "nobody guesses this one";

pub(crate) fn two_hundred_agents_live_on_one_engine() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(live());
}

async fn live() {
    let home = Home::new();
    let _cleared = Cleared(&home);
    std::fs::write(home.path().join("password"), PASSWORD).expect("written");
    let args = ["up", "--listen", "127.0.0.1:0", "-o", "json", "--log", "warn", "--admin-password-file", "password"];
    let up = Up::of(on_slim(&home, &args));
    let client = Client::new(&up.url).expect("an address");
    let token = client.login("admin", &PASSWORD.into()).await.expect("logged in").token;
    let client = client.with_token(token);
    tell(&format!("before: {}", memory(up.id())));

    let each = |what: &'static str| Times { what, began: Instant::now() };
    let times = each("created and idle");
    let news: Vec<_> = (0..AGENTS).map(new).collect();
    let made = join_all(news.iter().map(|new| client.create_agent(new, waiting()))).await;
    times.tell(&states(made, |agent| agent.status.state() == State::Idle));
    tell(&format!("all idle: {}", memory(up.id())));

    let times = each("answered a command");
    let answers = join_all((0..AGENTS).map(|n| answer(&client, n))).await;
    assert!(answers.iter().enumerate().all(|(n, answer)| answer.trim() == format!("here is {n}")), "{answers:?}");
    times.tell(&format!("{} of them", answers.len()));

    let times = each("asleep");
    let names: Vec<_> = (0..AGENTS).map(name).collect();
    let slept = join_all(names.iter().map(|name| client.sleep(name, false, waiting()))).await;
    times.tell(&states(slept, |agent| agent.status.state() == State::Slept && agent.status.run.is_none()));
    assert_eq!(docker(&["ps", "-q", "--filter", &label(&home)]), "", "no container runs");
    tell(&format!("all asleep: {}", memory(up.id())));

    let times = each("deleted and gone from the engine");
    let deleted = join_all(names.iter().map(|name| client.delete_agent(name, waiting()))).await;
    deleted.into_iter().for_each(|deleted| drop(deleted.expect("deleted")));
    let left = || {
        let lists = [["ps", "-aq", "--filter"].as_slice(), &["volume", "ls", "-q", "--filter"]];
        lists.map(|list| docker(&[list, &[&label(&home)]].concat())).concat()
    };
    let deadline = Instant::now() + LIMIT / 3;
    while !left().is_empty() {
        if Instant::now() > deadline {
            let left = left();
            let seen: Vec<_> = left.lines().map(|id| docker(&["inspect", id])).collect();
            panic!("what deleted agents had is left: {left}\n{}", seen.join("\n"));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let network = network_goes(&home).await;
    assert!(client.all_agents(None, &Selector::default()).await.expect("listed").is_empty());
    times.tell(network);
    tell(&format!("after: {}", memory(up.id())));
    assert_eq!(up.end(), Some(0));
}

/// Waits for the network to go with the last computer. An engine that has miscounted what was on it keeps it from everybody:
/// it names nothing on it, and refuses it to its own command.
async fn network_goes(home: &Home) -> &'static str {
    let deadline = Instant::now() + LIMIT / 30;
    loop {
        let left = docker(&["network", "ls", "-q", "--filter", &label(home)]);
        if left.is_empty() {
            return "nothing is left";
        }
        if Instant::now() > deadline {
            assert!(is_empty(&left), "something is on the network");
            let refused = ask(&["network", "rm", &left]).expect_err("whoever asked for it would have got it");
            assert!(refused.contains("active endpoints"), "{refused}");
            return "the network is left alone, of which the engine says that something is on it, and names nothing";
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn name(n: usize) -> AgentName {
    AgentName::new(format!("one-{n}")).expect("a name")
}

/// Small, so that a small machine has room for all; every second one with a network.
fn new(n: usize) -> CreateAgent {
    let mut spec = AgentSpec::default();
    spec.resources.memory = Some(Bytes::new(96 << 20));
    spec.resources.cpu = Some(Cpu::from_millis(500));
    spec.resources.pids = Some(64);
    if n % 2 == 1 {
        spec.network.mode = NetworkMode::Open;
    }
    CreateAgent { name: name(n), spec }
}

async fn answer(client: &Client, n: usize) -> String {
    let said = SendMessage::text(format!("!echo here is {n}"));
    let sent = client.send(&name(n), &said, Ask::new()).await.expect("accepted");
    let ended = client.message(&name(n), sent.id, Some(LIMIT)).await.expect("ended");
    let reply = client.reply_to(&name(n), &ended).await.expect("read");
    reply.map(|reply| reply.text()).unwrap_or_else(|| format!("{} without a reply", ended.id))
}

/// Says how many are as they should be; others fail the test, with the first few of them.
fn states(agents: Vec<Result<Agent, ClientError>>, is_so: fn(&Agent) -> bool) -> String {
    let all = agents.len();
    let wrong: Vec<_> = agents
        .into_iter()
        .filter_map(|agent| match agent {
            Ok(agent) if is_so(&agent) => None,
            Ok(agent) => Some(format!("{}: {:?}", agent.name, agent.status)),
            Err(error) => Some(error.to_string()),
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {all} are not: {:#?}", wrong.len(), &wrong[..wrong.len().min(3)]);
    format!("{all} of them")
}

fn waiting() -> Ask {
    Ask::new().wait(LIMIT)
}

struct Times {
    what: &'static str,
    began: Instant,
}

impl Times {
    fn tell(self, how_many: &str) {
        tell(&format!("{}: {how_many} in {:.1} s", self.what, self.began.elapsed().as_secs_f64()));
    }
}

/// Memory of the engine's own processes and of the server, as far as this user may see them.
fn memory(server: u32) -> String {
    let processes = std::fs::read_dir("/proc").expect("Linux").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let (mut engine, mut shims, mut count) = (0, 0, 0);
    let socket = host().trim_start_matches("unix://").to_owned();
    let root = socket.trim_end_matches("docker.sock").to_owned();
    for pid in pids {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let name = line.split(' ').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
        match name {
            "dockerd" | "containerd" if line.contains(&root) => engine += resident(pid),
            "containerd-shim-runc-v2" if line.contains(&root) => (shims, count) = (shims + resident(pid), count + 1),
            _ => {}
        }
    }
    let server = resident(server);
    format!("dockerd and containerd {engine} MiB, {count} shims {shims} MiB, `raworc up` {server} MiB")
}

fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default() / 1024
}

#[expect(clippy::print_stdout, reason = "the figures are what it is run for")]
fn tell(text: &str) {
    println!("{text}");
}
