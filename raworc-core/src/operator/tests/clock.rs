//! Clocks that are set, and machines that were suspended: the store's time goes on elsewhere, and no time has passed.

use jiff::SignedDuration;

use super::*;
use crate::control::{ActivityKind, SleepMode};
use crate::ids::Incarnation;
use crate::runtime::simulated::{Fault, Method, Rule, SetupAct};

/// An hour either way, and so little that the servers' signs of life do not run out by it.
const JUMPS: [SignedDuration; 4] = [
    SignedDuration::from_hours(1),
    SignedDuration::from_hours(-1),
    SignedDuration::from_secs(12),
    SignedDuration::from_secs(-12),
];

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_puts_nobody_to_sleep_early_and_loses_nobody() {
    for jump in JUMPS {
        let world = World::new().await;
        let quiet = world.idle("quiet", idle_after(300)).await;
        let long = world.idle("long", idle_after(7200)).await;
        let thinking = world.idle("thinking", idle_after(30)).await;
        let guard = world.control.system().hold(&thinking, ActivityKind::ModelCall).await.expect("held");
        let kept = world.idle("kept", idle_after(30)).await;
        let lease = Some(Duration::from_secs(1200));
        world.control.keep_awake(&world.call, &world.tenant, &kept.name, lease).await.expect("kept");
        let spec = AgentSpec { busy_timeout: 1800, ..AgentSpec::default() };
        let busy = world.idle("busy", spec).await;
        let work = world.send(&busy, "work 1500").await;
        world.until(&busy, "busy", |a| a.status.state() == State::Busy).await;
        // Somewhere between two heartbeats, and long before the time is over.
        pass(97).await;
        world.clock.set_ahead(jump);
        pass(193).await;
        for agent in [&quiet, &long, &thinking, &kept, &busy] {
            let now = world.agent(agent).await;
            assert!(now.status.state().is_up(), "{jump:#}: {} is {}", now.name, now.status.state());
            assert_eq!(now.status.incarnation, Incarnation(1), "{jump:#}: {}", now.name);
        }
        let begun = tokio::time::Instant::now();
        world.until(&quiet, "slept", |a| a.status.state() == State::Slept).await;
        assert!(begun.elapsed() < Duration::from_secs(330), "{jump:#}: it sleeps late, by {:?}", begun.elapsed());
        assert_eq!(world.ended(&busy, &work).await.state, MessageState::Done, "{jump:#}");
        drop(guard);
        world.until(&thinking, "slept", |a| a.status.state() == State::Slept).await;
        assert_eq!(world.agent(&long).await.status.state(), State::Idle, "{jump:#}");
        assert_eq!(world.agent(&thinking).await.status.incarnation, Incarnation(1), "{jump:#}");
        let begun = tokio::time::Instant::now();
        world.until(&kept, "slept", |a| a.status.state() == State::Slept).await;
        assert!(begun.elapsed() < Duration::from_secs(1300), "{jump:#}: {:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_neither_ends_nor_prolongs_what_has_a_limit() {
    for jump in JUMPS {
        let program = SimulatedAgent::new(act).with_setup(|_| SetupAct::Hang);
        let world = World::with(program, Profile::Container).await;
        let late = |what: &str, begun: tokio::time::Instant, limit: u64| {
            let (took, limit) = (begun.elapsed(), Duration::from_secs(limit));
            let slack = Duration::from_secs(20);
            assert!(took + slack > limit && took < limit + slack, "{jump:#}: {what} after {took:?} of {limit:?}");
        };
        let spec = AgentSpec { busy_timeout: 600, ..AgentSpec::default() };
        let slow = world.idle("slow", spec.clone()).await;
        let message = world.send(&slow, "hang").await;
        world.until(&slow, "busy", |a| a.status.state() == State::Busy).await;
        let begun = tokio::time::Instant::now();
        pass(97).await;
        world.clock.set_ahead(jump);
        assert!(world.ended(&slow, &message).await.reason.expect("a reason").contains("busy_timeout"), "{jump:#}");
        // A clock that was set back a little leaves the limit where it was.
        late("the busy time ended", begun, 600);

        let deaf = world.idle("deaf", spec).await;
        world.send(&deaf, "hang").await;
        world.until(&deaf, "busy", |a| a.status.state() == State::Busy).await;
        world.control.cancel(&world.call, &world.tenant, &deaf.name).await.expect("asked");
        let begun = tokio::time::Instant::now();
        world.clock.set_ahead(jump);
        world.until(&deaf, "given up", |a| a.status.state() == State::Init).await;
        late("the cancel was given up", begun, 10);

        let spec = AgentSpec { setup: Some("sleep infinity".into()), ..AgentSpec::default() };
        let unborn = world.create("unborn", spec).await;
        world.until(&unborn, "booted", |a| a.status.run.as_ref().is_some_and(|run| run.booted_at.is_some())).await;
        let begun = tokio::time::Instant::now();
        pass(97).await;
        world.clock.set_ahead(jump);
        world.until(&unborn, "failed", |a| a.status.restarts > 0).await;
        late("the start failed", begun, 615);
    }
}

#[tokio::test(start_paused = true)]
async fn a_program_that_fell_silent_before_a_jump_is_lost_soon_after_it() {
    for jump in JUMPS {
        let world = World::new().await;
        let agent = world.idle("a", AgentSpec::default()).await;
        world.send(&agent, "silent").await;
        world.until(&agent, "busy", |a| a.status.state() == State::Busy).await;
        world.clock.set_ahead(jump);
        let begun = tokio::time::Instant::now();
        world.until(&agent, "lost", |a| a.status.restarts > 0).await;
        assert!(begun.elapsed() < Duration::from_secs(70), "{jump:#}: {:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_start_is_tried_again_in_time_though_the_clock_was_set_back() {
    let world = World::new().await;
    let refused = || Fault::Fail(crate::runtime::RuntimeError::Unavailable("switched off".into()));
    let down = world.engine.inject(Rule::new(Method::Start, refused()));
    let agent = world.create("a", AgentSpec::default()).await;
    world.until(&agent, "failed for the fifth time", |a| a.status.restarts > 4 && a.status.run.is_none()).await;
    world.clock.set_ahead(SignedDuration::from_hours(-1));
    down.release();
    let begun = tokio::time::Instant::now();
    world.until(&agent, "idle", |a| a.status.state() == State::Idle).await;
    assert!(begun.elapsed() < Duration::from_secs(300), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_was_set_back_while_no_operator_lived_freezes_nothing() {
    let mut world = World::new().await;
    let quiet = world.idle("quiet", idle_after(60)).await;
    world.kill_operator();
    world.clock.set_ahead(SignedDuration::from_hours(-5));
    world.start_operator().await;
    let begun = tokio::time::Instant::now();
    world.until(&quiet, "slept", |a| a.status.state() == State::Slept).await;
    assert!(begun.elapsed() < Duration::from_secs(90), "{:?}", begun.elapsed());
    world.control.wake(&world.call, &world.tenant, &quiet.name, false).await.expect("asked");
    let woken = world.until(&quiet, "idle", |a| a.status.state() == State::Idle).await;
    assert_eq!(woken.status.incarnation, Incarnation(2));
    world.control.sleep(&world.call, &world.tenant, &quiet.name, SleepMode::Now).await.expect("asked");
    world.until(&quiet, "stopped", |a| a.status.state() == State::Slept && a.status.run.is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_was_set_back_keeps_nothing_on_the_reclaim_list_that_is_gone() {
    let mut world = World::new().await;
    let hang = world.engine.inject(Rule::new(Method::Ensure, Fault::Hang));
    let agent = world.create("a", AgentSpec::default()).await;
    let agent = world.until(&agent, "begun", |a| a.status.run.is_some()).await;
    world.engine_until("in the middle of a start", |_| hang.hits() == 1).await;
    world.kill_operator();
    world.control.delete(&world.call, &world.tenant, &agent.name).await.expect("asked");
    world.start_operator().await;
    world.engine_until("rid of it", |engine| engine.calls(Method::RemoveVolume) > 0).await;
    world.clock.set_ahead(SignedDuration::from_hours(-5));
    let begun = tokio::time::Instant::now();
    while world.control.system().store().computer(computer(&agent)).await.expect("a store").is_some() {
        pass(1).await;
    }
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(30), "the start may still have come, and nobody waited for it: {took:?}");
    assert!(took < Duration::from_secs(90), "{took:?}");
}
