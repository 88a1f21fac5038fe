//! What happens right between the read and the commit of a use case.

use super::super::SleepMode;
use super::*;
use crate::agent::Desired;
use crate::error::Error;
use crate::message::MessageState;
use crate::store::AuditQuery;

impl World {
    /// A busy agent whose message ends right before the next commit.
    async fn about_to_end(&self) -> (Agent, Message) {
        let agent = self.idle("a", AgentSpec::default()).await;
        let message = self.send(&agent, "work 30").await;
        self.until(&agent, "busy", |agent| agent.status.state() == State::Busy).await;
        let (control, call, tenant) = (self.control.clone(), self.call.clone(), self.tenant.clone());
        let (name, id) = (agent.name.clone(), message.id);
        self.store.before_next_commit(move || {
            Box::pin(async move {
                let limit = Duration::from_secs(60);
                control.wait_for_message(&call, &tenant, &name, id, limit).await.expect("it ends");
            })
        });
        (agent, message)
    }
}

#[tokio::test(start_paused = true)]
async fn a_sleep_at_once_is_asked_though_the_message_in_hand_ends_in_that_moment() {
    let world = World::new().await;
    let (agent, message) = world.about_to_end().await;
    let asked = world.control.sleep(&world.call, &world.tenant, &agent.name, SleepMode::Now).await.expect("asked");
    assert_eq!(asked.desired, Desired::Asleep);
    assert_eq!(world.ended(&agent, &message).await.state, MessageState::Done);
    world.until(&agent, "slept", |agent| agent.status.state() == State::Slept).await;
}

#[tokio::test(start_paused = true)]
async fn a_cancel_finds_nothing_to_do_where_the_message_in_hand_ends_in_that_moment() {
    let world = World::new().await;
    let (agent, message) = world.about_to_end().await;
    world.control.cancel(&world.call, &world.tenant, &agent.name).await.expect("nothing to cancel");
    assert_eq!(world.ended(&agent, &message).await.state, MessageState::Done);
}

#[tokio::test(start_paused = true)]
async fn a_sleep_at_once_cancels_the_message_that_was_taken_up_in_that_moment() {
    let world = World::new().await;
    let agent = world.idle("a", AgentSpec::default()).await;
    let (control, call, tenant) = (world.control.clone(), world.call.clone(), world.tenant.clone());
    let asked = agent.clone();
    world.store.before_next_commit(move || {
        Box::pin(async move {
            control.send(&call, &tenant, &asked.name, SendMessage::text("work 3000")).await.expect("accepted");
            let busy = |agent: &Agent| agent.status.state() == State::Busy;
            control.wait_for_agent(&call, &asked, Duration::from_secs(60), busy).await.expect("busy");
        })
    });
    world.control.sleep(&world.call, &world.tenant, &agent.name, SleepMode::Now).await.expect("asked");
    let begun = tokio::time::Instant::now();
    world.until(&agent, "slept", |agent| agent.status.state() == State::Slept).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_cancel_of_a_message_that_is_sent_again_gets_its_first_answer_even_after_the_delete() {
    let world = World::new().await;
    let agent = world.idle("a", AgentSpec::default()).await;
    let message = world.send(&agent, "work 30").await;
    world.until(&agent, "busy", |agent| agent.status.state() == State::Busy).await;
    let call = world.call.clone().with_idempotency_key("k");
    let cancel = || world.control.cancel_message(&call, &world.tenant, &agent.name, message.id);
    let first = cancel().await.expect("asked");
    assert_eq!((first.state, first.cancel_requested), (MessageState::Leased, true));
    let unsigned = world.control.cancel_message(&world.call, &world.tenant, &agent.name, message.id).await;
    assert!(unsigned.expect("asked again").cancel_requested);
    assert_eq!(world.ended(&agent, &message).await.state, MessageState::Cancelled);
    assert_eq!(cancel().await.expect("the first answer"), first);
    world.control.delete(&world.call, &world.tenant, &agent.name).await.expect("asked");
    world.until(&agent, "deleted", |agent| agent.status.state() == State::Deleted).await;
    assert_eq!(cancel().await.expect("the first answer"), first);
    assert!(call.was_replayed());
    let refused = async || {
        let query = AuditQuery { tenant: None, after: None, limit: 100 };
        let rows = world.store.audit(&query).await.expect("a store").items;
        rows.into_iter().filter(|row| !row.entry.allowed).count()
    };
    assert_eq!(refused().await, 0, "who is answered was not refused");
    let other = world.call.clone().with_idempotency_key("another");
    let refusal = world.control.cancel_message(&other, &world.tenant, &agent.name, message.id).await;
    assert!(matches!(refusal, Err(Error::NotFound { .. })), "{refusal:?}");
    assert_eq!(refused().await, 1);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_goes_to_sleep_in_that_moment_cannot_be_kept_awake() {
    let world = World::new().await;
    let agent = world.idle("a", AgentSpec::default()).await;
    let (control, call, tenant) = (world.control.clone(), world.call.clone(), world.tenant.clone());
    let asked = agent.clone();
    world.store.before_next_commit(move || {
        Box::pin(async move {
            control.sleep(&call, &tenant, &asked.name, SleepMode::Now).await.expect("asked");
            let slept = |agent: &Agent| agent.status.state() == State::Slept;
            control.wait_for_agent(&call, &asked, Duration::from_secs(60), slept).await.expect("slept");
        })
    });
    let hour = Some(Duration::from_secs(3600));
    let kept = world.control.keep_awake(&world.call, &world.tenant, &agent.name, hour).await;
    assert!(matches!(kept, Err(Error::AgentAsleep(_))), "{kept:?}");
    assert_eq!(world.agent(&agent).await.status.keep_awake_until, None);
}

#[tokio::test(start_paused = true)]
async fn an_edit_that_names_no_generation_is_made_to_what_another_one_has_just_made() {
    let world = World::new().await;
    let agent = world.idle("a", AgentSpec::default()).await;
    let (control, call, tenant, name) =
        (world.control.clone(), world.call.clone(), world.tenant.clone(), agent.name.clone());
    world.store.before_next_commit(move || {
        Box::pin(async move {
            let spec = serde_json::from_str(r#"{"description": "theirs"}"#).expect("a change");
            control.edit_agent(&call, &tenant, &name, &EditAgent { spec }, None).await.expect("edited");
        })
    });
    let edited = world.edit(&agent, r#"{"idle_timeout": 77}"#).await;
    assert_eq!((edited.spec.idle_timeout, edited.spec.description.as_deref()), (77, Some("theirs")));
    let spec = serde_json::from_str(r#"{"idle_timeout": 78}"#).expect("a change");
    let stale = world.control.edit_agent(&world.call, &world.tenant, &agent.name, &EditAgent { spec }, Some(1)).await;
    assert!(matches!(stale, Err(Error::GenerationMismatch { wanted: 1, found: 3 })), "{stale:?}");
}
