//! What is kept of a death.

use futures::StreamExt;

use super::*;
use crate::control::{DEATH_LOG_LIMIT, EditAgent, SleepMode};
use crate::runtime::simulated::{Fault, Method, Rule};
use crate::runtime::{LogsOptions, RuntimeError};
use crate::store::RecordKind;

/// An agent whose every program logs which message it got, and much of it.
fn talkative() -> SimulatedAgent {
    SimulatedAgent::new(act).with_log(|message| format!("{}\n", message.text()).repeat(20_000))
}

async fn read(log: Result<crate::control::LogStream, Error>) -> String {
    let chunks: Vec<_> = log.expect("a log").map(|chunk| chunk.expect("read")).collect().await;
    String::from_utf8(chunks.concat()).expect("text")
}

async fn kept(world: &World) -> Vec<String> {
    let kept =
        world.control.system().store().records(RecordKind::DeathLog, Some(&world.tenant)).await.expect("a store");
    kept.into_iter().map(|record| record.key.name).collect()
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_log_of_what_died_is_kept_until_the_next_death_and_goes_with_the_agent() {
    let world = World::with(talkative(), Profile::Container).await;
    let agent = world.idle("a", AgentSpec::default()).await;
    let (call, tenant, name) = (&world.call, &world.tenant, &agent.name);
    let none = world.control.previous_log(call, tenant, name, LogsOptions::default()).await;
    assert!(matches!(none, Err(Error::NotFound { .. })));

    for (n, word) in ["crash-once 1", "crash-once 2"].into_iter().enumerate() {
        world.done(&agent, word).await;
        let again = world.agent(&agent).await;
        let log = again.status.kept_log.expect("a log");
        assert_eq!((log.incarnation.0, log.bytes), (n as u64 + 1, DEATH_LOG_LIMIT as u64));
        let previous = read(world.control.previous_log(call, tenant, name, LogsOptions::default()).await).await;
        assert_eq!(previous.len(), DEATH_LOG_LIMIT);
        assert!(previous.lines().skip(1).all(|line| line == word), "it is the log of the last one that died");
        let tail = LogsOptions::default().with_tail(5);
        let end = read(world.control.previous_log(call, tenant, name, tail).await).await;
        assert_eq!(end, format!("{}\n", &word[word.len() - 4..]));
        assert_eq!(kept(&world).await, [agent.id.to_string()], "one is kept of an agent");
    }

    world.control.delete(call, tenant, name).await.expect("asked");
    world.until(&agent, "deleted", |a| a.status.state() == State::Deleted).await;
    assert!(kept(&world).await.is_empty(), "nothing of it is left");
}

#[tokio::test(start_paused = true)]
async fn the_condition_tells_only_the_end_of_what_is_kept() {
    let world = World::with(talkative(), Profile::Container).await;
    let agent = world.idle("a", AgentSpec::default()).await;
    world.send(&agent, "crash").await;
    let dead = world.until(&agent, "dead", |a| a.status.kept_log.is_some()).await;
    let told = &ready(&dead).message;
    assert!(told.contains("The end of its log:") && told.ends_with("crash"), "{told}");
    assert!(told.len() < 4 << 10, "{} bytes", told.len());
}

#[tokio::test(start_paused = true)]
async fn the_log_of_a_computer_that_does_not_run_is_the_engines_or_the_one_that_was_kept() {
    let world = World::with(talkative(), Profile::Container).await;
    let agent = world.idle("a", AgentSpec::default()).await;
    let (call, tenant, name) = (&world.call, &world.tenant, &agent.name);
    world.done(&agent, "hello").await;
    world.control.sleep(call, tenant, name, SleepMode::Now).await.expect("asked");
    world.until(&agent, "stopped", |a| a.status.state() == State::Slept && a.status.run.is_none()).await;
    let log = world.control.stopped_log(call, tenant, name, LogsOptions::default()).await;
    assert!(read(log).await.starts_with("hello\n"));
    let forgot = crate::runtime::RuntimeError::NotFound(computer(&agent));
    world.engine.inject(Rule::new(Method::Logs, Fault::Fail(forgot)));
    let none = world.control.stopped_log(call, tenant, name, LogsOptions::default()).await;
    assert!(matches!(none, Err(Error::NotFound { .. })), "nothing died, and the engine forgot it");
    // An engine that does not answer.
    let world = World::with(talkative(), Profile::Container).await;
    let agent = world.idle("a", AgentSpec::default()).await;
    let down = crate::runtime::RuntimeError::Unavailable("connection refused".into());
    world.engine.inject(Rule::new(Method::Start, Fault::Fail(down.clone())));
    world.send(&agent, "crash").await;
    world.until(&agent, "not started again", |a| a.status.restarts > 1).await;
    world.engine.inject(Rule::new(Method::Logs, Fault::Fail(down)));
    let (call, tenant, name) = (&world.call, &world.tenant, &agent.name);
    let log = world.control.stopped_log(call, tenant, name, LogsOptions::default().with_tail(6)).await;
    assert_eq!(read(log).await, "crash\n");
}

#[tokio::test(start_paused = true)]
async fn a_start_whose_program_never_ran_keeps_the_log_of_the_one_before() {
    let world = World::with(talkative(), Profile::Container).await;
    let agent = world.idle("a", AgentSpec::default()).await;
    world.engine.inject(Rule::new(Method::Start, Fault::Hang));
    world.send(&agent, "crash").await;
    let failed = world.until(&agent, "not started again", |a| a.status.restarts > 1).await;
    let kept = failed.status.kept_log.expect("a log");
    assert_eq!(kept.incarnation.0, 1, "{failed:#?}");
    assert!(!ready(&failed).message.contains("crash"), "what the engine has is not of this start");
}

#[tokio::test(start_paused = true)]
async fn the_log_of_a_start_that_was_put_to_sleep_is_kept_though_the_next_one_fails() {
    for method in [Method::Ensure, Method::Start] {
        let world = World::with(talkative(), Profile::Container).await;
        let agent = world.idle("a", AgentSpec::default()).await;
        let (call, tenant, name) = (&world.call, &world.tenant, &agent.name);
        world.done(&agent, "one").await;
        world.control.sleep(call, tenant, name, SleepMode::Now).await.expect("asked");
        world.until(&agent, "stopped", |a| a.status.state() == State::Slept && a.status.run.is_none()).await;
        let refused = RuntimeError::Refused { what: "do it", reason: "not today".into() };
        world.engine.inject(Rule::new(method, Fault::Fail(refused)).times(1));
        world.control.wake(call, tenant, name, false).await.expect("asked");
        world.until(&agent, "up at last", |a| a.status.state() == State::Idle && a.status.incarnation.0 == 3).await;
        let previous = read(world.control.previous_log(call, tenant, name, LogsOptions::default()).await).await;
        assert!(previous.lines().filter(|line| *line == "one").count() > 10_000, "{method:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_log_of_a_start_that_was_put_to_sleep_is_kept_once_the_next_one_begins() {
    let world = World::with(talkative(), Profile::Container).await;
    let agent = world.idle("a", AgentSpec::default()).await;
    let (call, tenant, name) = (&world.call, &world.tenant, &agent.name);
    for (n, word) in (1..).zip(["one", "two", "three"]) {
        world.done(&agent, word).await;
        world.control.sleep(call, tenant, name, SleepMode::Now).await.expect("asked");
        world.until(&agent, "stopped", |a| a.status.state() == State::Slept && a.status.run.is_none()).await;
        if n > 1 {
            let previous = read(world.control.previous_log(call, tenant, name, LogsOptions::default()).await).await;
            assert!(!previous.contains(word), "it is of the start before, also while this one's computer sleeps");
        }
        world.control.wake(call, tenant, name, false).await.expect("asked");
        let kept = |a: &crate::agent::Agent| a.status.kept_log.is_some_and(|log| log.incarnation.0 == n);
        let up = world.until(&agent, "kept", |a| kept(a) && a.status.state() == State::Idle).await;
        assert_eq!(ready(&up).reason, "Ready");
        let previous = read(world.control.previous_log(call, tenant, name, LogsOptions::default()).await).await;
        assert_eq!(previous.len(), DEATH_LOG_LIMIT);
        assert!(previous.lines().filter(|line| *line == word).count() > 10_000, "it is the log of start {n}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_log_of_a_start_that_was_put_to_sleep_is_kept_though_the_next_one_has_another_computer() {
    let world = World::with(talkative(), Profile::Container).await;
    let agent = world.idle("a", AgentSpec::default()).await;
    let (call, tenant, name) = (&world.call, &world.tenant, &agent.name);
    world.done(&agent, "one").await;
    world.control.sleep(call, tenant, name, SleepMode::Now).await.expect("asked");
    world.until(&agent, "stopped", |a| a.status.state() == State::Slept && a.status.run.is_none()).await;
    let edit = EditAgent { spec: serde_json::from_str(r#"{"image": "another"}"#).expect("a change") };
    world.control.edit_agent(call, tenant, name, &edit, None).await.expect("edited");
    world.control.wake(call, tenant, name, false).await.expect("asked");
    let up = world.until(&agent, "up", |a| a.status.state() == State::Idle).await;
    assert_ne!(up.status.computer, agent.status.computer);
    world.engine_until("the old one is taken away", |engine| engine.computers().len() == 1).await;
    let previous = read(world.control.previous_log(call, tenant, name, LogsOptions::default()).await).await;
    assert!(previous.lines().filter(|line| *line == "one").count() > 10_000, "{}", previous.len());
}
