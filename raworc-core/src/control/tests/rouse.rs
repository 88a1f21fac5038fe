//! Calls that need a computer, where none comes up.

use super::super::SleepMode;
use super::*;
use crate::error::Error;
use crate::principal::Action;
use crate::runtime::RuntimeError;
use crate::runtime::simulated::{Fault, Method, Rule, SetupAct};

const LIMIT: Duration = Duration::from_secs(150);

impl World {
    async fn rouse(&self, agent: &Agent) -> Result<Agent, Error> {
        self.control.rouse(&self.call, &self.tenant, &agent.name, Action::Exec, true, LIMIT).await
    }
}

/// The reason of a start that failed.
fn reason(roused: Result<Agent, Error>) -> String {
    let error = roused.expect_err("it does not come up");
    assert!(error.to_string().contains("wake --retry"), "{error}");
    match error {
        Error::StartFailed { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_is_told_at_once_of_a_setup_that_failed_and_comes_through_after_a_retry() {
    let works = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let working = Arc::clone(&works);
    let program = SimulatedAgent::echo().with_setup(move |_| {
        let works = working.load(std::sync::atomic::Ordering::Relaxed);
        if works { SetupAct::Succeed } else { SetupAct::Fail("no such package".into()) }
    });
    let world = World::with(program).await;
    let spec = AgentSpec { setup: Some("apt-get install nothing".into()), ..AgentSpec::default() };
    let agent = world.create("a", spec).await;
    let begun = tokio::time::Instant::now();
    assert_eq!(reason(world.rouse(&agent).await), "SetupFailed");
    assert_eq!(reason(world.rouse(&agent).await), "SetupFailed");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    works.store(true, std::sync::atomic::Ordering::Relaxed);
    world.control.wake(&world.call, &world.tenant, &agent.name, true).await.expect("asked");
    assert!(world.rouse(&agent).await.expect("it is up").status.state().is_up());
}

#[tokio::test(start_paused = true)]
async fn a_call_is_told_at_once_of_an_image_that_is_missing() {
    let world = World::new().await;
    world.engine.lose_image("ghost", "not found in any registry");
    let agent = world.create("a", AgentSpec { image: Some("ghost".into()), ..AgentSpec::default() }).await;
    let begun = tokio::time::Instant::now();
    assert_eq!(reason(world.rouse(&agent).await), "ImageMissing");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_out_one_failure_of_an_engine_and_not_one_after_another() {
    let world = World::new().await;
    let away = || Fault::Fail(RuntimeError::Unavailable("restarting".into()));
    world.engine.inject(Rule::new(Method::Start, away()).times(1));
    let agent = world.create("a", AgentSpec::default()).await;
    assert!(world.rouse(&agent).await.expect("it is up").status.state().is_up());

    world.engine.inject(Rule::new(Method::Start, away()));
    let agent = world.create("b", AgentSpec::default()).await;
    let begun = tokio::time::Instant::now();
    assert_eq!(reason(world.rouse(&agent).await), "EngineUnavailable");
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_as_soon_as_its_agent_is_deleted_or_put_to_sleep() {
    let world = World::new().await;
    world.engine.inject(Rule::new(Method::Start, Fault::Hang));
    let (deleted, slept) =
        (world.create("a", AgentSpec::default()).await, world.create("b", AgentSpec::default()).await);
    let begun = tokio::time::Instant::now();
    let delete = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.control.delete(&world.call, &world.tenant, &deleted.name).await.expect("asked");
        world.control.sleep(&world.call, &world.tenant, &slept.name, SleepMode::Now).await.expect("asked");
    };
    let (gone, asleep, ()) = tokio::join!(world.rouse(&deleted), world.rouse(&slept), delete);
    assert!(matches!(gone, Err(Error::NotFound { .. })), "{gone:?}");
    assert!(matches!(asleep, Err(Error::AgentAsleep(_))), "{asleep:?}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}
