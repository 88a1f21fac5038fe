//! Several processes on one store: what they know of each other's runtimes, and of each other.

use std::sync::Arc;
use std::time::Duration;

use super::World;
use crate::agent::AgentSpec;
use crate::control::{ControlPlane, CreateAgent, Parts, Presence};
use crate::error::Error;
use crate::ids::{AgentName, RuntimeName};
use crate::message::Message;
use crate::operator::{Operator, OperatorSettings};
use crate::runtime::simulated::{Act, SimulatedAgent, SimulatedOptions, SimulatedRuntime};
use crate::runtime::{LogsOptions, Runtimes};
use crate::store::Store;

fn named(names: &[&str]) -> Runtimes {
    names.iter().fold(Runtimes::new(), |runtimes, name| {
        let options = SimulatedOptions::default().with_name(RuntimeName::new(*name).expect("a name"));
        runtimes.with(Arc::new(SimulatedRuntime::new(options)), "unix:/nowhere", None)
    })
}

/// Another process on the same store, with these engines.
async fn process(world: &World, runtimes: Runtimes, presence: Presence) -> ControlPlane {
    let parts = Parts { runtimes, presence, ..world.parts.clone() };
    ControlPlane::start(parts).await.expect("a process")
}

fn known(control: &ControlPlane) -> Vec<String> {
    control.runtimes().iter().map(|(name, _)| name.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_server_without_engines_learns_of_those_of_operators() {
    let world = World::new().await;
    let server = process(&world, Runtimes::new(), Presence::default()).await;
    assert_eq!(known(&server), [""; 0]);
    let create = |name: &str, runtime: Option<&str>| {
        let spec =
            AgentSpec { runtime: runtime.map(|name| RuntimeName::new(name).expect("a name")), ..Default::default() };
        let request = CreateAgent { name: AgentName::new(name).expect("a name"), spec };
        let (server, world) = (&server, &world);
        async move { server.create_agent(&world.call, &world.tenant, request).await }
    };
    let refused = create("early", None).await.expect_err("nobody could make its computer");
    assert!(refused.to_string().contains("raworc operator"), "{refused}");

    let operator = process(&world, named(&["second", "first"]), Presence::apart()).await;
    operator.system().publish_runtimes().await.expect("told");
    tokio::time::sleep(Duration::from_secs(1)).await;
    // The operator's own first one is the default.
    assert_eq!(known(&server), ["second", "first"]);
    let made = create("a", None).await.expect("made");
    assert_eq!(made.spec.runtime.as_ref().map(RuntimeName::as_str), Some("second"));
    create("b", Some("first")).await.expect("made");
    let refused = create("c", Some("third")).await.expect_err("there is no such runtime");
    assert!(refused.to_string().contains(r#"["second", "first"]"#), "{refused}");

    // What is told once more is written once.
    let head = world.store.head().await.expect("a store").value;
    operator.system().publish_runtimes().await.expect("told");
    assert_eq!(world.store.head().await.expect("a store").value, head);
    // A process that begins later knows it from the first moment on, and what it has itself goes before.
    let mut settings = world.parts.settings.clone();
    settings.default_runtime = Some(RuntimeName::new("first").expect("a name"));
    let parts = Parts { runtimes: named(&["own"]), settings, ..world.parts.clone() };
    assert_eq!(known(&ControlPlane::start(parts).await.expect("a process")), ["first", "own", "second"]);
}

#[tokio::test(start_paused = true)]
async fn two_engines_of_one_name_are_refused_while_the_first_has_an_operator() {
    let world = World::new().await;
    let name = RuntimeName::new("docker").expect("a name");
    let of = |engine: &str| named(&["docker"]).of_engine(&name, engine);
    let first = process(&world, of("one"), Presence::apart()).await;
    first.system().publish_runtimes().await.expect("told");
    let operator = Operator::start(&first, of("one"), OperatorSettings::default()).await.expect("an operator");
    // Another operator of the same engine, and one whose engine does not answer now.
    process(&world, of("one"), Presence::apart()).await.system().publish_runtimes().await.expect("the same");
    process(&world, named(&["docker"]), Presence::apart()).await.system().publish_runtimes().await.expect("unknown");

    let second = process(&world, of("two"), Presence::apart()).await;
    let refused = second.system().publish_runtimes().await.expect_err("it is another one");
    assert!(matches!(refused, Error::Invalid { .. }), "{refused:?}");
    let told = refused.to_string();
    assert!(told.contains("docker") && told.contains("one") && told.contains("two"), "{told}");
    // An engine that was set up anew is the one, once nobody works with the old one any more.
    operator.shutdown().await;
    second.system().publish_runtimes().await.expect("told");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_nobody_looks_after_says_so() {
    let world = World::new().await;
    let agent = world.idle("a", AgentSpec::default()).await;
    let because = async |control: &ControlPlane| {
        let told = control.explain(&world.call, &world.tenant, &agent.name).await.expect("explained");
        told.because.join("\n")
    };
    let server = process(&world, Runtimes::new(), Presence::default()).await;
    let other = process(&world, named(&["other"]), Presence::default()).await;
    for control in [&world.control, &server, &other] {
        assert!(!because(control).await.contains("runtime"), "an operator looks after it");
    }
    world.operator.shutdown().await;
    let told = because(&server).await;
    assert!(told.contains("no operator looks after the runtime simulated now"), "{told}");
    let told = because(&other).await;
    assert!(told.contains("does not have the runtime simulated"), "{told}");
    assert!(!because(&world.control).await.contains("runtime"), "this process has its engine");
}

#[tokio::test(start_paused = true)]
async fn processes_find_each_other_by_their_signs_of_life() {
    let world = World::new().await;
    let at = |address: &str| Presence::default().at(address);
    let first = process(&world, Runtimes::new(), at("one.example:9002")).await;
    let second = process(&world, Runtimes::new(), at("10.0.0.2:9002")).await;
    let operator = process(&world, named(&["docker"]), Presence::apart().at("[fd00::1]:9002")).await;
    let running =
        Operator::start(&operator, named(&["docker"]), OperatorSettings::default()).await.expect("an operator");
    let servers = async |of: &ControlPlane| {
        let found = of.system().other_servers().await.expect("a store");
        let mut found: Vec<_> = found.into_iter().map(|peer| peer.address).collect();
        found.sort_unstable();
        found
    };
    // The first process of this world can be called by nobody, and an operator is no server.
    assert_eq!(servers(&first).await, ["10.0.0.2:9002"]);
    assert_eq!(servers(&second).await, ["one.example:9002"]);
    assert_eq!(servers(&operator).await, ["10.0.0.2:9002", "one.example:9002"]);
    let docker = RuntimeName::new("docker").expect("a name");
    let found = first.system().other_operators(&docker).await.expect("a store");
    assert_eq!(found.iter().map(|peer| peer.address.as_str()).collect::<Vec<_>>(), ["[fd00::1]:9002"]);
    let elsewhere = RuntimeName::new("dock").expect("a name");
    assert_eq!(first.system().other_operators(&elsewhere).await.expect("a store"), []);

    drop(second);
    tokio::time::sleep(Duration::from_secs(16)).await;
    assert_eq!(servers(&first).await, [""; 0], "its last sign has run out");
    running.shutdown().await;
    assert_eq!(first.system().other_operators(&docker).await.expect("a store"), []);
}

#[tokio::test(start_paused = true)]
async fn an_engines_log_is_read_where_the_engine_is() {
    let program = SimulatedAgent::new(|message| Act::Answer(message.text())).with_log(Message::text);
    let world = World::with(program).await;
    let agent = world.idle("a", AgentSpec::default()).await;
    let computer = agent.status.computer.expect("a computer");
    let message = world.send(&agent, "what it wrote").await;
    world.ended(&agent, &message).await;
    let (runtime, options) = (RuntimeName::simulated(), LogsOptions::default());
    assert!(world.control.system().engine_log(&runtime, computer, options).await.is_some());
    let server = process(&world, Runtimes::new(), Presence::default()).await;
    assert!(server.system().engine_log(&runtime, computer, options).await.is_none());
    let Err(missing) = server.stopped_log(&world.call, &world.tenant, &agent.name, options).await else {
        panic!("nobody was asked")
    };
    assert!(matches!(missing, Error::NotFound { .. }), "{missing:?}");
}
