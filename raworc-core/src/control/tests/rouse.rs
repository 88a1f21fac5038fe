//! Calls that need a computer, where none comes up.

use super::super::{Errand, SleepMode};
use super::*;
use crate::error::Error;
use crate::runtime::RuntimeError;
use crate::runtime::simulated::{Fault, Method, Rule, SetupAct};

const LIMIT: Duration = Duration::from_secs(150);

impl World {
    async fn rouse(&self, agent: &Agent) -> Result<Agent, Error> {
        self.control.rouse(&self.call, &self.tenant, &agent.name, &mut Errand::look(true, LIMIT)).await
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
async fn a_call_is_told_at_once_of_an_image_or_a_volume_that_is_missing_or_of_an_image_that_cannot_run_the_program() {
    let world = World::new().await;
    world.engine.lose_image("ghost", "not found in any registry");
    let agent = world.create("a", AgentSpec { image: Some("ghost".into()), ..AgentSpec::default() }).await;
    let begun = tokio::time::Instant::now();
    assert_eq!(reason(world.rouse(&agent).await), "ImageMissing");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    world.engine.make_unfit("bare", "no C library");
    let agent = world.create("b", AgentSpec { image: Some("bare".into()), ..AgentSpec::default() }).await;
    let begun = tokio::time::Instant::now();
    assert_eq!(reason(world.rouse(&agent).await), "ProgramUnfit");
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
    let agent = world.idle("c", AgentSpec::default()).await;
    world.control.sleep(&world.call, &world.tenant, &agent.name, SleepMode::Now).await.expect("asked");
    let stopped = |a: &Agent| a.status.state() == State::Slept && a.status.run.is_none();
    world.until(&agent, "stopped", stopped).await;
    world.engine.volumes().into_iter().for_each(|volume| world.engine.lose_volume(volume));
    let begun = tokio::time::Instant::now();
    assert_eq!(reason(world.rouse(&agent).await), "VolumeMissing");
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
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

#[tokio::test(start_paused = true)]
async fn a_change_that_wakes_its_agent_twice_is_one_row() {
    use crate::store::AuditQuery;
    let world = World::new().await;
    let agent = world.idle("a", AgentSpec::default()).await;
    let rows = async || {
        let query = AuditQuery { tenant: None, after: None, limit: 500 };
        let page = world.store.audit(&query).await.expect("read");
        page.items.into_iter().map(|row| (row.entry.verb, row.entry.resource)).collect::<Vec<_>>()
    };
    let before = rows().await.len();
    let mut errand = Errand::change("files.write", true, LIMIT);
    for _ in 0..2 {
        world.control.sleep(&world.call, &world.tenant, &agent.name, SleepMode::Now).await.expect("asked");
        world.until(&agent, "slept", |agent| agent.status.state() == State::Slept).await;
        world.control.rouse(&world.call, &world.tenant, &agent.name, &mut errand).await.expect("it is up");
    }
    let row = |verb: &str| (verb.to_owned(), "a".to_owned());
    assert_eq!(rows().await.split_off(before), [row("agents.sleep"), row("files.write"), row("agents.sleep")]);

    let mut look = Errand::look(true, LIMIT);
    world.control.rouse(&world.call, &world.tenant, &agent.name, &mut look).await.expect("it is up");
    assert_eq!(rows().await.len(), before + 3, "a look at what is up is none");
    world.control.sleep(&world.call, &world.tenant, &agent.name, SleepMode::Now).await.expect("asked");
    world.until(&agent, "slept", |agent| agent.status.state() == State::Slept).await;
    world.control.rouse(&world.call, &world.tenant, &agent.name, &mut look).await.expect("it is up");
    assert_eq!(rows().await.pop(), Some(row("agents.wake")), "and one that wakes has changed that");
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_as_long_as_there_is_time_is_answered_too() {
    let world = World::new().await;
    let agent = world.create("a", AgentSpec::default()).await;
    let look = &mut Errand::look(true, Duration::MAX);
    world.control.rouse(&world.call, &world.tenant, &agent.name, look).await.expect("it is up");
    let request = crate::control::SendMessage::text("hello");
    let answered = world.control.ask(&world.call, &world.tenant, &agent.name, request, Duration::MAX).await;
    assert_eq!(answered.expect("answered").reply.expect("a reply").text(), "hello");
}
