//! What programs say of their volumes, and what comes of it at once.

use super::program::Hands;
use super::*;
use crate::agent::{ConditionKind, Resources};
use crate::entropy::EntropyExt;
use crate::program::EndReport;
use crate::program::HeartbeatReport;
use crate::quantity::Bytes;
use crate::store::Ending;

const MI: u64 = 1 << 20;

fn limited() -> AgentSpec {
    let resources = Resources { disk: Some(Bytes::new(16 * MI)), ..Resources::default() };
    AgentSpec { resources, idle_timeout: 0, ..AgentSpec::default() }
}

fn holds(bytes: u64) -> Option<HeartbeatReport> {
    Some(HeartbeatReport { disk_used: Some(bytes) })
}

async fn is_full(hands: &Hands, agent: &Agent) -> bool {
    hands.world.agent(agent).await.status.conditions.holds(ConditionKind::DiskFull)
}

#[tokio::test(start_paused = true)]
async fn a_program_is_told_what_it_has_to_measure_at_its_start_and_by_each_heartbeat() {
    let mut hands = Hands::new().await;
    let agent = hands.world.create("a", limited()).await;
    let (call, spec) = hands.boot().await;
    assert_eq!(spec.disk_limit, Some(16 * MI));
    let beat = |report| hands.world.control.heartbeat(&call, report);
    assert_eq!(beat(Some(HeartbeatReport::default())).await.expect("present").disk_limit, Some(16 * MI));
    hands.world.edit(&agent, r#"{"resources": {"disk": "1Gi"}}"#).await;
    assert_eq!(beat(holds(1)).await.expect("present").disk_limit, Some(1024 * MI));
    hands.world.edit(&agent, r#"{"resources": null}"#).await;
    assert_eq!(beat(None).await.expect("present").disk_limit, None);
}

#[tokio::test(start_paused = true)]
async fn what_a_program_reports_counts_before_its_next_call_and_is_committed_once() {
    let mut hands = Hands::new().await;
    let agent = hands.world.create("a", limited()).await;
    let (call, _) = hands.boot().await;
    hands.world.send(&agent, "one").await;
    let control = &hands.world.control;
    control.heartbeat(&call, holds(17 * MI)).await.expect("present");
    assert!(is_full(&hands, &agent).await);
    let commits = hands.world.store.commits();
    for bytes in [17, 18, 400, 16] {
        control.heartbeat(&call, holds(bytes * MI)).await.expect("present");
    }
    assert_eq!(hands.world.store.commits(), commits);
    assert!(control.lease(&call, Duration::from_secs(10)).await.expect("present").is_none(), "it waits for room");
    let waiting = control.lease(&call, Duration::from_secs(20));
    let freed = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        control.heartbeat(&call, holds(MI)).await.expect("present");
        tokio::time::Instant::now()
    };
    let (lease, freed) = tokio::join!(waiting, freed);
    assert_eq!(lease.expect("present").expect("there is room").message.text(), "one");
    assert!(freed.elapsed() < Duration::from_secs(1), "what waits runs at once, {:?} after", freed.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_is_found_full_in_the_moment_of_a_lease_leaves_the_message_queued() {
    let mut hands = Hands::new().await;
    let agent = hands.world.create("a", limited()).await;
    let (call, _) = hands.boot().await;
    hands.world.send(&agent, "one").await;
    let (control, program) = (hands.world.control.clone(), call.clone());
    hands.world.store.before_next_commit(move || {
        Box::pin(async move {
            control.heartbeat(&program, holds(17 * MI)).await.expect("present");
        })
    });
    let lease = hands.world.control.lease(&call, Duration::from_secs(10)).await.expect("present");
    assert!(lease.is_none(), "{lease:?}");
    let found = hands.world.agent(&agent).await;
    assert_eq!((found.status.state(), found.inbox.queued), (State::Idle, 1));
}

#[tokio::test(start_paused = true)]
async fn a_report_that_meets_another_change_counts_all_the_same() {
    let mut hands = Hands::new().await;
    let agent = hands.world.create("a", limited()).await;
    let (call, _) = hands.boot().await;
    let (control, user, tenant) = (hands.world.control.clone(), hands.world.call.clone(), hands.world.tenant.clone());
    let name = agent.name.clone();
    hands.world.store.before_next_commit(move || {
        Box::pin(async move {
            let spec = serde_json::from_str(r#"{"resources": {"disk": "32Mi"}}"#).expect("a change");
            control.edit_agent(&user, &tenant, &name, &EditAgent { spec }, None).await.expect("edited");
        })
    });
    hands.world.control.heartbeat(&call, holds(17 * MI)).await.expect("present");
    assert!(!is_full(&hands, &agent).await, "the limit that was raised meanwhile is the one that counts");
    hands.world.control.heartbeat(&call, holds(33 * MI)).await.expect("present");
    assert!(is_full(&hands, &agent).await);
}

#[tokio::test(start_paused = true)]
async fn a_message_in_hand_goes_on_and_the_next_one_waits() {
    let mut hands = Hands::new().await;
    let agent = hands.world.create("a", limited()).await;
    let (call, lease) = hands.busy(&agent, "one").await;
    let control = &hands.world.control;
    control.heartbeat(&call, holds(17 * MI)).await.expect("present");
    hands.world.send(&agent, "two").await;
    let again = control.lease(&call, Duration::from_secs(5)).await.expect("present").expect("what it holds");
    assert_eq!(again.message.id, lease.message.id);
    let commit = SystemEntropy.commit_id(Timestamp::UNIX_EPOCH);
    let report = EndReport { commit, message: lease.message.id, ending: Ending::Done, reply: None, steps: Vec::new() };
    control.end(&call, report).await.expect("its own");
    assert!(control.lease(&call, Duration::from_secs(10)).await.expect("present").is_none());
    assert_eq!(hands.world.agent(&agent).await.inbox.queued, 1);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_program_that_is_too_old_to_measure() {
    let mut hands = Hands::new().await;
    let agent = hands.world.create("a", limited()).await;
    let (call, _) = hands.boot().await;
    hands.world.send(&agent, "one").await;
    hands.world.control.heartbeat(&call, holds(17 * MI)).await.expect("present");
    hands.world.control.heartbeat(&call, Some(HeartbeatReport::default())).await.expect("present");
    assert!(is_full(&hands, &agent).await, "one that has not looked yet says nothing new");
    tokio::time::sleep(Duration::from_secs(10)).await;
    hands.world.control.heartbeat(&call, None).await.expect("present");
    assert!(!is_full(&hands, &agent).await);
    assert!(hands.world.control.lease(&call, Duration::from_secs(5)).await.expect("present").is_some());
}
