//! Programs that do what the real one does not.

use tokio::sync::mpsc;

use super::*;
use crate::control::SleepMode;
use crate::entropy::EntropyExt;
use crate::error::Error;
use crate::ids::MessageId;
use crate::message::{MESSAGE_LIMIT, MessageState, PARTS_LIMIT, Part};
use crate::program::{DeltaReport, EndReport, LeaseReply, PROTOCOL, ProgramSpec, SetupReport, StepsReport};
use crate::runtime::Boot;
use crate::runtime::simulated::{Exit, program_fn};
use crate::step::{NewStep, STEP_LIMIT, StepKind};
use crate::store::{Ending, MAX_PAGE, MAX_PAGE_BYTES};

/// An installation whose programs do what the test does by hand.
pub(super) struct Hands {
    pub(super) world: World,
    boots: mpsc::UnboundedReceiver<Boot>,
}

impl Hands {
    pub(super) async fn new() -> Self {
        let (booted, boots) = mpsc::unbounded_channel();
        let program = program_fn(move |inside| {
            let booted = booted.clone();
            async move {
                if let Some(boot) = inside.boot().await {
                    // Nobody need take it up.
                    let _ = booted.send(boot);
                }
                inside.stop_asked().await;
                Exit(0)
            }
        });
        Self { world: World::running(program).await, boots }
    }

    /// The calls of the next program that is started, and what it was told.
    pub(super) async fn boot(&mut self) -> (Call, ProgramSpec) {
        use secrecy::ExposeSecret;
        let boot = self.boots.recv().await.expect("a start");
        let request = crate::program::BootRequest {
            computer: boot.computer,
            incarnation: boot.incarnation,
            key: boot.key.expose_secret().into(),
            protocol: PROTOCOL,
        };
        let booted = self.world.control.boot(&request).await.expect("a good key");
        (Call::by(booted.principal), booted.spec)
    }

    /// The calls of a program that holds a message, and the message.
    pub(super) async fn busy(&mut self, agent: &Agent, text: &str) -> (Call, LeaseReply) {
        let (call, _) = self.boot().await;
        self.world.send(agent, text).await;
        let lease = self.control().lease(&call, Duration::from_secs(5)).await.expect("present").expect("a message");
        (call, lease)
    }

    fn control(&self) -> &ControlPlane {
        &self.world.control
    }

    async fn report(&self, call: &Call, message: Option<MessageId>, texts: &[String]) -> Result<(), Error> {
        let step = |text: &String| NewStep { kind: StepKind::Log, tool: None, text: text.clone() };
        let steps = texts.iter().map(step).collect();
        let commit = SystemEntropy.commit_id(Timestamp::UNIX_EPOCH);
        self.control().add_steps(call, StepsReport { commit, message, steps }).await
    }

    async fn end(&self, call: &Call, message: MessageId, ending: Ending, reply: Vec<Part>) -> Result<Agent, Error> {
        let commit = SystemEntropy.commit_id(Timestamp::UNIX_EPOCH);
        let reply = Some(reply);
        self.control().end(call, EndReport { commit, message, ending, reply, steps: Vec::new() }).await
    }
}

fn field<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    match result.expect_err("it is refused") {
        Error::Invalid { field, .. } => field,
        other => panic!("{other:?}"),
    }
}

fn with_setup() -> AgentSpec {
    AgentSpec { setup: Some("true".into()), ..AgentSpec::default() }
}

#[tokio::test(start_paused = true)]
async fn a_program_without_a_setup_takes_messages_as_soon_as_it_has_booted() {
    let mut hands = Hands::new().await;
    let agent = hands.world.create("a", AgentSpec::default()).await;
    let (_, spec) = hands.boot().await;
    assert_eq!((spec.agent, spec.setup), (agent.id, None));
    assert_eq!(hands.world.agent(&agent).await.status.state(), State::Idle);
}

#[tokio::test(start_paused = true)]
async fn a_setup_that_is_never_reported_is_given_up_when_its_time_is_over() {
    let mut hands = Hands::new().await;
    let agent = hands.world.create("a", with_setup()).await;
    let (call, spec) = hands.boot().await;
    assert!(spec.setup.is_some());
    let begun = tokio::time::Instant::now();
    let living = async {
        while hands.control().heartbeat(&call, None).await.is_ok() {
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    };
    let failed = hands.world.until(&agent, "failed", |agent| agent.status.restarts > 0);
    let (failed, ()) = tokio::join!(failed, living);
    let limit = hands.control().settings().setup_limit + Duration::from_secs(60);
    assert!(begun.elapsed() < limit, "{:?}", begun.elapsed());
    let ready = failed.status.conditions.get(crate::agent::ConditionKind::Ready).expect("a condition");
    assert_eq!(ready.reason, "StartTimeout");
}

#[tokio::test(start_paused = true)]
async fn a_setup_is_neither_passed_over_nor_reported_for_another_text() {
    let mut hands = Hands::new().await;
    let agent = hands.world.create("a", with_setup()).await;
    let (call, spec) = hands.boot().await;
    let report = |hash: &str| hands.control().end_setup(&call, SetupReport { hash: hash.into(), failure: None });
    assert_eq!(field(report(&"0".repeat(100_000)).await), "hash");
    let state = async || hands.world.agent(&agent).await.status.state();
    assert_eq!(state().await, State::Init, "it takes no message before its setup is done");
    report(&spec.setup.expect("a setup").hash).await.expect("its own");
    assert_eq!(state().await, State::Idle);
}

#[tokio::test(start_paused = true)]
async fn a_program_that_was_told_of_no_setup_reports_none() {
    let mut hands = Hands::new().await;
    hands.world.create("a", AgentSpec::default()).await;
    let (call, _) = hands.boot().await;
    let hash = crate::agent::SetupRecord::hash_of("true");
    assert_eq!(field(hands.control().end_setup(&call, SetupReport { hash, failure: None }).await), "hash");
}

#[tokio::test(start_paused = true)]
async fn a_setup_that_was_written_after_the_program_booted_is_for_its_next_start() {
    let mut hands = Hands::new().await;
    let agent = hands.world.create("a", AgentSpec::default()).await;
    let (call, _) = hands.boot().await;
    hands.world.edit(&agent, r#"{"setup": "true"}"#).await;
    let waits = hands.world.agent(&agent).await;
    assert_eq!(waits.status.state(), State::Idle);
    assert!(waits.status.conditions.holds(crate::agent::ConditionKind::RestartNeeded));
    let hash = crate::agent::SetupRecord::hash_of("true");
    assert_eq!(field(hands.control().end_setup(&call, SetupReport { hash, failure: None }).await), "hash");
}

#[tokio::test(start_paused = true)]
async fn the_setup_that_runs_is_explained_with_its_time() {
    let mut hands = Hands::new().await;
    let agent = hands.world.create("a", with_setup()).await;
    let (call, spec) = hands.boot().await;
    let explain = || hands.control().explain(&hands.world.call, &hands.world.tenant, &agent.name);
    let told = explain().await.expect("explained");
    let [reason] = &told.activity[..] else { panic!("{told:?}") };
    assert_eq!(reason.kind, super::super::ActivityKind::Setup);
    let time = reason.until.expect("a limit").duration_since(reason.since.expect("a beginning")).as_secs();
    assert_eq!(time, 615, "ten minutes, and a little to report it");
    assert_eq!(told.because, ["its program runs the setup script"]);
    let report = SetupReport { hash: spec.setup.expect("a setup").hash, failure: None };
    hands.control().end_setup(&call, report).await.expect("ready");
    assert!(explain().await.expect("explained").activity.is_empty());
}

#[tokio::test(start_paused = true)]
async fn steps_are_taken_for_the_message_in_hand_alone() {
    let mut hands = Hands::new().await;
    let agent = hands.world.create("a", AgentSpec::default()).await;
    let (call, lease) = hands.busy(&agent, "one").await;
    let later = hands.world.send(&agent, "two").await;
    let text = ["a step".to_owned()];
    let refused = |result: Result<(), Error>| matches!(result, Err(Error::NotHeld(_)));
    assert!(refused(hands.report(&call, Some(later.id), &text).await), "it is not in hand yet");
    hands.report(&call, Some(lease.message.id), &text).await.expect("in hand");
    hands.end(&call, lease.message.id, Ending::Done, vec![]).await.expect("in hand");
    assert!(refused(hands.report(&call, Some(lease.message.id), &text).await), "it has ended");
    let again = hands.end(&call, lease.message.id, Ending::Done, vec![]).await;
    assert!(matches!(again, Err(Error::NotHeld(_))), "{again:?}");
    assert_eq!(hands.world.agent(&agent).await.inbox.last_step, 1);
}

#[tokio::test(start_paused = true)]
async fn an_end_is_held_to_the_bounds_of_a_message() {
    let mut hands = Hands::new().await;
    let agent = hands.world.create("a", AgentSpec::default()).await;
    let (call, lease) = hands.busy(&agent, "one").await;
    let id = lease.message.id;
    let blob = Part::Blob { blob: crate::blob::BlobId::of(b"x"), media_type: "image/png".into() };
    let replies = [
        vec![Part::text("x"); PARTS_LIMIT + 1],
        vec![Part::text("x".repeat(MESSAGE_LIMIT)), Part::text("x")],
        vec![Part::text("a\0b")],
        vec![blob],
    ];
    for reply in replies {
        assert_eq!(field(hands.end(&call, id, Ending::Done, reply).await), "reply");
    }
    for reason in ["x".repeat((4 << 10) + 1), "a\0b".into()] {
        let ending = Ending::Failed { reason };
        assert_eq!(field(hands.end(&call, id, ending, vec![]).await), "ending.failed.reason");
    }
    let tool = Some("x".repeat(257));
    let steps = vec![NewStep { kind: StepKind::ToolCall, tool, text: String::new() }];
    let commit = SystemEntropy.commit_id(Timestamp::UNIX_EPOCH);
    let report = StepsReport { commit, message: Some(id), steps };
    assert_eq!(field(hands.control().add_steps(&call, report).await), "steps");
    let most = vec![Part::text("x".repeat(MESSAGE_LIMIT / PARTS_LIMIT)); PARTS_LIMIT];
    hands.end(&call, id, Ending::Failed { reason: "x".repeat(4 << 10) }, most).await.expect("within bounds");
    assert_eq!(hands.world.agent(&agent).await.status.state(), State::Idle);
}

#[tokio::test(start_paused = true)]
async fn who_takes_up_a_long_attempt_is_told_its_latest_steps() {
    let mut hands = Hands::new().await;
    let agent = hands.world.create("a", AgentSpec::default()).await;
    let (call, lease) = hands.busy(&agent, "earlier").await;
    hands.report(&call, Some(lease.message.id), &["of another message".to_owned()]).await.expect("in hand");
    hands.end(&call, lease.message.id, Ending::Done, vec![]).await.expect("in hand");
    let message = hands.world.send(&agent, "long").await;
    let lease = hands.control().lease(&call, Duration::from_secs(5)).await.expect("present").expect("a message");
    assert!(lease.earlier_steps.is_empty());
    let texts: Vec<_> = (0..MAX_PAGE + 200).map(|n| n.to_string()).collect();
    hands.report(&call, Some(message.id), &texts).await.expect("in hand");
    hands.world.engine.crash(agent_computer(&hands.world.agent(&agent).await), "killed");

    let (call, _) = hands.boot().await;
    let setup: Vec<_> = (0..300).map(|n| format!("setup {n}")).collect();
    hands.report(&call, None, &setup).await.expect("a remark");
    let lease = hands.control().lease(&call, Duration::from_secs(5)).await.expect("present").expect("a message");
    let told: Vec<_> = lease.earlier_steps.iter().map(|step| step.text.clone()).collect();
    assert_eq!(told, texts[200..]);
    let again = hands.control().lease(&call, Duration::from_secs(5)).await.expect("present").expect("the same");
    assert_eq!(again.earlier_steps, lease.earlier_steps);
    let long: Vec<_> = (0..400).map(|n| format!("{n:4}").repeat(STEP_LIMIT / 4)).collect();
    for some in long.chunks(50) {
        hands.report(&call, Some(message.id), some).await.expect("in hand");
    }
    let again = hands.control().lease(&call, Duration::from_secs(5)).await.expect("present").expect("the same");
    let told: Vec<_> = again.earlier_steps.iter().map(|step| step.text.clone()).collect();
    assert!(told == long[400 - MAX_PAGE_BYTES / STEP_LIMIT..], "{} steps of {} bytes", told.len(), STEP_LIMIT);
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_that_could_not_be_written_is_written_by_the_next_tick() {
    let mut hands = Hands::new().await;
    let agent = hands.world.create("a", AgentSpec::default()).await;
    let (call, _) = hands.boot().await;
    hands.control().heartbeat(&call, None).await.expect("present");
    hands.world.store.fail_touches(1);
    let told = hands.world.touched(|touch| touch.heartbeat).await;
    assert_eq!(told.agent, agent.id);
}

fn agent_computer(agent: &Agent) -> crate::ids::ComputerId {
    agent.status.computer.expect("a computer")
}

#[tokio::test(start_paused = true)]
async fn a_program_that_is_told_to_sleep_in_that_moment_takes_nothing_up() {
    let mut hands = Hands::new().await;
    let agent = hands.world.create("a", AgentSpec::default()).await;
    let (call, _) = hands.boot().await;
    let message = hands.world.send(&agent, "one").await;
    let (control, user, tenant) = (hands.control().clone(), hands.world.call.clone(), hands.world.tenant.clone());
    let name = agent.name.clone();
    hands.world.store.before_next_commit(move || {
        Box::pin(async move {
            control.sleep(&user, &tenant, &name, SleepMode::default()).await.expect("asked");
        })
    });
    let lease = hands.control().lease(&call, Duration::from_secs(5)).await;
    assert!(!matches!(&lease, Ok(Some(_))), "{lease:?}");
    let id = message.id;
    let message = hands.world.store.message(agent.id, id).await.expect("answers").expect("is there");
    assert_eq!((message.state, message.attempt), (MessageState::Queued, 0));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_cancelled_as_it_is_taken_up_makes_way_for_the_next() {
    let mut hands = Hands::new().await;
    let agent = hands.world.create("a", AgentSpec::default()).await;
    let (call, _) = hands.boot().await;
    let first = hands.world.send(&agent, "one").await;
    let second = hands.world.send(&agent, "two").await;
    let (control, user, tenant) = (hands.control().clone(), hands.world.call.clone(), hands.world.tenant.clone());
    let name = agent.name.clone();
    hands.world.store.before_next_commit(move || {
        Box::pin(async move {
            control.cancel_message(&user, &tenant, &name, first.id).await.expect("queued");
        })
    });
    let lease = hands.control().lease(&call, Duration::from_secs(5)).await.expect("present").expect("a message");
    assert_eq!(lease.message.id, second.id);
}

#[tokio::test(start_paused = true)]
async fn a_program_that_reports_without_end_fills_no_disk() {
    let mut hands = Hands::new().await;
    let agent = hands.world.create("a", AgentSpec::default()).await;
    let (call, lease) = hands.busy(&agent, "talk").await;
    let id = lease.message.id;
    let texts = vec!["x".repeat(64 << 10); 16];
    for _ in 0..70 {
        hands.report(&call, Some(id), &texts).await.expect("it is told no error for what it may not mind");
    }
    let kept = async |after: u64| {
        let (tenant, name) = (&hands.world.tenant, &agent.name);
        hands.control().steps(&hands.world.call, tenant, name, None, after, None).await.expect("read").items
    };
    let last = hands.world.agent(&agent).await.inbox.last_step;
    assert!((900..=1024).contains(&last), "{last} steps of 64 KiB");
    let step = kept(last - 1).await.pop().expect("the last");
    assert!(step.text.contains("not kept") && step.text.len() < 200, "{}", step.text.len());

    let commits = hands.world.store.commits();
    hands.report(&call, Some(id), &texts).await.expect("taken and dropped");
    hands.report(&call, None, &texts).await.expect("taken and dropped");
    assert_eq!(hands.world.store.commits(), commits, "nor does the log grow");

    hands.end(&call, id, Ending::Done, Vec::new()).await.expect("ended");
    hands.world.send(&agent, "again").await;
    let lease = hands.control().lease(&call, Duration::from_secs(5)).await.expect("present").expect("a message");
    hands.report(&call, Some(lease.message.id), &texts[..1]).await.expect("added");
    assert_eq!(kept(last).await.len(), 1, "another message has room of its own");
}

#[tokio::test(start_paused = true)]
async fn a_program_that_reports_one_letter_at_a_time_is_bounded_too() {
    let mut hands = Hands::new().await;
    let agent = hands.world.create("a", AgentSpec::default()).await;
    let (call, lease) = hands.busy(&agent, "talk").await;
    let texts = vec!["x".to_owned(); 1000];
    for _ in 0..70 {
        hands.report(&call, Some(lease.message.id), &texts).await.expect("taken");
    }
    let last = hands.world.agent(&agent).await.inbox.last_step;
    assert!(last <= 65_536, "{last} steps");
}

#[tokio::test(start_paused = true)]
async fn words_that_are_passed_on_are_few_at_once() {
    let mut hands = Hands::new().await;
    let agent = hands.world.create("a", AgentSpec::default()).await;
    let (call, lease) = hands.busy(&agent, "talk").await;
    let tell = async |bytes: usize| {
        let report = DeltaReport { message: lease.message.id, text: "x".repeat(bytes) };
        hands.control().add_delta(&call, report).await
    };
    tell(128 << 10).await.expect("passed on");
    assert_eq!(field(tell((128 << 10) + 1).await), "text");
}

#[tokio::test(start_paused = true)]
async fn a_program_that_is_heard_again_in_time_is_not_lost_whenever_heartbeats_are_written_down() {
    for offset in 0..10 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut hands = Hands::new().await;
        let agent = hands.world.create("a", with_setup()).await;
        let (call, spec) = hands.boot().await;
        tokio::time::sleep(Duration::from_secs(offset)).await;
        let report = SetupReport { hash: spec.setup.expect("a setup").hash, failure: None };
        hands.control().end_setup(&call, report).await.expect("its own");
        tokio::time::sleep(Duration::from_secs(27)).await;
        hands.control().heartbeat(&call, None).await.expect("present");
        tokio::time::sleep(Duration::from_secs(10)).await;
        let heard = hands.world.agent(&agent).await;
        assert_eq!((heard.status.state(), heard.status.incarnation.0), (State::Idle, 1), "{offset} s after a write");
    }
}

#[tokio::test(start_paused = true)]
async fn a_program_that_is_heard_while_it_is_given_up_is_not_given_up() {
    let mut hands = Hands::new().await;
    let agent = hands.world.create("a", AgentSpec::default()).await;
    let (call, _) = hands.boot().await;
    let (control, late) = (hands.control().clone(), call.clone());
    hands
        .world
        .until(&agent, "idle", |agent| agent.status.run.as_ref().is_some_and(|run| run.start_id.is_some()))
        .await;
    hands.world.store.before_next_commit(move || {
        Box::pin(async move { control.heartbeat(&late, None).await.map(|_| ()).expect("present") })
    });
    tokio::time::sleep(Duration::from_secs(40)).await;
    let heard = hands.world.agent(&agent).await;
    assert_eq!((heard.status.state(), heard.status.incarnation.0), (State::Idle, 1));
}
