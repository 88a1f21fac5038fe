//! The end of a run: faults are over, and what is has to become what is wanted, and stay so.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::check::{Found, must};
use super::client::Client;
use super::process::Role;
use super::world::{World, short};
use crate::agent::{Agent, Desired, State};
use crate::event::EventKind;
use crate::ids::{RuntimeName, TenantName};
use crate::message::MessageState;
use crate::store::{AuditQuery, ComputerQuery, MAX_PAGE, QuotaKind, Store};

/// How long becoming what is wanted may take: the longest waits of an operator, some times over.
const LIMIT: Duration = Duration::from_secs(900);

/// How long it has to stay so: longer than whatever an operator does from time to time.
const STAYS: Duration = Duration::from_secs(40);

/// Sees to it that everything comes to rest and was done as promised, once faults are over and clients have stopped.
pub(super) async fn settle(world: &Arc<World>, clients: &[Client]) -> Found {
    until(world, 10, "every process serves", || serving(world)).await?;
    for agent in living(world) {
        if let Some(client) = clients.iter().find(|client| client.user == agent.owner) {
            put_right(client, &agent).await;
        }
    }
    until(world, 3, "every message has ended", || ended(world)).await?;
    until(world, 10, "everything is as it is wanted", || rests(world)).await?;
    let moves = moves(world);
    tokio::time::sleep(STAYS).await;
    must(moves == self::moves(world), 10, || "an agent moves though nothing is wanted of it".into())?;
    rests(world).or_else(|why| must(false, 10, || format!("it does not stay as it is wanted: {why}")))?;
    promises(world)?;
    audit(world)?;
    files(world)?;
    for agent in living(world) {
        if let Some(client) = clients.iter().find(|client| client.user == agent.owner) {
            client.wish(&agent.name, "delete", Some(format!("last delete {}", agent.name))).await;
        }
    }
    until(world, 6, "everything that was deleted is gone", || nothing_left(world)).await
}

/// Takes away what its owner would have to take away, and says one thing more.
async fn put_right(client: &Client, agent: &Agent) {
    let name = &agent.name;
    let key = |what: &str| Some(format!("last {what} {name}"));
    if agent.spec.image.as_deref() == Some("ghost") {
        client.change_spec(name, r#"{"image": null}"#, key("image")).await;
    }
    if agent.spec.setup.as_deref().is_some_and(|script| script != "succeed") {
        client.change_spec(name, r#"{"setup": null}"#, key("setup")).await;
    }
    if agent.spec.resources.disk.is_some() {
        // Files that were taken away would not do: a message that waits may fill it again.
        client.change_spec(name, r#"{"resources": null}"#, key("resources")).await;
    }
    // A clock that was set back and on again may have moved the end of such a wish by an hour.
    client.wish(name, "keep awake no longer", key("keep awake")).await;
    // What was queued when it was put to sleep waits for this, and may fill its inbox.
    client.wish(name, "wake", key("wake")).await;
    client.say(name, format!("{}-last-{name} answer", client.user), key("message")).await;
}

async fn until(world: &World, invariant: u8, what: &str, mut holds: impl FnMut() -> Result<(), String>) -> Found {
    let deadline = Instant::now() + LIMIT;
    loop {
        match holds() {
            Ok(()) => {
                world.say(format_args!("{what}"));
                return Ok(());
            }
            Err(why) if Instant::now() > deadline => {
                return must(false, invariant, || format!("not within {LIMIT:?}: {what}; {why}"));
            }
            Err(_) => tokio::time::sleep(Duration::from_secs(2)).await,
        }
    }
}

fn no<T>(why: String) -> Result<T, String> {
    Err(why)
}

fn serving(world: &World) -> Result<(), String> {
    let wanted = world.processes.iter().filter(|process| process.role != Role::Operator).count();
    let there = world.servers().len();
    if there == wanted { Ok(()) } else { no(format!("{there} of {wanted} servers serve")) }
}

fn all(world: &World) -> Vec<Agent> {
    let ids: Vec<_> = world.checker().agents.keys().copied().collect();
    ids.into_iter().filter_map(|id| World::at_once(world.store.agent_by_id(id)).ok()?.value).collect()
}

fn living(world: &World) -> Vec<Agent> {
    all(world).into_iter().filter(|agent| agent.status.state() != State::Deleted).collect()
}

fn moves(world: &World) -> usize {
    world.checker().log.iter().filter(|event| event.kind == EventKind::AgentState).count()
}

fn ended(world: &World) -> Result<(), String> {
    let checker = world.checker();
    match checker.messages.values().find(|message| !message.state.is_ended()) {
        None => Ok(()),
        Some(open) => {
            let agent = checker.agents.get(&open.agent);
            no(format!("message {} is {}, its agent is {agent:?}", short(open.id), open.state))
        }
    }
}

/// That every agent is as it is wanted, and the engine has what they need and nothing else.
fn rests(world: &World) -> Result<(), String> {
    let mut running = BTreeSet::new();
    for agent in all(world) {
        let state = agent.status.state();
        let asleep = agent.desired == Desired::Asleep && state == State::Slept && agent.status.run.is_none();
        let awake = agent.desired == Desired::Awake && state == State::Idle && agent.spec.idle_timeout == 0;
        let deleted = agent.desired == Desired::Deleted && state == State::Deleted;
        if !(asleep || awake || deleted) {
            return no(format!("agent {} is {state}: {agent:?}", short(agent.id)));
        }
        running.extend(agent.status.computer.filter(|_| awake));
    }
    let query = ComputerQuery { runtime: RuntimeName::simulated(), reclaim: false, after: None, limit: MAX_PAGE };
    let rows = World::at_once(world.store.computers(&query)).map(|page| page.items).unwrap_or_default();
    if let Some(left) = rows.iter().find(|computer| computer.reclaim_since.is_some()) {
        return no(format!("computer {} is not reclaimed", short(left.id())));
    }
    for seen in world.engine.computers() {
        let is_running = seen.phase.start().is_some();
        if !rows.iter().any(|computer| computer.id() == seen.computer) {
            return no(format!("computer {} belongs to nobody", short(seen.computer)));
        }
        if is_running != running.contains(&seen.computer) {
            return no(format!("computer {} is {:?}", short(seen.computer), seen.phase));
        }
        running.remove(&seen.computer);
    }
    if let Some(missing) = running.first() {
        return no(format!("computer {} is not there", short(missing)));
    }
    let volumes: BTreeSet<_> = rows.iter().map(|computer| computer.spec.volume).collect();
    match world.engine.volumes().into_iter().find(|volume| !volumes.contains(volume)) {
        Some(orphan) => no(format!("volume {} belongs to nobody", short(orphan))),
        None => Ok(()),
    }
}

/// That every message of which a client was told is there and has ended, and none came twice.
fn promises(world: &World) -> Found {
    let (checker, journal) = (world.checker(), world.journal());
    for sent in &journal.sent {
        let there: Vec<_> =
            checker.messages.values().filter(|m| m.reply_to.is_none() && m.text() == sent.text).collect();
        must(there.len() <= 1, 9, || format!("{:?} to {} came {} times", sent.text, sent.name, there.len()))?;
        if let Some((agent, id)) = sent.accepted {
            let message = there.first().filter(|message| message.id == id && message.agent == agent);
            must(message.is_some(), 3, || format!("{:?} was accepted and is not there", sent.text))?;
        }
        must(there.iter().all(|message| message.tenant == sent.tenant), 7, || format!("{:?} is elsewhere", sent.text))?;
    }
    Ok(())
}

/// That what people did stands in the audit, each commit once.
fn audit(world: &World) -> Found {
    let mut query = AuditQuery { tenant: None, after: None, limit: MAX_PAGE };
    let mut rows = Vec::new();
    loop {
        let page = World::at_once(world.store.audit(&query))
            .map_err(|error| super::Violation { invariant: 2, what: format!("the audit cannot be read: {error}") })?;
        rows.extend(page.items.into_iter().map(|row| row.commit));
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    let once: BTreeSet<_> = rows.iter().copied().collect();
    let audited = &world.checker().audited;
    must(once.len() == rows.len() && once == *audited, 2, || {
        format!("{} audit rows of {} commits, and {} were to have one", rows.len(), once.len(), audited.len())
    })
}

/// That no file is lost: what an agent has answered stands on its volume.
fn files(world: &World) -> Found {
    for agent in living(world) {
        let computer = agent.status.computer.and_then(|id| World::at_once(world.store.computer(id)).ok()?);
        let Some(volume) = computer.map(|computer| computer.spec.volume) else { continue };
        let file = world.engine.volume_file(volume, "messages").unwrap_or_default();
        let file = String::from_utf8_lossy(&file);
        let checker = world.checker();
        let done = checker.messages.values().filter(|message| {
            message.agent == agent.id && message.reply_to.is_none() && message.state == MessageState::Done
        });
        for message in done {
            let text = message.text();
            must(file.lines().any(|line| line == text), 1, || format!("the file of {:?} is lost", message.text()))?;
        }
    }
    Ok(())
}

fn nothing_left(world: &World) -> Result<(), String> {
    if let Some(agent) = living(world).first() {
        return no(format!("agent {} is {}", short(agent.id), agent.status.state()));
    }
    rests(world)?;
    if !world.engine.computers().is_empty() || !world.engine.volumes().is_empty() {
        return no(format!("the engine has {:?}, {:?}", world.engine.computers(), world.engine.volumes()));
    }
    for tenant in ["one", "two"].into_iter().filter_map(|name| TenantName::new(name).ok()) {
        let used = World::at_once(world.store.usage(&tenant, QuotaKind::Agents)).unwrap_or_default();
        if used > 0 {
            return no(format!("tenant {tenant} uses {used}"));
        }
    }
    Ok(())
}
