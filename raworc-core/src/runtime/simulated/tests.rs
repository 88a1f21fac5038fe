use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::agent::{Network, Resources};
use crate::entropy::{EntropyExt, SystemEntropy};
use crate::ids::Incarnation;
use crate::runtime::{LimitsReached, Phase, RuntimeExt};

const GRACE: Duration = Duration::from_secs(10);

fn spec() -> ComputerSpec {
    ComputerSpec {
        id: SystemEntropy.computer_id(jiff::Timestamp::UNIX_EPOCH),
        volume: SystemEntropy.volume_id(jiff::Timestamp::UNIX_EPOCH),
        image: None,
        resources: Resources::default(),
        network: Network::default(),
        root: false,
    }
}

fn boot(id: ComputerId) -> Boot {
    Boot {
        agent_url: "unix:/run/raworc/link".into(),
        ca: None,
        computer: id,
        incarnation: Incarnation(1),
        key: "k".into(),
    }
}

fn down() -> RuntimeError {
    RuntimeError::Unavailable("switched off".into())
}

async fn made(options: SimulatedOptions) -> (SimulatedRuntime, ComputerSpec) {
    let (runtime, spec) = (SimulatedRuntime::new(options), spec());
    runtime.ensure(&spec).await.expect("made");
    (runtime, spec)
}

fn is_stopped(observed: Option<Observed>) -> bool {
    matches!(observed, Some(Observed { phase: Phase::Stopped { .. }, .. }))
}

#[tokio::test(start_paused = true)]
async fn a_start_takes_its_latency_of_paused_time() {
    let latency = Latency::default().with_start(Duration::from_millis(20)).with_stop(Duration::from_millis(5));
    let (runtime, spec) = made(SimulatedOptions::default().with_latency(latency)).await;
    let begin = Instant::now();
    let start = runtime.start(spec.id, &boot(spec.id)).await.expect("started");
    assert_eq!(begin.elapsed(), Duration::from_millis(20));
    runtime.stop(spec.id, &start, GRACE).await.expect("stopped");
    assert_eq!(begin.elapsed(), Duration::from_millis(25));
}

#[tokio::test(start_paused = true)]
async fn a_program_that_does_not_end_when_asked_is_aborted_after_its_grace_with_what_it_left_behind() {
    let program = program_fn(|inside: Inside| async move {
        inside.spawn(std::future::pending());
        inside.log("deaf");
        std::future::pending::<Exit>().await
    });
    let (runtime, spec) = made(SimulatedOptions::default().with_program(program)).await;
    let start = runtime.start(spec.id, &boot(spec.id)).await.expect("started");
    assert_eq!(runtime.log_tail(spec.id, 3).await, "eaf");
    assert_eq!(runtime.control().processes(spec.id), 2);
    let begin = Instant::now();
    runtime.stop(spec.id, &start, GRACE).await.expect("stopped");
    assert_eq!(begin.elapsed(), GRACE);
    assert_eq!(runtime.control().processes(spec.id), 0);
    let end = Phase::Stopped { reason: Some("exit code 137".into()) };
    assert_eq!(runtime.observe(spec.id).await.expect("answers").map(|observed| observed.phase), Some(end));
}

#[tokio::test(start_paused = true)]
async fn a_stopped_pod_comes_back_with_another_address_and_an_empty_root() {
    for profile in [Profile::Container, Profile::Pod] {
        let program = program_fn(|inside: Inside| async move {
            let found = inside.read("/etc/made");
            inside.log(if found.is_some() { "kept" } else { "fresh" });
            inside.write("/etc/made", "here");
            inside.append("/agent/starts", b"x");
            inside.stop_asked().await;
            Exit(0)
        });
        let (runtime, spec) = made(SimulatedOptions::new(profile).with_program(program)).await;
        let control = runtime.control();
        let mut addresses = Vec::new();
        for _ in 0..2 {
            let start = runtime.start(spec.id, &boot(spec.id)).await.expect("started");
            addresses.push(control.address(spec.id));
            if addresses.len() == 1 {
                runtime.stop(spec.id, &start, GRACE).await.expect("stopped");
            }
        }
        control.until(|control| control.volume_file(spec.volume, "starts").as_deref() == Some(b"xx")).await;
        let is_container = profile == Profile::Container;
        assert_eq!(addresses[0] == addresses[1], is_container, "{profile:?}");
        assert_eq!(runtime.log_tail(spec.id, 99).await, if is_container { "kept" } else { "fresh" });
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_stays_in_stopping_until_it_has_terminated() {
    let (runtime, spec) = made(SimulatedOptions::new(Profile::Pod)).await;
    let start = runtime.start(spec.id, &boot(spec.id)).await.expect("started");
    let stop = runtime.stop(spec.id, &start, GRACE);
    tokio::pin!(stop);
    assert!(futures::poll!(&mut stop).is_pending());
    assert_eq!(runtime.control().computer(spec.id).map(|c| c.phase), Some(Phase::Stopping(start.clone())));
    stop.await.expect("stopped");
    assert!(is_stopped(runtime.control().computer(spec.id)));
}

#[tokio::test(start_paused = true)]
async fn a_call_fails_as_often_as_it_was_told_to_and_only_for_that_computer() {
    let (runtime, one) = made(SimulatedOptions::default()).await;
    let other = spec();
    runtime.ensure(&other).await.expect("made");
    runtime.control().inject(Rule::new(Method::Start, Fault::Fail(down())).times(2).on(one.id));
    runtime.start(other.id, &boot(other.id)).await.expect("not concerned");
    for _ in 0..2 {
        assert!(matches!(runtime.start(one.id, &boot(one.id)).await, Err(RuntimeError::Unavailable(_))));
    }
    runtime.start(one.id, &boot(one.id)).await.expect("healed");
    assert_eq!(runtime.control().calls(Method::Start), 4);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_leaves_the_effect_behind() {
    let (runtime, spec) = made(SimulatedOptions::default()).await;
    let control = runtime.control();
    control.inject(Rule::new(Method::Start, Fault::LoseAnswer(down())).times(1));
    assert!(runtime.start(spec.id, &boot(spec.id)).await.is_err());
    assert_eq!(control.running().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_call_goes_on_when_it_is_released() {
    let (runtime, spec) = made(SimulatedOptions::default()).await;
    for (fault, has_happened) in [(Fault::Hang, false), (Fault::HangAfter, true)] {
        let hang = runtime.control().inject(Rule::new(Method::Remove, fault));
        runtime.ensure(&spec).await.expect("made");
        let removal = runtime.remove(spec.id);
        tokio::pin!(removal);
        assert!(tokio::time::timeout(Duration::from_secs(3600), &mut removal).await.is_err());
        assert_eq!(runtime.control().computer(spec.id).is_none(), has_happened);
        hang.release();
        removal.await.expect("removed");
        assert!(runtime.control().computer(spec.id).is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_can_fail_at_each_step() {
    for (step, is_running) in [(StartStep::Attached, false), (StartStep::Running, false), (StartStep::Booted, true)] {
        let (runtime, spec) = made(SimulatedOptions::default()).await;
        let control = runtime.control();
        control.inject(Rule::new(Method::Start, Fault::FailAt(step, down())).times(1));
        assert!(runtime.start(spec.id, &boot(spec.id)).await.is_err());
        if step == StartStep::Running {
            // The program got no boot line, and so it ends by itself.
            control.until(|control| is_stopped(control.computer(spec.id))).await;
        }
        assert_eq!(control.running().len() == 1, is_running, "{step:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_engine_lies_as_it_is_told_to() {
    let (runtime, spec) = made(SimulatedOptions::default()).await;
    let control = runtime.control();
    let stale = control.inject(Rule::new(Method::List, Fault::Stale));
    control.inject(Rule::new(Method::Observe, Fault::NotFound));
    control.inject(Rule::new(Method::Stop, Fault::Pretend));
    let start = runtime.start(spec.id, &boot(spec.id)).await.expect("started");
    assert!(is_stopped(runtime.list().await.expect("answers").pop()));
    assert_eq!(runtime.observe(spec.id).await.expect("answers"), None);
    runtime.stop(spec.id, &start, GRACE).await.expect("pretends");
    assert_eq!(control.running(), [(spec.id, start.clone())]);
    stale.release();
    let running = Observed { computer: spec.id, phase: Phase::Running(start), reached: LimitsReached::default() };
    assert_eq!(runtime.list().await.expect("answers"), [running]);
    control.heal();
    assert!(runtime.observe(spec.id).await.expect("answers").is_some());
}

#[tokio::test(start_paused = true)]
async fn two_starts_are_never_the_same_not_even_where_the_engine_lies() {
    let (runtime, spec) = made(SimulatedOptions::default()).await;
    runtime.control().inject(Rule::new(Method::Start, Fault::Pretend));
    let mut starts = std::collections::HashSet::new();
    for _ in 0..3 {
        assert!(starts.insert(runtime.start(spec.id, &boot(spec.id)).await.expect("pretends")), "{starts:?}");
    }
    runtime.control().heal();
    assert!(starts.insert(runtime.start(spec.id, &boot(spec.id)).await.expect("started")), "{starts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_crash_ends_the_program_with_its_reason_and_is_told_to_watchers() {
    let (runtime, spec) = made(SimulatedOptions::default()).await;
    runtime.start(spec.id, &boot(spec.id)).await.expect("started");
    let mut events = runtime.watch().await.expect("watches");
    runtime.control().crash(spec.id, "out of memory");
    assert_eq!(events.next().await, Some(RuntimeEvent::Changed(spec.id)));
    let end = Phase::Stopped { reason: Some("out of memory".into()) };
    assert_eq!(runtime.control().computer(spec.id).map(|c| c.phase), Some(end));
    runtime.control().cut_events();
    assert_eq!(events.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn an_image_that_was_lost_is_missed_by_ensure_or_by_a_pods_start() {
    for profile in [Profile::Container, Profile::Pod] {
        let runtime = SimulatedRuntime::new(SimulatedOptions::new(profile));
        runtime.control().lose_image("gone", "no such tag");
        assert!(matches!(runtime.prepare(Some("gone"), &|_| ()).await, Err(RuntimeError::ImageMissing { .. })));
        let spec = ComputerSpec { image: Some("gone".into()), ..spec() };
        let mut outcome = runtime.ensure(&spec).await.map(|_| ());
        if profile == Profile::Pod {
            outcome.expect("a pod's image is first missed when it starts");
            outcome = runtime.start(spec.id, &boot(spec.id)).await.map(|_| ());
        }
        assert!(matches!(outcome, Err(RuntimeError::ImageMissing { .. })), "{profile:?}");
    }
}
