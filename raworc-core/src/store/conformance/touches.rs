//! Signs of life and of activity, outside the log.

use std::sync::Arc;
use std::time::Duration;

use super::scene::{Scene, agent_id, happens, message, next};
use super::{StoreCase, StoreUnderTest, case};
use crate::agent::{Agent, AgentEvent, Desired};
use crate::ids::Incarnation;
use crate::store::{AgentOp, EventFilter, Touch};

pub(super) fn cases() -> Vec<StoreCase> {
    vec![
        case!(a_touch_moves_times_forward_and_never_back shows "S20"),
        case!(a_touch_of_another_incarnation_has_no_effect shows "S20"),
        case!(touches_of_many_servers_leave_the_latest_time shows "S20"),
        case!(a_touch_changes_nothing_but_times_and_is_not_in_the_log shows "S20"),
        case!(a_touch_of_a_slept_agent_has_no_effect_and_says_so shows "S21"),
    ]
}

fn touch(agent: &Agent, awake_for: u64) -> Touch {
    Touch {
        agent: agent.id,
        incarnation: agent.status.incarnation,
        heartbeat: true,
        awake_for: Some(Duration::from_secs(awake_for)),
    }
}

async fn a_touch_moves_times_forward_and_never_back(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let mut before = scene.idle("worker").await;
    for seconds in [1000, 10, 2000, 0, 1999] {
        assert_eq!(scene.store.touch(&[touch(&before, seconds)]).await.expect("the store answers"), []);
        let after = scene.agent(before.id).await;
        assert!(after.status.awake_until >= before.status.awake_until, "{seconds} s");
        assert!(after.status.heard_at >= before.status.heard_at);
        before = after;
    }
    let now = scene.store.head().await.expect("the store answers").now;
    let left = before.status.awake_until.expect("it has its time").duration_since(now).as_secs();
    assert!((1900..=2000).contains(&left), "{left} s are left of 2000");
    assert!(before.status.heard_at.expect("it was heard") > before.status.since, "the heartbeat has moved");
    let scene = scene.reopen(&*subject).await;
    assert_eq!(scene.agent(before.id).await, before);
}

async fn a_touch_of_another_incarnation_has_no_effect(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let first = scene.idle("reborn").await;
    scene.change(first.id, vec![happens(AgentEvent::Lost)]).await;
    let second = scene.start(first.id).await;
    assert_eq!(second.status.incarnation, Incarnation(2));
    let later = Touch { incarnation: Incarnation(3), ..touch(&second, 5000) };
    for stale in [touch(&first, 5000), later] {
        assert_eq!(scene.store.touch(&[stale]).await.expect("the store answers"), [first.id]);
        assert_eq!(scene.agent(first.id).await, second);
    }
    assert_eq!(scene.store.touch(&[touch(&second, 5000)]).await.expect("the store answers"), []);
}

async fn touches_of_many_servers_leave_the_latest_time(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let agent = scene.idle("popular").await;
    let (id, touched) = (agent.id, agent.clone());
    scene
        .at_once(move |n, store| {
            let touches: Vec<_> =
                [500, 4000, 700].map(|seconds| touch(&touched, if n == 5 { seconds } else { seconds / 10 })).to_vec();
            async move {
                for touch in touches {
                    assert_eq!(store.touch(&[touch]).await.expect("the store answers"), []);
                    // A commit of the same row must not bring back what it read before.
                    let (_, accept) = message("meanwhile");
                    let commit = super::scene::change(id, crate::store::Check::Alive, vec![accept]);
                    store.commit(commit).await.expect("the commit goes through");
                }
            }
        })
        .await;
    let after = scene.agent(id).await;
    let now = scene.store.head().await.expect("the store answers").now;
    let left = after.status.awake_until.expect("it has its time").duration_since(now).as_secs();
    assert!((3900..=4000).contains(&left), "{left} s are left of 4000");
    assert_eq!(after.inbox.queued, 16 * 3);
}

async fn a_touch_changes_nothing_but_times_and_is_not_in_the_log(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let before = scene.idle("still").await;
    let head = scene.head().await;
    scene.store.touch(&[touch(&before, 5000)]).await.expect("the store answers");
    let mut after = scene.agent(before.id).await;
    assert_ne!(after, before);
    after.status.awake_until = before.status.awake_until;
    after.status.heard_at = before.status.heard_at;
    assert_eq!(after, before);
    assert_eq!(scene.head().await, head);
    // The next event is that of the next commit.
    let mut watch = scene.watch(head, EventFilter::default()).await;
    scene.accept(before.id, "next").await;
    assert_eq!(next(&mut watch).await[0].revision.0, head.0 + 1);
}

async fn a_touch_of_a_slept_agent_has_no_effect_and_says_so(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let awake = scene.idle("awake").await;
    let slept = scene.idle("slept").await;
    let asleep = AgentOp::SetDesired { desired: Desired::Asleep, retry: false };
    let slept = scene.change(slept.id, vec![asleep, happens(AgentEvent::SleepAsked)]).await;
    let deleted = scene.idle("deleted").await;
    let deleted = scene.delete(deleted.id).await;
    let nobody = Touch { agent: agent_id(), ..touch(&awake, 1) };
    let touches = [touch(&slept, 5000), touch(&awake, 5000), touch(&deleted, 5000), nobody];
    let mut without = scene.store.touch(&touches).await.expect("the store answers");
    without.sort_unstable();
    let mut expected = [slept.id, deleted.id, nobody.agent];
    expected.sort_unstable();
    assert_eq!(without, expected);
    assert_eq!(scene.agent(slept.id).await, slept);
    assert_eq!(scene.agent(deleted.id).await, deleted);
    assert!(scene.agent(awake.id).await.status.awake_until > awake.status.awake_until);
}
