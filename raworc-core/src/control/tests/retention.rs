//! What is old goes by itself, and one process sees to it.

use super::super::{Retainer, Settings};
use super::*;
use crate::store::{LeaseClaim, MessageQuery, Purge, Retention};

/// Another process of the same installation.
async fn beside(world: &World, retention: Retention) -> ControlPlane {
    let parts = Parts { settings: Settings { retention, ..Settings::default() }, ..world.parts.clone() };
    ControlPlane::start(parts).await.expect("a control plane")
}

fn ten_hours() -> Retention {
    Retention::of(Duration::from_hours(10))
}

async fn messages(world: &World, agent: &Agent) -> Vec<Message> {
    world.store.messages(&MessageQuery::of(agent.id)).await.expect("a store").items
}

/// Lets time pass, a little at a time.
async fn pass(hours: u64) {
    for _ in 0..hours * 60 {
        tokio::time::sleep(Duration::from_mins(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_too_old_goes_by_itself_and_what_is_not_stays() {
    let world = World::new().await;
    let agent = world.idle("a", AgentSpec::default()).await;
    let first = world.send(&agent, "first").await;
    world.ended(&agent, &first).await;
    let retainer = Retainer::start(&beside(&world, ten_hours()).await);
    pass(9).await;
    assert_eq!(messages(&world, &agent).await.len(), 2, "it is not old yet");
    let second = world.send(&agent, "second").await;
    world.ended(&agent, &second).await;
    pass(2).await;
    let left: Vec<_> = messages(&world, &agent).await.into_iter().map(|message| message.seq).collect();
    assert_eq!(left, [3, 4]);
    retainer.shutdown().await;
    pass(24).await;
    assert_eq!(messages(&world, &agent).await.len(), 2, "nobody looks any more");
}

#[tokio::test(start_paused = true)]
async fn one_process_looks_and_another_takes_over_when_it_ends() {
    let world = World::new().await;
    let (one, two) = (beside(&world, ten_hours()).await, beside(&world, ten_hours()).await);
    let first = Retainer::start(&one);
    pass(1).await;
    let second = Retainer::start(&two);
    let holder = async || {
        let held = world.store.leases("retention").await.expect("a store").value;
        held.first().map(|lease| lease.holder)
    };
    world.store.take_purges();
    pass(10).await;
    assert_eq!(holder().await, Some(one.process()));
    let looks = world.store.take_purges();
    assert!((20..40).contains(&looks), "one process looks every 25 minutes, and there were {looks} looks");
    first.shutdown().await;
    pass(1).await;
    assert_eq!(holder().await, Some(two.process()));
    assert!(world.store.take_purges() > 0);
    second.shutdown().await;
    assert_eq!(holder().await, None);
    // One that is gone without a word holds it for a while only.
    let gone = LeaseClaim { key: "retention".into(), holder: two.process(), ttl: Duration::from_mins(50) };
    world.store.claim(&gone).await.expect("a store");
    let third = Retainer::start(&one);
    pass(2).await;
    assert_eq!(holder().await, Some(one.process()));
    third.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn where_everything_is_kept_for_ever_the_store_is_not_asked() {
    let world = World::new().await;
    let retainer = Retainer::start(&beside(&world, Retention::for_ever()).await);
    pass(48).await;
    assert_eq!(world.store.take_purges(), 0);
    assert!(world.store.leases("retention").await.expect("a store").value.is_empty());
    retainer.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_is_asked_again_later() {
    let world = World::new().await;
    let agent = world.idle("a", AgentSpec::default()).await;
    let first = world.send(&agent, "first").await;
    world.ended(&agent, &first).await;
    world.store.fail_purges(30);
    let retainer = Retainer::start(&beside(&world, ten_hours()).await);
    pass(12).await;
    assert_eq!(messages(&world, &agent).await.len(), 2);
    pass(12).await;
    assert_eq!(messages(&world, &agent).await, []);
    retainer.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_feed_that_fell_behind_what_was_purged_goes_on_from_the_head() {
    let world = World::new().await;
    let agent = world.idle("a", AgentSpec::default()).await;
    let control = beside(&world, ten_hours()).await;
    let mut heard = control.system().feed().subscribe();
    // It reads nothing for a while, and meanwhile all that it has not read is taken away.
    world.store.cut_watchers();
    let first = world.send(&agent, "first").await;
    let at_once = Purge::new(Retention::of(Duration::ZERO));
    world.store.inner.purge(&at_once).await.expect("a store");
    let missed = heard.recv().await;
    assert!(matches!(missed, Err(tokio::sync::broadcast::error::RecvError::Lagged(_))), "{missed:?}");
    world.ended(&agent, &first).await;
    let second = world.send(&agent, "second").await;
    let told = async {
        loop {
            match heard.recv().await {
                Ok(event) if event.message == Some(second.id) => break,
                Ok(_) => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_mins(1), told).await.expect("it goes on");
}
