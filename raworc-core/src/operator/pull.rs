//! Has the image of a computer, before that is made: so many pulls at one time, and so many of one tenant's.

use std::time::Duration;

use tokio::time::Instant;

use super::calls::{Cut, caught, record, unless_stopped};
use super::gate::Pass;
use super::start::still_wanted;
use super::{Engine, Shared};
use crate::agent::{Agent, ConditionKind};
use crate::computer::Computer;
use crate::runtime::{Progress, RuntimeError};
use crate::store::AgentOp;

/// How long an image may take before people are told that it is being pulled.
const PREPARE_QUIET: Duration = Duration::from_secs(1);

/// Sees to it that the image is there.
pub(super) async fn prepare(shared: &Shared, engine: &Engine, agent: &Agent, computer: &Computer) -> Result<(), Cut> {
    let image = computer.spec.image.as_deref();
    match pull_turn(shared, engine, agent, image).await? {
        Turn::Needless => {}
        Turn::Come { _pass, waited } => pull(shared, engine, agent, image, waited).await?,
    }
    engine.note_image(image);
    Ok(())
}

/// Has the image pulled. Where that takes long, people are told, and the start has longer.
async fn pull(shared: &Shared, engine: &Engine, agent: &Agent, image: Option<&str>, waited: bool) -> Result<(), Cut> {
    let (progress, mut told) = tokio::sync::watch::channel(None::<Progress>);
    let limit = shared.settings.prepare_limit;
    let tell = move |now: Progress| {
        progress.send_replace(Some(now));
    };
    let pull = tokio::time::timeout(limit, caught("have the image", engine.entry.runtime.prepare(image, &tell)));
    tokio::pin!(pull);
    let timed_out = |_| Err(RuntimeError::TimedOut { what: "have the image", limit });
    if let Ok(done) = unless_stopped(shared, tokio::time::timeout(PREPARE_QUIET, &mut pull)).await? {
        if waited {
            record(shared, agent, vec![AgentOp::Extend { deadline: shared.settings.start_limit }]).await;
        }
        return Ok(done.unwrap_or_else(timed_out)?);
    }
    record(shared, agent, vec![AgentOp::Extend { deadline: limit }]).await;
    let done = loop {
        // Nobody waits for an image that nobody wants any more.
        still_wanted(shared, agent).await?;
        let message = told.borrow_and_update().as_ref().map_or_else(|| "is being pulled".into(), ToString::to_string);
        record(shared, agent, vec![pulling(image, &message)]).await;
        let pause = tokio::time::timeout(Duration::from_secs(2), &mut pull);
        if let Ok(done) = unless_stopped(shared, pause).await? {
            break done.unwrap_or_else(timed_out);
        }
    };
    record(shared, agent, vec![AgentOp::Extend { deadline: shared.settings.start_limit }]).await;
    Ok(done?)
}

/// The turn to have an image pulled.
enum Turn {
    /// The image is there.
    Needless,
    /// It is this agent's, after a wait that people were told of or without one.
    Come { _pass: Pass, waited: bool },
}

/// Waits for the turn to have an image pulled, as long as that may take. Meanwhile the engine is asked once whether it has the
/// image: then nobody's pull is waited for. Of one that it has had it is asked before that.
async fn pull_turn(shared: &Shared, engine: &Engine, agent: &Agent, image: Option<&str>) -> Result<Turn, Cut> {
    if let Some(there) = unless_stopped(shared, is_still_there(engine, agent, image)).await? {
        return Ok(there.map(|()| Turn::Needless)?);
    }
    let pass = engine.pulls.enter(&agent.tenant);
    let there = async {
        let _pass = engine.asks.enter(&agent.tenant).await;
        is_there(engine, image).await
    };
    tokio::pin!(pass, there);
    let (mut asking, mut told) = (true, None::<Instant>);
    loop {
        let quiet = if told.is_some() { Duration::from_secs(2) } else { PREPARE_QUIET };
        let news = async {
            tokio::select! {
                biased;
                pass = &mut pass => Some(Ok(Turn::Come { _pass: pass, waited: told.is_some() })),
                there = &mut there, if asking => {
                    asking = false;
                    there.map(|there| there.map(|()| Turn::Needless))
                }
                () = tokio::time::sleep(quiet) => None,
            }
        };
        match unless_stopped(shared, news).await? {
            Some(Ok(Turn::Needless)) if told.is_some() => {
                record(shared, agent, vec![AgentOp::Extend { deadline: shared.settings.start_limit }]).await;
                return Ok(Turn::Needless);
            }
            Some(turn) => return Ok(turn?),
            None => {}
        }
        still_wanted(shared, agent).await?;
        let deadline = shared.settings.prepare_limit;
        // The time for that is not the program's.
        if told.is_none_or(|told| told.elapsed() > deadline / 4) {
            told = Some(Instant::now());
            let waits = [AgentOp::Extend { deadline }, pulling(image, "waits for other images")];
            record(shared, agent, waits.into()).await;
        }
    }
}

/// Asks for an image that the engine has had. One that was removed since is as any other, for whoever wants it next as well.
async fn is_still_there(engine: &Engine, agent: &Agent, image: Option<&str>) -> Option<Result<(), RuntimeError>> {
    if !engine.has_had(image) {
        return None;
    }
    let _pass = engine.had.enter(&agent.tenant).await;
    // Whoever asked before may have found that it is gone.
    let there = if engine.has_had(image) { is_there(engine, image).await } else { None };
    if there.is_none() {
        engine.forget_image(image);
    }
    there
}

/// Asks the engine for an image in passing. What it does not answer at once is given up: the image has to be pulled.
async fn is_there(engine: &Engine, image: Option<&str>) -> Option<Result<(), RuntimeError>> {
    let asked = caught("have the image", engine.entry.runtime.prepare(image, &|_| ()));
    tokio::time::timeout(PREPARE_QUIET, asked).await.ok()
}

fn pulling(image: Option<&str>, what: &str) -> AgentOp {
    AgentOp::SetCondition {
        kind: ConditionKind::Ready,
        status: false,
        reason: "ImagePulling".into(),
        message: format!("image {}: {what}", image.unwrap_or("(default)")),
    }
}
