//! Engines that fail, hang and lie; operators that die.

use super::*;
use crate::control::SleepMode;
use crate::runtime::RuntimeError;
use crate::runtime::simulated::{Fault, Method, Rule, SetupAct};

#[tokio::test(start_paused = true)]
async fn a_start_that_hangs_leaves_the_state_in_time_and_delete_works_at_once() {
    let world = World::new().await;
    let hang = world.engine.inject(Rule::new(Method::Start, Fault::Hang));
    let agent = world.create("a", AgentSpec::default()).await;
    let failed = world.until(&agent, "failed", |a| a.status.restarts > 0).await;
    assert!(!ready(&failed).status);
    let asked = tokio::time::Instant::now();
    world.control.delete(&world.call, &world.tenant, &agent.name).await.expect("asked");
    world.until(&agent, "deleted", |a| a.status.state() == State::Deleted).await;
    assert!(asked.elapsed() < Duration::from_secs(1), "deleted after {:?}", asked.elapsed());
    hang.release();
    world.engine_until("empty", |engine| engine.computers().is_empty() && engine.volumes().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_operator_was_taking_away_is_taken_away_as_soon_as_another_has_its_place() {
    let mut world = World::new().await;
    let agent = world.idle("a", AgentSpec::default()).await;
    let hang = world.engine.inject(Rule::new(Method::RemoveVolume, Fault::Hang).times(1));
    world.control.delete(&world.call, &world.tenant, &agent.name).await.expect("asked");
    world.until(&agent, "deleted", |a| a.status.state() == State::Deleted).await;
    world.engine_until("in the middle of taking the volume away", |_| hang.hits() == 1).await;
    world.kill_operator();
    let begun = tokio::time::Instant::now();
    world.start_operator().await;
    world.engine_until("empty", |engine| engine.computers().is_empty() && engine.volumes().is_empty()).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

async fn hung_call_delays_nobody_else(method: Method) {
    let world = World::new().await;
    let stuck = world.idle("stuck", AgentSpec::default()).await;
    world.control.sleep(&world.call, &world.tenant, &stuck.name, SleepMode::Now).await.expect("asked");
    world.until(&stuck, "stopped", |a| a.status.state() == State::Slept && a.status.run.is_none()).await;
    world.engine.inject(Rule::new(method, Fault::Hang).on(computer(&stuck)));
    world.control.wake(&world.call, &world.tenant, &stuck.name, false).await.expect("asked");
    let begun = tokio::time::Instant::now();
    for n in 0..100 {
        world.create(&format!("other-{n}"), AgentSpec::default()).await;
    }
    for n in 0..100 {
        let name = agent_name(&format!("other-{n}"));
        let agent = world.control.get_agent(&world.call, &world.tenant, &name).await.expect("there");
        world.until(&agent, "idle", |a| a.status.state() == State::Idle).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_hung_create_delays_nobody_else() {
    hung_call_delays_nobody_else(Method::Ensure).await;
}

#[tokio::test(start_paused = true)]
async fn a_hung_start_delays_nobody_else() {
    hung_call_delays_nobody_else(Method::Start).await;
}

#[tokio::test(start_paused = true)]
async fn a_create_that_fails_for_good_leaves_no_computer_no_volume_and_no_quota() {
    let world = World::new().await;
    for method in [Method::Ensure, Method::Start] {
        let refused = RuntimeError::Refused { what: "start the computer", reason: "it is broken".into() };
        let rule = world.engine.inject(Rule::new(method, Fault::Fail(refused)));
        let agent = world.create("a", AgentSpec::default()).await;
        world.until(&agent, "failed", |a| a.status.restarts > 2).await;
        world.control.delete(&world.call, &world.tenant, &agent.name).await.expect("asked");
        world.until(&agent, "deleted", |a| a.status.state() == State::Deleted).await;
        world.engine_until("empty", |engine| engine.computers().is_empty() && engine.volumes().is_empty()).await;
        let usage = || async {
            let kind = crate::store::QuotaKind::Agents;
            let used = world.control.system().store().usage(&world.tenant, kind).await.expect("a store");
            Ok((used == 0).then_some(()))
        };
        let given_back = world.control.feed().until(agent.id, Duration::from_secs(60), usage).await.expect("a store");
        assert!(given_back.is_some(), "the quota is given back");
        rule.release();
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_whose_answer_is_lost_leaves_one_computer_and_one_program() {
    let world = World::new().await;
    let lost = Fault::LoseAnswer(RuntimeError::Unavailable("cut".into()));
    world.engine.inject(Rule::new(Method::Start, lost).times(1));
    let agent = world.idle("a", AgentSpec::default()).await;
    world.done(&agent, "hello").await;
    assert_eq!((world.engine.computers().len(), world.running()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_missing_image_is_a_condition_without_a_storm_and_a_change_is_tried_at_once() {
    let world = World::new().await;
    world.engine.lose_image("ghost", "not found in any registry");
    world.engine.offer_image("here");
    let spec = AgentSpec { image: Some("ghost".into()), ..AgentSpec::default() };
    let agent = world.create("a", spec).await;
    let failed = world.until(&agent, "failed", |a| a.status.restarts > 0).await;
    assert_eq!(ready(&failed).reason, "ImageMissing");
    assert!(ready(&failed).message.contains("ghost"));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let tries = world.engine.calls(Method::Prepare);
    assert!((5..40).contains(&tries), "{tries} tries in an hour");
    let change = serde_json::from_str(r#"{"image": "here"}"#).expect("a change");
    let edit = crate::control::EditAgent { spec: change };
    let asked = tokio::time::Instant::now();
    world.control.edit_agent(&world.call, &world.tenant, &agent.name, &edit, None).await.expect("edited");
    world.until(&agent, "idle", |a| a.status.state() == State::Idle).await;
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_pull_that_hangs_is_told_and_given_up_as_soon_as_sleep_or_delete_is_asked() {
    let world = World::new().await;
    world.engine.inject(Rule::new(Method::Prepare, Fault::Hang));
    let agent = world.create("a", AgentSpec::default()).await;
    let pulling =
        |a: &Agent| a.status.conditions.get(ConditionKind::Ready).is_some_and(|ready| ready.reason == "ImagePulling");
    world.until(&agent, "pulling", pulling).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(world.agent(&agent).await.status.restarts, 0, "an image may take its time");
    let asked = tokio::time::Instant::now();
    world.control.sleep(&world.call, &world.tenant, &agent.name, SleepMode::AfterMessage).await.expect("asked");
    world.until(&agent, "stopped", |a| a.status.state() == State::Slept && a.status.run.is_none()).await;
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    assert_ne!(ready(&world.agent(&agent).await).reason, "ImagePulling");

    let other = world.create("b", AgentSpec::default()).await;
    world.until(&other, "pulling", pulling).await;
    world.control.delete(&world.call, &world.tenant, &other.name).await.expect("asked");
    world.until(&other, "deleted", |a| a.status.state() == State::Deleted).await;
    let usage = || async {
        let used = world
            .control
            .system()
            .store()
            .usage(&world.tenant, crate::store::QuotaKind::Agents)
            .await
            .expect("a store");
        Ok((used == 1).then_some(()))
    };
    let given_back = world.control.feed().until(other.id, Duration::from_secs(60), usage).await.expect("a store");
    assert!(given_back.is_some(), "the quota is given back within a minute");
}

#[tokio::test(start_paused = true)]
async fn a_setup_that_fails_shows_its_output_and_waits_for_a_change_or_a_retry() {
    let works = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let working = Arc::clone(&works);
    let program = SimulatedAgent::echo().with_setup(move |_| {
        if working.load(std::sync::atomic::Ordering::Relaxed) {
            SetupAct::Succeed
        } else {
            SetupAct::Fail("no such package".into())
        }
    });
    let world = World::with(program, Profile::Container).await;
    let spec = AgentSpec { setup: Some("apt-get install nothing".into()), ..AgentSpec::default() };
    let agent = world.create("a", spec).await;
    let message = world.send(&agent, "hello").await;
    let failed = world.until(&agent, "failed", |a| a.status.restarts > 0 && a.status.run.is_none()).await;
    assert_eq!(ready(&failed).reason, "SetupFailed");
    assert!(ready(&failed).message.contains("no such package"));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(world.agent(&agent).await.status.incarnation, failed.status.incarnation, "it waits");
    let why = world.control.explain(&world.call, &world.tenant, &agent.name).await.expect("explained");
    assert!(why.because.iter().any(|line| line.contains("wake --retry")), "{why:?}");
    works.store(true, std::sync::atomic::Ordering::Relaxed);
    world.control.wake(&world.call, &world.tenant, &agent.name, true).await.expect("asked");
    assert_eq!(world.ended(&agent, &message).await.state, MessageState::Done);
    let starts = world.agent(&agent).await.status.incarnation;
    world.control.sleep(&world.call, &world.tenant, &agent.name, SleepMode::Now).await.expect("asked");
    world.until(&agent, "stopped", |a| a.status.state() == State::Slept && a.status.run.is_none()).await;
    works.store(false, std::sync::atomic::Ordering::Relaxed);
    world.done(&agent, "the setup is not run twice").await;
    assert_eq!(world.agent(&agent).await.status.incarnation, starts.next());
}

#[tokio::test(start_paused = true)]
async fn the_setup_runs_again_in_a_computer_that_was_made_anew_and_in_no_other() {
    let runs = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let program = SimulatedAgent::echo().with_setup(move |_| {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        SetupAct::Succeed
    });
    let world = World::with(program, Profile::Container).await;
    let spec = AgentSpec { setup: Some("apt-get install jq".into()), ..AgentSpec::default() };
    let agent = world.idle("a", spec).await;
    for (is_lost, expected) in [(false, 1), (true, 2), (false, 2)] {
        world.control.sleep(&world.call, &world.tenant, &agent.name, SleepMode::Now).await.expect("asked");
        let stopped = |a: &Agent| a.status.state() == State::Slept && a.status.run.is_none();
        let slept = world.until(&agent, "stopped", stopped).await;
        if is_lost {
            world.engine.lose(computer(&slept)).await;
        }
        world.done(&agent, "work").await;
        assert_eq!(runs.load(std::sync::atomic::Ordering::Relaxed), expected, "lost: {is_lost}");
        assert_eq!(world.agent(&agent).await.status.computer, slept.status.computer);
    }
}

#[tokio::test(start_paused = true)]
async fn on_an_engine_without_its_volume_an_agent_waits_and_does_not_begin_anew_with_nothing() {
    let world = World::with(SimulatedAgent::new(act), Profile::Container).await;
    let agent = world.idle("a", AgentSpec::default()).await;
    world.done(&agent, "first").await;
    world.control.sleep(&world.call, &world.tenant, &agent.name, SleepMode::Now).await.expect("asked");
    let stopped = |a: &Agent| a.status.state() == State::Slept && a.status.run.is_none();
    let slept = world.until(&agent, "stopped", stopped).await;
    let volume = world.volume(computer(&slept)).await;
    world.engine.lose(computer(&slept)).await;
    world.engine.lose_volume(volume);
    let message = world.send(&agent, "second").await;
    let told = world.until(&agent, "told", |a| a.status.restarts > 2).await;
    assert_eq!(ready(&told).reason, "VolumeMissing");
    assert!(ready(&told).message.contains(&volume.to_string()), "{:?}", ready(&told));
    assert_eq!(world.engine.volumes(), vec![], "none was made in its place");
    // Somebody brings it back.
    world.engine.bring_volume(volume, [("messages", "first\n")]);
    assert_eq!(world.ended(&agent, &message).await.state, MessageState::Done);
    assert_eq!(world.engine.volume_file(volume, "messages").expect("the file"), "first\nsecond\n");
}

#[tokio::test(start_paused = true)]
async fn the_setup_runs_again_once_a_volume_that_was_gone_is_there_though_the_computer_is_the_same() {
    let runs = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let program = SimulatedAgent::echo().with_setup(move |_| {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        SetupAct::Succeed
    });
    // Nothing outside of the volume stays on it, so that no computer is ever told to be new.
    let world = World::with(program, Profile::Pod).await;
    let agent = world.idle("a", AgentSpec { setup: Some("any".into()), ..AgentSpec::default() }).await;
    world.control.sleep(&world.call, &world.tenant, &agent.name, SleepMode::Now).await.expect("asked");
    let stopped = |a: &Agent| a.status.state() == State::Slept && a.status.run.is_none();
    let slept = world.until(&agent, "stopped", stopped).await;
    let volume = world.volume(computer(&slept)).await;
    world.engine.lose_volume(volume);
    world.control.wake(&world.call, &world.tenant, &agent.name, false).await.expect("asked");
    world.until(&agent, "told", |a| ready(a).reason == "VolumeMissing").await;
    world.engine.bring_volume(volume, []);
    world.until(&agent, "up", |a| a.status.state() == State::Idle).await;
    assert_eq!(runs.load(std::sync::atomic::Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_setup_that_hangs_is_stopped_at_its_limit_and_by_sleep_at_once() {
    let program = SimulatedAgent::echo().with_setup(|_| SetupAct::Hang);
    let world = World::with(program, Profile::Container).await;
    let spec = AgentSpec { setup: Some("sleep infinity".into()), ..AgentSpec::default() };
    let agent = world.create("a", spec.clone()).await;
    let begun = tokio::time::Instant::now();
    world.until(&agent, "failed", |a| a.status.restarts > 0).await;
    let limit = begun.elapsed().as_secs();
    assert!((600..700).contains(&limit), "stopped after {limit} s");
    let other = world.create("b", spec).await;
    world.until(&other, "booted", |a| a.status.run.as_ref().is_some_and(|run| run.booted_at.is_some())).await;
    let asked = tokio::time::Instant::now();
    world.control.sleep(&world.call, &world.tenant, &other.name, SleepMode::AfterMessage).await.expect("asked");
    world.until(&other, "stopped", |a| a.status.state() == State::Slept && a.status.run.is_none()).await;
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_stale_list_makes_no_second_computer() {
    let world = World::new().await;
    for method in [Method::List, Method::Observe] {
        world.engine.inject(Rule::new(method, Fault::Stale));
    }
    let agent = world.idle("a", AgentSpec::default()).await;
    world.engine.cut_events();
    tokio::time::sleep(Duration::from_secs(900)).await;
    assert!(world.engine.computers().len() <= 1, "{:?}", world.engine.computers());
    world.engine.heal();
    world.done(&agent, "hello").await;
    assert_eq!((world.engine.computers().len(), world.running()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_operator_that_dies_in_the_middle_of_a_start_is_followed_by_one_that_finishes_it() {
    let mut world = World::new().await;
    let hang = world.engine.inject(Rule::new(Method::Start, Fault::Hang));
    let agent = world.create("a", AgentSpec::default()).await;
    world.engine.until(|engine| engine.calls(Method::Start) == 1).await;
    world.kill_operator();
    hang.release();
    world.start_operator().await;
    let idle = world.until(&agent, "idle", |a| a.status.state() == State::Idle).await;
    assert_eq!(world.engine.calls(Method::Start), 2, "the second operator starts it");
    assert_eq!(idle.status.incarnation, crate::ids::Incarnation(2));
    world.done(&idle, "hello").await;
    assert_eq!((world.engine.computers().len(), world.running()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_comes_late_leaves_a_later_start_alone() {
    let mut world = World::new().await;
    // The program boots, and no operator learns which start of the engine's that was.
    world.engine.inject(Rule::new(Method::Start, Fault::HangAfter).times(1));
    let agent = world.idle("a", AgentSpec::default()).await;
    let looking = world.engine.inject(Rule::new(Method::Observe, Fault::Hang).on(computer(&agent)).times(1));
    world.control.sleep(&world.call, &world.tenant, &agent.name, SleepMode::Now).await.expect("asked");
    world.engine_until("looked at", |_| looking.hits() == 1).await;
    world.kill_operator();
    world.start_operator().await;
    world.until(&agent, "stopped", |a| a.status.state() == State::Slept && a.status.run.is_none()).await;
    world.control.wake(&world.call, &world.tenant, &agent.name, false).await.expect("asked");
    world.until(&agent, "awake", |a| a.status.state() == State::Idle && a.status.incarnation.0 == 2).await;
    let running = world.engine.running();
    looking.release();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(world.engine.running(), running);
    assert_eq!(world.agent(&agent).await.status.incarnation.0, 2);
}

#[tokio::test(start_paused = true)]
async fn what_happened_while_no_operator_lived_is_seen_by_the_next_within_seven_seconds() {
    let mut world = World::new().await;
    let mut agents = Vec::new();
    for n in 0..20 {
        agents.push(world.idle(&format!("a{n}"), AgentSpec::default()).await);
    }
    world.kill_operator();
    world.engine.crash_all("the machine went down");
    world.start_operator().await;
    let begun = tokio::time::Instant::now();
    for agent in &agents {
        world.until(agent, "idle again", |a| a.status.state() == State::Idle && a.status.incarnation.0 == 2).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(7), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_computer_that_starts_though_its_agent_sleeps_is_stopped() {
    let world = World::new().await;
    let agent = world.idle("a", AgentSpec::default()).await;
    world.control.sleep(&world.call, &world.tenant, &agent.name, SleepMode::Now).await.expect("asked");
    world.until(&agent, "stopped", |a| a.status.state() == State::Slept && a.status.run.is_none()).await;
    let entry = world.runtimes.default_entry().expect("a runtime");
    let late = crate::runtime::Boot {
        agent_url: "unix:/nowhere".into(),
        ca: None,
        computer: computer(&agent),
        incarnation: agent.status.incarnation,
        key: "of a start that was given up".into(),
    };
    // A program that never gets as far as being refused.
    world.engine.inject(Rule::new(Method::Stop, Fault::Slow(Duration::from_secs(1))));
    entry.runtime.start(computer(&agent), &late).await.expect("started");
    world.engine_until("stopped", |engine| engine.running().is_empty()).await;
    assert_eq!(world.agent(&agent).await.status.state(), State::Slept);
}

#[tokio::test(start_paused = true)]
async fn a_delete_that_was_cut_short_is_finished_by_the_next_operator() {
    let mut world = World::new().await;
    let agent = world.idle("a", AgentSpec::default()).await;
    let hang = world.engine.inject(Rule::new(Method::Remove, Fault::Hang));
    world.control.delete(&world.call, &world.tenant, &agent.name).await.expect("asked");
    world.until(&agent, "deleted", |a| a.status.state() == State::Deleted).await;
    world.engine.until(|engine| engine.calls(Method::Remove) == 1).await;
    world.kill_operator();
    hang.release();
    world.start_operator().await;
    world.engine_until("empty", |engine| engine.computers().is_empty() && engine.volumes().is_empty()).await;
    assert!(world.engine.calls(Method::Remove) >= 2, "the second operator removes it");
}

#[tokio::test(start_paused = true)]
async fn a_dead_program_is_seen_within_two_seconds_and_started_again() {
    let world = World::new().await;
    let agent = world.idle("a", AgentSpec::default()).await;
    let killed = tokio::time::Instant::now();
    world.engine.crash(computer(&agent), "killed from outside");
    world.until(&agent, "started again", |a| a.status.state() == State::Idle && a.status.incarnation.0 == 2).await;
    assert!(killed.elapsed() < Duration::from_secs(2), "{:?}", killed.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_away_is_waited_for_and_nothing_is_lost() {
    let world = World::new().await;
    let agent = world.idle("a", AgentSpec::default()).await;
    world.control.sleep(&world.call, &world.tenant, &agent.name, SleepMode::Now).await.expect("asked");
    world.until(&agent, "stopped", |a| a.status.state() == State::Slept && a.status.run.is_none()).await;
    let down = || Fault::Fail(RuntimeError::Unavailable("connection refused".into()));
    for method in [Method::Prepare, Method::Ensure, Method::Start, Method::Stop, Method::Observe, Method::List] {
        world.engine.inject(Rule::new(method, down()));
    }
    let message = world.send(&agent, "hello").await;
    let failed = world.until(&agent, "failed", |a| a.status.restarts > 0).await;
    assert_eq!(ready(&failed).reason, "EngineUnavailable");
    tokio::time::sleep(Duration::from_secs(600)).await;
    world.engine.heal();
    assert_eq!(world.ended(&agent, &message).await.state, MessageState::Done);
}

/// Counts what is logged as a warning or worse.
#[derive(Clone, Default)]
struct Warnings(Arc<std::sync::Mutex<Vec<String>>>);

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut said = String::new();
        event.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            said.push_str(&format!("{field}={value:?} "));
        });
        self.0.lock().expect("not poisoned").push(said);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_away_is_logged_once_and_told_to_each_agent() {
    let warnings = Warnings::default();
    let _guard = tracing::subscriber::set_default(warnings.clone());
    let world = World::new().await;
    let mut agents = Vec::new();
    for n in 0..3 {
        agents.push(world.idle(&format!("a-{n}"), AgentSpec::default()).await);
    }
    for round in 1..=2 {
        let away = RuntimeError::Unavailable("no engine".into());
        let methods = [Method::Watch, Method::List, Method::Observe, Method::Ensure, Method::Start, Method::Stop];
        let rules = methods.map(|method| world.engine.inject(Rule::new(method, Fault::Fail(away.clone()))));
        world.engine.crash_all("the engine went away");
        world.engine.cut_events();
        let asked = |rules: &[crate::runtime::simulated::Injected]| rules.iter().map(|rule| rule.hits()).sum::<u64>();
        world.engine_until("asked again and again", |_| rules[0].hits() > 20 && asked(&rules[1..]) > 20).await;
        let said = warnings.0.lock().expect("not poisoned").clone();
        assert_eq!(said.len(), round, "{said:#?}");
        assert!(said.iter().all(|said| said.contains("no engine")), "{said:#?}");
        for agent in &agents {
            world.until(agent, "told", |a| ready(a).reason == "EngineUnavailable").await;
        }
        world.engine.heal();
        for agent in &agents {
            world.until(agent, "up again", |a| a.status.state() == State::Idle && ready(a).status).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_image_that_cannot_run_the_program_is_a_reason_of_its_own_and_another_one_is_tried_at_once() {
    let world = World::new().await;
    world.engine.make_unfit("bare", "the image has no C library; link the program statically");
    world.engine.offer_image("here");
    let spec = AgentSpec { image: Some("bare".into()), ..AgentSpec::default() };
    let agent = world.create("a", spec).await;
    let failed = world.until(&agent, "failed", |a| a.status.restarts > 0).await;
    assert_eq!(ready(&failed).reason, "ProgramUnfit");
    assert!(ready(&failed).message.contains("link the program statically"), "{}", ready(&failed).message);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let tries = world.engine.calls(Method::Start);
    assert!((5..40).contains(&tries), "{tries} tries in an hour");
    let restarts = world.until(&agent, "waiting", |a| a.status.restarts > 0).await.status.restarts;
    world.until(&agent, "tried once more, with the next try far off", |a| a.status.restarts > restarts).await;
    let change = serde_json::from_str(r#"{"image": "here"}"#).expect("a change");
    let edit = crate::control::EditAgent { spec: change };
    let begun = tokio::time::Instant::now();
    world.control.edit_agent(&world.call, &world.tenant, &agent.name, &edit, None).await.expect("edited");
    world.until(&agent, "up", |a| a.status.state() == State::Idle).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "at once: {:?}", begun.elapsed());
}
