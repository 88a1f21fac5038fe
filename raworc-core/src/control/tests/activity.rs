//! Activity and the feed, where the store does not do its part for a while.

use std::collections::BTreeSet;

use super::super::ActivityKind;
use super::*;
use crate::control::Followed;
use crate::entropy::EntropyExt;
use crate::error::Error;
use crate::ids::Revision;
use crate::store::{StoreError, Touch};

impl World {
    /// Waits for a touch of the agent that is so.
    pub(super) async fn touched(&self, wanted: impl Fn(&Touch) -> bool) -> Touch {
        for _ in 0..1000 {
            if let Some(touch) = self.store.take_touches().into_iter().find(&wanted) {
                return touch;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("no such touch within 100 s");
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_an_activity_is_written_down_though_the_store_failed_at_first() {
    let world = World::new().await;
    let agent = world.idle("a", AgentSpec { idle_timeout: 60, ..AgentSpec::default() }).await;
    let guard = world.control.inner.activity.hold(&agent, ActivityKind::Command, Timestamp::UNIX_EPOCH).await;
    // Renewed twice, so that what holds is the last renewal.
    for _ in 0..2 {
        world.touched(|touch| touch.awake_for.is_some()).await;
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
    drop(guard.expect("held"));
    let ended = tokio::time::Instant::now();
    world.store.take_touches();
    world.store.fail_touches(1);
    let told = world.touched(|touch| touch.awake_for == Some(Duration::from_secs(60))).await;
    assert_eq!(told.agent, agent.id);
    assert!(ended.elapsed() < Duration::from_secs(20), "{:?}", ended.elapsed());
    let slept = world.until(&agent, "slept", |agent| agent.status.state() == State::Slept).await;
    let quiet = ended.elapsed();
    assert!(quiet >= Duration::from_secs(60), "slept {quiet:?} after its activity: {slept:#?}");
    world.store.take_touches();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(world.store.take_touches().is_empty(), "what was written is not written again");
}

#[tokio::test(start_paused = true)]
async fn the_heartbeats_of_many_programs_are_written_in_parts_and_none_is_forgotten_where_one_fails() {
    let world = World::new().await;
    let agent = world.idle("a", AgentSpec::default()).await;
    world.store.take_touches();
    let ids: Vec<_> = (0..600).map(|_| SystemEntropy.agent_id(world.control.now())).collect();
    let now = world.control.now();
    for &id in &ids {
        let mut other = Agent { id, ..agent.clone() };
        other.status.heard_at = Some(now);
        world.control.inner.activity.heard(&other, now).await;
    }
    world.store.fail_touches(1);
    let mut left: BTreeSet<_> = ids.into_iter().collect();
    for _ in 0..1000 {
        for touch in world.store.take_touches() {
            left.remove(&touch.agent);
        }
        if left.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(left.len(), 0, "all are written");
    assert_eq!(world.store.most_touched(), 256);
}

#[tokio::test(start_paused = true)]
async fn after_a_store_that_stood_still_a_server_gives_one_sign_of_life_and_not_all_that_it_missed() {
    let world = World::new().await;
    world.store.slow_claims(Duration::from_secs(300));
    world.store.take_signs();
    while world.store.take_signs() == 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    world.store.slow_claims(Duration::ZERO);
    tokio::time::sleep(Duration::from_secs(299)).await;
    assert_eq!(world.store.take_signs(), 0, "it stands still");
    // The one that is due, and those of two more ticks.
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(world.store.take_signs(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_wish_to_keep_awake_that_has_expired_is_explained_no_more() {
    let world = World::new().await;
    let agent = world.idle("a", AgentSpec::default()).await;
    let time = Some(Duration::from_secs(100));
    world.control.keep_awake(&world.call, &world.tenant, &agent.name, time).await.expect("kept");
    let explain = || world.control.explain(&world.call, &world.tenant, &agent.name);
    assert_eq!(explain().await.expect("explained").activity.len(), 1);
    tokio::time::sleep(Duration::from_secs(101)).await;
    assert_eq!(world.agent(&agent).await.status.state(), State::Idle, "its idle time is not over");
    assert_eq!(explain().await.expect("explained").activity, []);
}

#[tokio::test(start_paused = true)]
async fn who_listens_is_told_of_events_that_the_log_lost_before_they_were_read() {
    use tokio::sync::broadcast::error::RecvError;
    let world = World::new().await;
    let admin = Call::by(Principal::User {
        name: UserName::new("root").expect("a name"),
        tenant: world.tenant.clone(),
        admin: true,
    });
    let token = crate::control::TokenRecord { id: world.control.token_id(), expires_at: Timestamp::MAX };
    let other = ControlPlane::start(world.parts.clone()).await.expect("another server");
    let mut events = other.inner.feed.subscribe();
    let mut following = other.follow(&world.call, &world.tenant, None, None).await.expect("followed");
    world.store.cut_watchers();
    world.control.revoke(&admin.with_token(token)).await.expect("revoked");
    let head = world.store.head().await.expect("a store").value;
    world.store.inner.forget_log(head);
    let told = tokio::time::timeout(Duration::from_secs(60), events.recv()).await.expect("it is told");
    assert!(matches!(told, Err(RecvError::Lagged(1))), "{told:?}");
    assert_eq!(other.inner.feed.head(), head);
    let told = following.next().await.expect("the feed is there");
    assert!(matches!(&told, Err(Error::Gone { .. })), "{told:?}");
    for _ in 0..100 {
        if other.system().is_revoked(token.id) {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("the revocation was missed");
}

#[tokio::test(start_paused = true)]
async fn who_follows_a_log_that_went_back_is_told_however_long_it_is_by_then() {
    let world = World::new().await;
    let agent = world.idle("a", AgentSpec::default()).await;
    let mut events = world.control.inner.feed.subscribe();
    let follow = || world.control.follow(&world.call, &world.tenant, None, None);
    let mut following = follow().await.expect("followed");
    let mut of_agent =
        world.control.follow(&world.call, &world.tenant, Some(&agent.name), None).await.expect("followed");
    world.store.go_back();
    // What was told before may be heard first.
    let missed = async { while events.recv().await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(60), missed).await.expect("it is told");
    for following in [&mut following, &mut of_agent] {
        let told = loop {
            match following.next().await.expect("the feed is there") {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert!(matches!(&told, Error::Gone { .. }), "{told:?}");
    }
    let mut following = follow().await.expect("followed anew");
    let agent = world.edit(&agent, r#"{"idle_timeout": 100}"#).await;
    let told = following.next().await.expect("the feed is there").expect("goes on");
    assert!(matches!(&told, Followed::Event(event) if event.agent == Some(agent.id)), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn who_is_too_slow_to_hear_that_the_log_went_back_is_told_all_the_same() {
    let world = World::new().await;
    let agent = world.idle("a", AgentSpec::default()).await;
    let follow = || world.control.follow(&world.call, &world.tenant, Some(&agent.name), None);
    let mut following = follow().await.expect("followed");
    let mut events = world.control.inner.feed.subscribe();
    world.store.go_back();
    // What was told before may be heard first.
    let missed = async { while events.recv().await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(60), missed).await.expect("it is told");
    let mut anew = follow().await.expect("followed anew");
    for n in 1..=300 {
        world.edit(&agent, &format!(r#"{{"idle_timeout": {}}}"#, 1000 + n)).await;
    }
    // The feed has read them by then.
    while world.control.inner.feed.head() < world.store.head().await.expect("a store").value {
        events.recv().await.expect("is told");
    }
    let told = following.next().await.expect("the feed is there");
    assert!(matches!(&told, Err(Error::Gone { .. })), "{told:?}");
    let told = anew.next().await.expect("the feed is there");
    assert!(matches!(&told, Ok(Followed::Event(_))), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn nobody_begins_to_follow_a_log_that_went_back_before_it_is_known() {
    let world = World::new().await;
    let agent = world.idle("a", AgentSpec::default()).await;
    world.edit(&agent, r#"{"idle_timeout": 100}"#).await;
    let head = world.store.head().await.expect("a store").value;
    while world.control.inner.feed.head() < head {
        tokio::task::yield_now().await;
    }
    world.store.end_at(Revision(head.0 - 1));
    for agent in [None, Some(&agent.name)] {
        let told = world.control.follow(&world.call, &world.tenant, agent, None).await;
        assert!(matches!(&told, Err(Error::Store(StoreError::Unavailable { .. }))), "{told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_stream_leaves_out_once_is_read_again_and_what_it_never_has_is_told_to_be_missed() {
    use tokio::sync::broadcast::error::RecvError;
    let world = World::new().await;
    let agent = world.idle("a", AgentSpec::default()).await;
    let mut edits = 1000;
    for (is_one_burst, times, missed) in [(false, 1, false), (true, 1, false), (false, 99, true), (true, 99, true)] {
        let mut events = world.control.inner.feed.subscribe();
        let head = world.store.head().await.expect("a store").value;
        let left_out = head.next().next();
        world.store.leave_out(left_out, times);
        if is_one_burst {
            world.store.cut_watchers();
            tokio::task::yield_now().await;
        }
        for _ in 0..3 {
            edits += 1;
            world.edit(&agent, &format!(r#"{{"idle_timeout": {edits}}}"#)).await;
            if !is_one_burst {
                // The feed reads it by itself.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        let mut heard = Vec::new();
        while heard.last() != Some(&Some(Revision(head.0 + 3))) {
            let told = tokio::time::timeout(Duration::from_secs(60), events.recv()).await.expect("it is told");
            heard.push(match told {
                Ok(event) => Some(event.revision),
                Err(RecvError::Lagged(1)) => None,
                Err(error) => panic!("{error}"),
            });
        }
        let between = if missed { None } else { Some(left_out) };
        assert_eq!(heard, [Some(head.next()), between, Some(Revision(head.0 + 3))], "{is_one_burst} {times}");
        if missed {
            let mut following =
                world.control.follow(&world.call, &world.tenant, None, Some(head)).await.expect("followed");
            let told = following.next().await.expect("goes on");
            assert!(matches!(&told, Err(Error::Gone { .. })), "{told:?}");
        }
        world.store.leave_out(left_out, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn who_follows_one_agent_and_is_slow_hears_all_of_it_and_stands_where_the_log_does() {
    const EDITS: u32 = 300;
    let world = World::new().await;
    let (agent, other) = (world.idle("a", AgentSpec::default()).await, world.idle("b", AgentSpec::default()).await);
    let begin = world.store.head().await.expect("a store").value;
    let follow = |since| world.control.follow(&world.call, &world.tenant, Some(&agent.name), since);
    let mut following = follow(None).await.expect("followed");
    for n in 1..=EDITS {
        for of in [&agent, &other] {
            world.edit(of, &format!(r#"{{"idle_timeout": {}}}"#, 1000 + n)).await;
        }
    }
    let mut log = Vec::new();
    let mut whole = follow(Some(begin)).await.expect("followed").to_its_end();
    while let Some(Followed::Event(event)) = whole.next().await.transpose().expect("is read") {
        log.push(event);
    }
    assert_eq!(log.len(), EDITS as usize);
    assert!(following.position() < log[0].revision, "what was not heard yet was not looked at");
    for wanted in log {
        let told = following.next().await.expect("the feed is there").expect("goes on");
        assert!(matches!(&told, Followed::Event(event) if *event == wanted), "{told:?} in place of {wanted:?}");
    }
    world.edit(&other, r#"{"idle_timeout": 1}"#).await;
    let told = tokio::time::timeout(Duration::from_secs(60), following.next());
    assert!(told.await.is_err(), "what another agent does is not told");
    let head = world.store.head().await.expect("a store").value;
    assert_eq!(following.position(), head, "and was looked at");
}

#[tokio::test(start_paused = true)]
async fn giving_back_keep_awake_puts_no_agent_to_sleep_while_it_is_active() {
    let world = World::new().await;
    let agent = world.idle("a", AgentSpec { idle_timeout: 60, ..AgentSpec::default() }).await;
    let keep = |time| world.control.keep_awake(&world.call, &world.tenant, &agent.name, time);
    keep(Some(Duration::from_secs(3600))).await.expect("kept");
    let agent = world.edit(&agent, r#"{"idle_timeout": 1}"#).await;
    let guard = world.control.inner.activity.hold(&agent, ActivityKind::Command, Timestamp::UNIX_EPOCH).await;
    let guard = guard.expect("held");
    keep(None).await.expect("given back");
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(world.agent(&agent).await.status.state(), State::Idle, "a command runs");
    drop(guard);
    world.until(&agent, "slept", |agent| agent.status.state() == State::Slept).await;
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_revoked_is_remembered_until_it_would_have_expired() {
    let world = World::new().await;
    let other = ControlPlane::start(world.parts.clone()).await.expect("another server");
    let token = |life: i64| crate::control::TokenRecord {
        id: world.control.token_id(),
        expires_at: world.control.now() + jiff::SignedDuration::from_secs(life),
    };
    assert!(world.control.revoke(&world.call).await.is_err(), "which one?");
    let known = |control: &ControlPlane| control.inner.access.revoked.len();
    let first = token(3600);
    world.control.revoke(&world.call.clone().with_token(first)).await.expect("revoked");
    tokio::time::sleep(Duration::from_secs(3599)).await;
    for control in [&world.control, &other] {
        assert!(control.system().is_revoked(first.id));
    }
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let second = token(3600);
    world.control.revoke(&world.call.clone().with_token(second)).await.expect("revoked");
    tokio::time::sleep(Duration::from_secs(1)).await;
    for control in [&world.control, &other] {
        assert!(control.system().is_revoked(second.id));
        assert_eq!(known(control), 1, "the first has expired");
    }
}
