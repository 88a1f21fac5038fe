//! What is said of servers and operators that die, leave, halt and are cut off, with the times in which it has to be so.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use raworc_core::agent::{Agent, State};
use raworc_core::control::SendMessage;
use raworc_core::ids::AgentName;
use raworc_core::program::ExecRequest;
use raworc_http::client::{Ask, Client, ClientError};
use rustix::process::Signal;
use tokio::time::Instant;

use super::fleet::Fleet;
use super::network::{DATABASE, ENGINE, OPERATORS, SERVERS};
use super::node::Node;
use crate::clients::{accepted, work};
use crate::history::{Act, Outcome};
use crate::world::{everybody, said, until};

/// Agents of a test; some of them are every operator's, and some programs every server's.
const AGENTS: usize = 12;

/// An operator's sign of life counts for five seconds, and others look for it every two.
const MOVED: Duration = Duration::from_secs(7);

/// Others are called by the log when one leaves, which some databases have to be asked for.
const LEFT: Duration = Duration::from_millis(500);

/// How soon a program is linked at another server.
const RELINKED: Duration = Duration::from_secs(2);

/// What a busy machine adds to what is promised, at least: begun on every agent at once, and looked at by calls.
const BUSY: Duration = Duration::from_secs(4);

fn names() -> Vec<AgentName> {
    (0..AGENTS).map(|number| format!("b{number}").parse().expect("a name")).collect()
}

/// Says what is wrong, where it was not done in time.
fn within(what: &str, took: Duration, limit: Duration) -> Result<(), String> {
    if took <= limit { Ok(()) } else { Err(format!("{what} took {took:.1?}, which is more than {limit:?}")) }
}

/// Sends a message to everybody, and says which.
async fn send_all(fleet: &Fleet, round: &str) -> Result<BTreeMap<AgentName, String>, String> {
    let sends = futures::stream::iter(names()).map(|name| async move {
        let mut caller = fleet.caller(&format!("{round}-{name}"), 0, &[]);
        loop {
            if let Outcome::Message { id, .. } = caller.send(&name, true, 50).await {
                return (name, id);
            }
        }
    });
    Ok(sends.buffer_unordered(AGENTS).collect().await)
}

/// Waits until each of these is done.
async fn all_done(fleet: &Fleet, client: &Client, sent: &BTreeMap<AgentName, String>) -> Result<(), String> {
    until("every message is done", async || {
        for (name, id) in sent {
            let messages = fleet.messages(client, name).await?;
            if !messages.iter().any(|message| message.id.to_string() == *id && message.state.is_ended()) {
                return Ok(false);
            }
        }
        Ok(true)
    })
    .await
}

async fn put_to_sleep(fleet: &Fleet) -> Result<(), String> {
    for name in names() {
        fleet.clients[1].sleep(&name, false, Ask::new()).await.map_err(said)?;
    }
    let sleeps = |agent: &Agent| agent.status.state() == State::Slept && agent.status.run.is_none();
    fleet.become_so("everybody sleeps", sleeps).await
}

/// Wakes everybody, who sleeps, and says how long it took from `since` until an operator had begun with the last one.
async fn begun_by_all(fleet: &Fleet, since: Instant) -> Result<Duration, String> {
    let before = incarnations(&fleet.clients[1]).await.map_err(said)?;
    let wakes = futures::stream::iter(names())
        .map(|name| async move { fleet.clients[1].wake(&name, false, Ask::new()).await.map(drop) });
    for woken in wakes.buffer_unordered(AGENTS).collect::<Vec<_>>().await {
        woken.map_err(said)?;
    }
    until("an operator has begun with everybody", async || {
        let now = incarnations(&fleet.clients[1]).await?;
        Ok(now.iter().all(|(name, incarnation)| before.get(name).is_some_and(|before| before < incarnation)))
    })
    .await?;
    Ok(since.elapsed())
}

async fn incarnations(client: &Client) -> Result<BTreeMap<AgentName, u64>, ClientError> {
    let agents = everybody(client).await?;
    Ok(agents.into_iter().map(|agent| (agent.name, agent.status.incarnation.0)).collect())
}

/// An operator that dies is followed within seven seconds, and one that leaves at once.
pub(crate) async fn operators_are_followed(fleet: &Fleet) -> Result<String, String> {
    put_to_sleep(fleet).await?;
    let usual = begun_by_all(fleet, Instant::now()).await?;
    let busy = BUSY.max(3 * usual);
    all_idle(fleet).await?;
    put_to_sleep(fleet).await?;
    fleet.operators[0].kill().await;
    let died = begun_by_all(fleet, Instant::now()).await?;
    within("taking over from an operator that died", died, MOVED + busy)?;
    all_idle(fleet).await?;
    fleet.operators[0].start().await?;
    put_to_sleep(fleet).await?;
    // The one that has come since knows both of them.
    fleet.operators[1].end().await?;
    let left = begun_by_all(fleet, Instant::now()).await?;
    within("taking over from an operator that left", left, LEFT + busy)?;
    all_idle(fleet).await?;
    fleet.operators[1].start().await?;
    Ok(format!("followed {died:.1?} after a death and {left:.1?} after a leave, where {usual:.1?} is usual"))
}

async fn all_idle(fleet: &Fleet) -> Result<(), String> {
    fleet.become_so("everybody is idle", |agent| agent.status.state() == State::Idle).await
}

/// An operator that halts right before it commits something or tells the engine something, until others have gone on with its
/// agents, does no harm when it goes on: what it commits is refused, and what it tells the engine costs an agent a restart at most.
pub(crate) async fn a_late_operator_does_no_harm(fleet: &Fleet, points: &[&str]) -> Result<String, String> {
    let late = &fleet.operators[0];
    let mut most = 0;
    for point in points {
        let allowed = usize::from(point.starts_with("engine."));
        late.kill().await;
        late.start_at(Some(&format!("{point}=freeze"))).await?;
        until_halted(fleet, late).await.map_err(|error| format!("{point}: {error}"))?;
        // The other one has to have taken over all that it was about.
        let sent = send_all(fleet, &format!("without-{point}")).await?;
        all_done(fleet, &fleet.clients[0], &sent).await?;
        all_idle(fleet).await?;
        let before = fleet.engine.journal().starts();
        late.signal(Signal::CONT).await;
        let health = fleet.health_of(late)?;
        until("the operator is well again", async || Ok(health.ready().await?.ready)).await?;
        let sent = send_all(fleet, &format!("with-{point}")).await?;
        all_done(fleet, &fleet.clients[1], &sent).await?;
        all_idle(fleet).await?;
        for (computer, starts) in fleet.engine.journal().starts() {
            let restarts = starts - before.get(&computer).copied().unwrap_or_default();
            most = most.max(restarts);
            if restarts > allowed {
                return Err(format!("{point}: computer {computer} was started again {restarts} times"));
            }
        }
    }
    Ok(format!("an operator that came late cost {most} restarts of an agent at most"))
}

/// Puts everybody to sleep and wakes them, until this operator has halted itself in the middle of that.
async fn until_halted(fleet: &Fleet, operator: &Node) -> Result<(), String> {
    for asleep in [true, false].repeat(5) {
        for name in names() {
            let client = &fleet.clients[0];
            let asked = if asleep {
                client.sleep(&name, false, Ask::new()).await
            } else {
                client.wake(&name, false, Ask::new()).await
            };
            asked.map_err(said)?;
        }
        let state = if asleep { State::Slept } else { State::Idle };
        let is_so = |agent: &Agent| agent.status.state() == state && agent.status.run.is_none() == asleep;
        until("the operator halts, or is through with everybody", async || {
            Ok(operator.is_halted().await || everybody(&fleet.clients[0]).await?.iter().all(is_so))
        })
        .await?;
        if operator.is_halted().await {
            return Ok(());
        }
    }
    Err("it never came there".to_owned())
}

/// A server dies: programs link elsewhere, and a client that waits for an answer goes on at the other.
pub(crate) async fn a_server_is_replaced_by_the_other(fleet: &Fleet) -> Result<String, String> {
    let (first, second) = (&fleet.clients[0], &fleet.clients[1]);
    let name = &names()[0];
    let said_to = SendMessage::text(work("across", 3000));
    let act = || Act::Send { label: "across".to_owned(), key: Some("key-across".to_owned()) };
    let ask = || Ask::new().with_key("key-across");
    let sent = async { first.send(name, &said_to, ask()).await.map(accepted) };
    let sent = fleet.recorder.keep(name, act(), sent).await;
    // It is done in three seconds, at the earliest.
    fleet.servers[0].kill().await;
    let waited = async { second.send(name, &said_to, ask().wait(Duration::from_secs(60))).await.map(accepted) };
    let (linked, answered) = tokio::join!(all_linked(second), fleet.recorder.keep(name, act(), waited));
    linked?;
    let Outcome::Message { id, .. } = &answered else { return Err(format!("the other server says {answered:?}")) };
    let messages = fleet.messages(second, name).await.map_err(said)?;
    let is_ended = messages.iter().any(|message| message.id.to_string() == *id && message.state.is_ended());
    if answered != sent || !is_ended {
        return Err(format!("it was {sent:?}, and the other server answers {answered:?}, ended: {is_ended}"));
    }
    fleet.servers[0].start().await?;
    // And back: nobody works now, so that the links alone are measured.
    fleet.servers[1].kill().await;
    let since = Instant::now();
    all_linked(first).await?;
    let took = since.elapsed();
    within("linking at the other server", took, RELINKED + BUSY)?;
    fleet.servers[1].start().await?;
    Ok(format!("programs were linked elsewhere after {took:.1?}"))
}

async fn all_linked(client: &Client) -> Result<(), String> {
    let linked = futures::stream::iter(names()).map(|name| async move { linked(client, &name).await });
    linked.buffer_unordered(AGENTS).collect::<Vec<_>>().await.into_iter().collect()
}

/// Waits until something runs in this computer by way of this server.
async fn linked(client: &Client, name: &AgentName) -> Result<(), String> {
    let request: ExecRequest = serde_json::from_value(serde_json::json!({ "command": ["true"] })).expect("a request");
    until("a command runs", async || {
        client.run(name, &request, Duration::from_secs(10)).await.map(|ran| ran.exit_code == Some(0))
    })
    .await
}

/// What is cut is cut, and comes back.
pub(crate) async fn cuts_are_survived(fleet: &Fleet) -> Result<String, String> {
    let ready = async |client: &Client| {
        tokio::time::timeout(Duration::from_secs(5), client.ready()).await.is_ok_and(|said| said.is_ok_and(|r| r.ready))
    };
    let (first, second) = (&fleet.clients[0], &fleet.clients[1]);
    fleet.network.cut(SERVERS[0], DATABASE)?;
    until("a server without its database is not ready", async || Ok(!ready(first).await)).await?;
    if !ready(second).await {
        return Err("the other server is not ready".to_owned());
    }
    let sent = send_all(fleet, "cut").await?;
    all_done(fleet, second, &sent).await?;
    fleet.network.heal(SERVERS[0], DATABASE)?;
    until("a server that has its database again is ready", async || Ok(ready(first).await)).await?;
    // Programs that are linked at the first go on at the second, and are reached by way of either.
    fleet.network.cut(SERVERS[0], ENGINE)?;
    let sent = send_all(fleet, "aside").await?;
    all_done(fleet, first, &sent).await?;
    fleet.network.heal(SERVERS[0], ENGINE)?;
    // Nothing is begun by an operator that has no engine, and nothing is lost.
    put_to_sleep(fleet).await?;
    fleet.network.cut(OPERATORS[0], ENGINE)?;
    let sent = send_all(fleet, "engineless").await?;
    fleet.network.heal(OPERATORS[0], ENGINE)?;
    all_done(fleet, first, &sent).await?;
    Ok("cuts were survived".to_owned())
}

/// All of it, one after the other, over the same agents.
pub(crate) async fn all(mut fleet: Fleet, seed: u64, points: &[&str]) -> Result<String, String> {
    let tested = async {
        fleet.make(&names()).await?;
        let of = |what: &'static str| move |error: String| format!("{what}: {error}");
        let mut told = vec![
            a_server_is_replaced_by_the_other(&fleet).await.map_err(of("a server dies"))?,
            operators_are_followed(&fleet).await.map_err(of("operators die and leave"))?,
            a_late_operator_does_no_harm(&fleet, points).await.map_err(of("an operator halts"))?,
        ];
        if fleet.network.has_cuts() {
            told.push(cuts_are_survived(&fleet).await.map_err(of("cuts"))?);
        }
        Ok(told.join("; "))
    };
    let tested: Result<String, String> = tested.await;
    if let Err(error) = &tested {
        fleet.trouble(error.clone());
    }
    let report = fleet.finish(seed).await?;
    Ok(format!("{}; {report}", tested?))
}
