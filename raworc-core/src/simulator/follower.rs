//! Followers: each reads a tenant's log as its user sees it, from server to server, and must miss nothing of it.

use std::time::Duration;

use super::client::Client;
use crate::control::{Call, Followed};
use crate::error::Error;
use crate::event::Event;
use crate::ids::Revision;
use crate::simulator::world::World;
use crate::store::Store;

/// Follows the log until faults are over.
pub(super) async fn follow(client: Client) {
    let world = &client.caller.world;
    let mut last: Option<Revision> = None;
    while !world.closing.is_cancelled() {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let Some(server) = client.caller.chance.pick(&world.servers()).cloned() else { continue };
        let call = Call::by(client.caller.principal.clone());
        let reading = async {
            let mut following = match server.control.follow(&call, &client.tenant, None, last).await {
                Ok(following) => following,
                // It was away for longer than the log goes back: it would read everything anew, and goes on from there.
                Err(Error::Gone { .. }) => {
                    last = None;
                    return;
                }
                Err(_) => return,
            };
            last = Some(following.position());
            while let Some(Ok(followed)) = following.next().await {
                if let Followed::Event(event) = followed {
                    look(&client, last, &event);
                }
                last = Some(following.position());
            }
        };
        tokio::select! {
            biased;
            () = server.dead.cancelled() => {}
            () = world.closing.cancelled() => {}
            () = reading => {}
            // Connections do not last.
            () = tokio::time::sleep(client.caller.chance.between(5_000, 60_000)) => {}
        }
    }
}

/// That this event is for this user, and that none was left out before it.
fn look(client: &Client, last: Option<Revision>, event: &Event) {
    let world = &client.caller.world;
    let checker = world.checker();
    let owned = |event: &Event| {
        let owner = event.agent.and_then(|id| checker.agents.get(&id)).map(|agent| &agent.owner);
        owner == Some(&client.user) && event.tenant.as_ref() == Some(&client.tenant)
    };
    // Whose an agent was is not known any more once its row was purged.
    let is_kept = |event: &Event| {
        let agent = event.agent.and_then(|id| World::at_once(world.store.agent_by_id(id)).ok()?.value);
        agent.is_some()
    };
    let since = last.unwrap_or_default();
    let between = |e: &&Event| e.revision > since && e.revision < event.revision;
    let missed = checker.log.iter().filter(between).find(|e| owned(e) && is_kept(e));
    let wrong = match missed {
        _ if !owned(event) => Some((7, format!("{} is told of what is not theirs: {event:?}", client.user))),
        _ if event.revision <= since => {
            Some((2, format!("{} is told of {} after {since}", client.user, event.revision)))
        }
        Some(missed) => Some((2, format!("{} is not told of {missed:?}", client.user))),
        None => None,
    };
    drop(checker);
    if let Some((invariant, what)) = wrong {
        world.fail(invariant, what);
    }
}
