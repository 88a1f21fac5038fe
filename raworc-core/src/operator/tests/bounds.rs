//! What has a limit and what has none.

use super::*;
use crate::control::SleepMode;
use crate::ids::Incarnation;
use crate::runtime::simulated::{Fault, Method, Rule};

const METHODS: [Method; 6] =
    [Method::Prepare, Method::Ensure, Method::Start, Method::Stop, Method::Remove, Method::Observe];

fn hang_all(world: &World) {
    for method in METHODS {
        world.engine.inject(Rule::new(method, Fault::Hang));
    }
}

#[tokio::test(start_paused = true)]
async fn a_slept_agent_is_exempt_from_every_limit_of_time() {
    let world = World::new().await;
    let spec = AgentSpec { idle_timeout: 1, busy_timeout: 1, ..AgentSpec::default() };
    let asked = world.idle("asked", spec.clone()).await;
    world.control.sleep(&world.call, &world.tenant, &asked.name, SleepMode::Now).await.expect("asked");
    let quiet = world.idle("quiet", spec).await;
    let mut before = Vec::new();
    for agent in [&asked, &quiet] {
        before
            .push(world.until(agent, "stopped", |a| a.status.state() == State::Slept && a.status.run.is_none()).await);
    }
    let volumes = world.engine.volumes();
    let starts = world.engine.calls(Method::Start);
    for _ in 0..3 {
        world.clock.set_ahead(jiff::SignedDuration::from_hours(24 * 365));
        tokio::time::sleep(Duration::from_secs(7200)).await;
    }
    for agent in &before {
        assert_eq!(world.agent(agent).await, *agent);
        assert_eq!(agent.due_at(), None, "nothing is due for it, ever");
    }
    assert_eq!((world.engine.volumes(), world.engine.calls(Method::Start)), (volumes, starts));
    world.done(&asked, "still there").await;
}

#[tokio::test(start_paused = true)]
async fn every_state_but_idle_and_slept_has_a_bound_and_a_way_out() {
    // An engine that hangs in one call after another: the start is given up within its bound.
    for (method, bound) in [(Method::Prepare, 1800 + 60), (Method::Ensure, 120), (Method::Start, 120)] {
        let world = World::new().await;
        let hang = world.engine.inject(Rule::new(method, Fault::Hang));
        let agent = world.create("a", AgentSpec::default()).await;
        let begun = tokio::time::Instant::now();
        let init = world.until(&agent, "begun", |a| a.status.run.is_some()).await;
        assert_eq!(init.status.state(), State::Init);
        assert!(init.due_at().is_some(), "{method:?}: init has a deadline");
        world.until(&agent, "given up", |a| a.status.restarts > 0).await;
        assert!(begun.elapsed() < Duration::from_secs(bound), "{method:?}: {:?}", begun.elapsed());
        hang.release();
        world.until(&agent, "idle", |a| a.status.state() == State::Idle).await;
    }
    // An engine that hangs in every call.
    let way_out = |what: &'static str, text: Option<&'static str>, ask: Option<SleepMode>, bound: u64| async move {
        let world = World::new().await;
        let agent = world.idle("a", AgentSpec { busy_timeout: 60, ..AgentSpec::default() }).await;
        let mut left = State::Init;
        if let Some(text) = text {
            world.send(&agent, text).await;
            let busy = world.until(&agent, "busy", |a| a.status.state() == State::Busy).await;
            assert!(busy.due_at().is_some(), "{what}: busy has a deadline");
            left = State::Busy;
        }
        hang_all(&world);
        if text.is_none() {
            world.engine.crash(computer(&agent), "killed from outside");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let asked = tokio::time::Instant::now();
        match ask {
            Some(mode) => {
                world.control.sleep(&world.call, &world.tenant, &agent.name, mode).await.expect("asked");
                world.until(&agent, "slept", |a| a.status.state() == State::Slept).await;
            }
            None => {
                world.until(&agent, "elsewhere", |a| a.status.state() != left).await;
            }
        }
        assert!(asked.elapsed() < Duration::from_secs(bound), "{what}: {:?}", asked.elapsed());
        world.control.delete(&world.call, &world.tenant, &agent.name).await.expect("asked");
        let deleted = tokio::time::Instant::now();
        world.until(&agent, "deleted", |a| a.status.state() == State::Deleted).await;
        assert!(deleted.elapsed() < Duration::from_secs(1), "{what}: deleted after {:?}", deleted.elapsed());
        world.engine.heal();
        world.engine_until("empty", |engine| engine.computers().is_empty() && engine.volumes().is_empty()).await;
    };
    way_out("a message that takes too long", Some("hang"), None, 62).await;
    way_out("a program that falls silent", Some("silent"), None, 62).await;
    way_out("a sleep of a busy agent that is asked for at once", Some("hang"), Some(SleepMode::Now), 12).await;
    way_out("a sleep of an agent whose program died", None, Some(SleepMode::AfterMessage), 1).await;
}

#[tokio::test(start_paused = true)]
async fn files_are_all_there_after_ten_sleeps_and_wakes_with_crashes_between() {
    for profile in [Profile::Container, Profile::Pod] {
        let world = World::with(SimulatedAgent::new(act), profile).await;
        let agent = world.idle("a", AgentSpec::default()).await;
        let volume = world.volume(computer(&agent)).await;
        let mut wanted = String::new();
        for round in 1..=10 {
            let text = format!("round {round}");
            world.done(&agent, &text).await;
            wanted = format!("{wanted}{text}\n");
            let before = world.agent(&agent).await.status.incarnation;
            match round {
                // While it is idle, while it works, and while it is being stopped.
                2 | 7 => {
                    world.engine.crash(computer(&agent), "killed from outside");
                    let again = |a: &Agent| a.status.state() == State::Idle && a.status.incarnation > before;
                    world.until(&agent, "started again", again).await;
                }
                4 => {
                    world.done(&agent, "crash-once").await;
                    wanted = format!("{wanted}crash-once\ncrash-once\n");
                }
                _ => {}
            }
            world.control.sleep(&world.call, &world.tenant, &agent.name, SleepMode::AfterMessage).await.expect("asked");
            if round == 9 {
                world.engine.crash(computer(&agent), "killed from outside");
            }
            world.until(&agent, "stopped", |a| a.status.state() == State::Slept && a.status.run.is_none()).await;
            let file = world.engine.volume_file(volume, "messages").expect("the file");
            assert_eq!(file, wanted, "after round {round}");
        }
        let last = world.agent(&agent).await;
        assert_eq!((last.status.incarnation, last.status.computer), (Incarnation(13), agent.status.computer));
        assert_eq!(world.engine.volumes(), [volume]);
    }
}

/// Whether its image is pulled, or is waited for.
fn waits(agent: &Agent) -> bool {
    agent.status.conditions.get(ConditionKind::Ready).is_some_and(|ready| ready.reason == "ImagePulling")
}

fn pulled(agent: &Agent) -> bool {
    waits(agent) && ready(agent).message.ends_with("is being pulled")
}

/// Of agents that all want an image, how many have it pulled.
async fn pulls(world: &World, agents: &[Agent]) -> usize {
    let mut pulls = 0;
    for agent in agents {
        pulls += usize::from(pulled(&world.until(agent, "pulled, or waiting for that", waits).await));
    }
    pulls
}

#[tokio::test(start_paused = true)]
async fn an_image_that_was_had_and_is_gone_is_pulled_a_few_at_a_time() {
    for image in [None, Some("had")] {
        let world = World::new().await;
        let mut agents = Vec::new();
        for n in 0..40 {
            let spec = AgentSpec { image: image.map(Into::into), ..AgentSpec::default() };
            agents.push(world.idle(&format!("a{n}"), spec).await);
        }
        let hang = world.engine.inject(Rule::new(Method::Prepare, Fault::Hang));
        world.engine.crash_all("killed");
        assert_eq!(pulls(&world, &agents).await, 8, "{image:?}: the others wait for their turn");
        // 16 found that it is gone; whoever waits for the turn asks once.
        assert!(hang.hits() <= 16 + 40, "{image:?}: {} were begun", hang.hits());
        hang.release();
        for agent in &agents {
            world.until(agent, "idle", |a| a.status.state() == State::Idle).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_images_of_one_tenant_are_pulled_a_few_at_a_time_and_hold_up_no_other_tenant() {
    let world = World::new().await;
    let hang = world.engine.inject(Rule::new(Method::Prepare, Fault::Hang));
    let mut agents = Vec::new();
    for n in 0..40 {
        let spec = AgentSpec { image: Some(format!("image-{n}")), ..AgentSpec::default() };
        agents.push(world.create(&format!("a{n}"), spec).await);
    }
    assert_eq!(pulls(&world, &agents).await, 8, "the others wait for their turn");
    let tenant = TenantName::new("other").expect("a name");
    let name = UserName::new("bob").expect("a name");
    let call = Call::by(Principal::User { name, tenant: tenant.clone(), admin: false });
    let spec = AgentSpec { image: Some("image".into()), ..AgentSpec::default() };
    let request = CreateAgent { name: agent_name("b"), spec };
    let other = world.control.create_agent(&call, &tenant, request).await.expect("created");
    let other = world.until(&other, "looked after", waits).await;
    assert!(pulled(&other), "another tenant's turn comes at once: {other:#?}");
    let asked = tokio::time::Instant::now();
    world.control.sleep(&world.call, &world.tenant, &agents[39].name, SleepMode::Now).await.expect("asked");
    world.until(&agents[39], "slept", |a| a.status.state() == State::Slept && a.status.run.is_none()).await;
    assert!(asked.elapsed() < Duration::from_secs(10), "who waits can be put to sleep: {:?}", asked.elapsed());
    hang.release();
    for agent in &agents[..39] {
        world.until(agent, "idle", |a| a.status.state() == State::Idle).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_whose_image_is_there_waits_for_nobodys_pull() {
    let world = World::new().await;
    let image = |name: String| AgentSpec { image: Some(name), ..AgentSpec::default() };
    let had = world.idle("had", image("had".into())).await;
    let hang = world.engine.inject(Rule::new(Method::Prepare, Fault::Hang).times(8));
    for n in 0..8 {
        world.create(&format!("a{n}"), image(format!("image-{n}"))).await;
    }
    world.engine_until("pulling as many as it may", |_| hang.hits() == 8).await;
    let begun = tokio::time::Instant::now();
    // This operator has not seen it yet, and the engine has it.
    world.idle("there", image("there".into())).await;
    // And has had these.
    world.engine.crash(computer(&had), "killed");
    world.until(&had, "idle again", |a| a.status.incarnation.0 == 2 && a.status.state() == State::Idle).await;
    world.idle("default", AgentSpec::default()).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_long_for_the_turn_to_pull_has_the_time_for_the_start_all_the_same() {
    let settings = OperatorSettings { prepare_limit: Duration::from_secs(100), ..OperatorSettings::default() };
    let program = SimulatedAgent::new(act);
    let latency = Latency { prepare: Duration::from_secs(90), ..Latency::default() };
    let options = SimulatedOptions::new(Profile::Container).with_latency(latency).with_program(program.clone());
    let world = World::on(SimulatedRuntime::new(options), program, settings).await;
    let mut agents = Vec::new();
    for n in 0..17 {
        let spec = AgentSpec { image: Some(format!("image-{n}")), ..AgentSpec::default() };
        agents.push(world.create(&format!("a{n}"), spec).await);
    }
    for agent in &agents {
        let idle = world.until(agent, "idle", |a| a.status.state() == State::Idle).await;
        assert_eq!(idle.status.restarts, 0, "{idle:#?}");
    }
}
