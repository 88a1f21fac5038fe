//! An agent's program without a computer: it calls the control plane in this process, as the real one does over the
//! link, and does what its messages say.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use secrecy::ExposeSecret;

use super::program::{Exit, Inside, SimulatedProgram};
use crate::control::{Call, ControlPlane};
use crate::entropy::{Clock, EntropyExt, SystemClock, SystemEntropy};
use crate::error::Error;
use crate::ids::CommitId;
use crate::message::{Message, Part};
use crate::program::{
    BootRequest, EndReport, HEARTBEAT_SECONDS, LeaseReply, PROTOCOL, ReadyReport, SetupReport, SetupTask, StepsReport,
};
use crate::step::{NewStep, StepKind};
use crate::store::Ending;

/// What the program does with a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Answers at once.
    Answer(String),
    /// Works for so long, then answers. It obeys a cancel.
    Work(Duration, String),
    /// Fails with this reason.
    Fail(String),
    /// Works for ever and obeys no cancel.
    Hang,
    /// Falls dead.
    Crash,
    /// Lives on, and is not heard any more.
    FallSilent,
}

/// How a setup script comes out: what stands for running it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetupAct {
    /// Well.
    Succeed,
    /// With this output.
    Fail(String),
    /// Never.
    Hang,
}

type Acting = dyn Fn(&Message) -> Act + Send + Sync;
type Logging = dyn Fn(&Message) -> String + Send + Sync;
type Preparing = dyn Fn(&SetupTask) -> SetupAct + Send + Sync;

/// A program that serves an agent from inside this process.
#[derive(Clone)]
pub struct SimulatedAgent {
    control: Arc<OnceLock<ControlPlane>>,
    act: Arc<Acting>,
    log: Arc<Logging>,
    prepare: Arc<Preparing>,
}

impl fmt::Debug for SimulatedAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedAgent").field("connected", &self.control.get().is_some()).finish_non_exhaustive()
    }
}

impl SimulatedAgent {
    /// A program that does with each message what `act` says. It waits for [`connect`](Self::connect).
    pub fn new(act: impl Fn(&Message) -> Act + Send + Sync + 'static) -> Self {
        Self {
            control: Arc::default(),
            act: Arc::new(act),
            log: Arc::new(|_| String::new()),
            prepare: Arc::new(|_| SetupAct::Succeed),
        }
    }

    /// A program that answers every message with its own text.
    #[must_use]
    pub fn echo() -> Self {
        Self::new(|message| Act::Answer(message.text()))
    }

    /// With setup scripts that come out so.
    #[must_use]
    pub fn with_setup(mut self, prepare: impl Fn(&SetupTask) -> SetupAct + Send + Sync + 'static) -> Self {
        self.prepare = Arc::new(prepare);
        self
    }

    /// That writes this to its log when it takes a message.
    #[must_use]
    pub fn with_log(mut self, log: impl Fn(&Message) -> String + Send + Sync + 'static) -> Self {
        self.log = Arc::new(log);
        self
    }

    /// The control plane that it calls from now on.
    pub fn connect(&self, control: &ControlPlane) {
        // A second connection is the same control plane again.
        let _ = self.control.set(control.clone());
    }

    async fn serve(&self, inside: &Inside) -> Result<Exit, Error> {
        let (Some(boot), Some(control)) = (inside.boot().await, self.control.get()) else {
            return Ok(Exit(1));
        };
        let request = BootRequest {
            computer: boot.computer,
            incarnation: boot.incarnation,
            key: boot.key.expose_secret().into(),
            protocol: PROTOCOL,
        };
        let call = Call::by(control.boot(&request).await?.principal);
        let beats = heartbeats(control, &call);
        let work = self.work(inside, control, &call);
        tokio::select! {
            over = work => match over? {
                Some(exit) => Ok(exit),
                None => {
                    inside.stop_asked().await;
                    Ok(Exit(0))
                }
            },
            error = beats => Err(error),
        }
    }

    /// Until the program is over: with its exit, or without one where it only is not heard any more.
    async fn work(&self, inside: &Inside, control: &ControlPlane, call: &Call) -> Result<Option<Exit>, Error> {
        let spec = control.program_spec(call).await?;
        let setup = match &spec.setup {
            None => None,
            Some(task) => {
                let failure = match (self.prepare)(task) {
                    SetupAct::Succeed => None,
                    SetupAct::Fail(output) => Some(output),
                    SetupAct::Hang => std::future::pending().await,
                };
                Some(SetupReport { hash: task.hash.clone(), failure })
            }
        };
        control.ready(call, ReadyReport { setup }).await?;
        loop {
            let Some(lease) = control.lease(call, Duration::from_secs(20)).await? else { continue };
            inside.log((self.log)(&lease.message));
            inside.append("/agent/messages", format!("{}\n", lease.message.text()).as_bytes());
            match (self.act)(&lease.message) {
                Act::Answer(text) => end(control, call, &lease, Ending::Done, Some(text)).await?,
                Act::Fail(reason) => end(control, call, &lease, Ending::Failed { reason }, None).await?,
                Act::Work(time, text) => {
                    let steps = vec![NewStep { kind: StepKind::Log, tool: None, text: "working".into() }];
                    let report = StepsReport { commit: commit_id(), message: Some(lease.message.id), steps };
                    control.add_steps(call, report).await?;
                    tokio::select! {
                        () = tokio::time::sleep(time) => end(control, call, &lease, Ending::Done, Some(text)).await?,
                        () = cancelled(control, call) => end(control, call, &lease, Ending::Cancelled, None).await?,
                    }
                }
                Act::Hang => std::future::pending().await,
                Act::Crash => return Ok(Some(Exit(137))),
                Act::FallSilent => return Ok(None),
            }
        }
    }
}

fn commit_id() -> CommitId {
    SystemEntropy.commit_id(SystemClock.now())
}

async fn heartbeats(control: &ControlPlane, call: &Call) -> Error {
    loop {
        tokio::time::sleep(Duration::from_secs(HEARTBEAT_SECONDS)).await;
        if let Err(error) = control.heartbeat(call).await
            && !error.is_retryable()
        {
            return error;
        }
    }
}

async fn cancelled(control: &ControlPlane, call: &Call) {
    loop {
        if let Ok(beat) = control.heartbeat(call).await
            && beat.cancel.is_some()
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn end(
    control: &ControlPlane,
    call: &Call,
    lease: &LeaseReply,
    ending: Ending,
    reply: Option<String>,
) -> Result<(), Error> {
    let reply = reply.map(|text| vec![Part::text(text)]);
    let report = EndReport { commit: commit_id(), message: lease.message.id, ending, reply, steps: Vec::new() };
    control.end(call, report).await.map(drop)
}

#[async_trait]
impl SimulatedProgram for SimulatedAgent {
    async fn run(&self, inside: Inside) -> Exit {
        let served = tokio::select! {
            served = self.serve(&inside) => served,
            () = inside.stop_asked() => return Exit(0),
        };
        match served {
            Ok(exit) => exit,
            Err(error) => {
                inside.log(format!("{error}\n"));
                Exit(1)
            }
        }
    }
}
