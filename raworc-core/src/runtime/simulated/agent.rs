//! An agent's program without a computer: it calls control planes in this process, as the real one does over the link,
//! does what its messages say, and says again what got no answer.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use secrecy::ExposeSecret;

use super::program::{Exit, Inside, SimulatedProgram};
use super::uplink::{Direct, Uplink, unreachable};
use crate::control::{Call, ControlPlane};
use crate::entropy::{Clock, Entropy, EntropyExt, SystemClock, SystemEntropy};
use crate::error::Error;
use crate::ids::{CommitId, Incarnation};
use crate::message::{Message, Part};
use crate::program::{
    BootRequest, EndReport, HEARTBEAT_SECONDS, HeartbeatReply, HeartbeatReport, LeaseReply, PROTOCOL, ProgramSpec,
    SetupReport, SetupTask, StepsReport,
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
    /// Leaves a file of so many bytes on the volume, in the place of the one that it left before, then answers.
    Fill(u64, String),
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

/// The file that a program leaves where it is told to fill its volume.
pub(crate) const HEAP: &str = "/agent/heap";

/// The longest pause before a call is made again.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A program that serves an agent from inside this process.
#[derive(Clone)]
pub struct SimulatedAgent {
    uplink: Arc<OnceLock<Arc<dyn Uplink>>>,
    act: Arc<Acting>,
    log: Arc<Logging>,
    prepare: Arc<Preparing>,
    entropy: Arc<dyn Entropy>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for SimulatedAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedAgent").field("connected", &self.uplink.get().is_some()).finish_non_exhaustive()
    }
}

impl SimulatedAgent {
    /// A program that does with each message what `act` says. It waits for [`connect`](Self::connect).
    pub fn new(act: impl Fn(&Message) -> Act + Send + Sync + 'static) -> Self {
        Self {
            uplink: Arc::default(),
            act: Arc::new(act),
            log: Arc::new(|_| String::new()),
            prepare: Arc::new(|_| SetupAct::Succeed),
            entropy: Arc::new(SystemEntropy),
            clock: Arc::new(SystemClock),
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

    /// With ids and pauses that come from these.
    #[must_use]
    pub fn with_chance(mut self, entropy: Arc<dyn Entropy>, clock: Arc<dyn Clock>) -> Self {
        self.entropy = entropy;
        self.clock = clock;
        self
    }

    /// The control plane that it calls from now on.
    pub fn connect(&self, control: &ControlPlane) {
        self.connect_by(Arc::new(Direct(control.clone())));
    }

    /// The way by which it calls control planes from now on.
    pub fn connect_by(&self, uplink: Arc<dyn Uplink>) {
        // A second connection is the same control plane again.
        let _ = self.uplink.set(uplink);
    }

    async fn serve(&self, inside: &Inside) -> Result<Exit, Error> {
        let (Some(boot), Some(uplink)) = (inside.boot().await, self.uplink.get()) else {
            return Ok(Exit(1));
        };
        let session = Session { program: self, inside, uplink, incarnation: boot.incarnation };
        let booted = session.persist(|control| {
            let request = BootRequest {
                computer: boot.computer,
                incarnation: boot.incarnation,
                key: boot.key.expose_secret().into(),
                protocol: PROTOCOL,
            };
            async move { control.boot(&request).await }
        });
        let booted = booted.await?;
        let call = Call::by(booted.principal);
        tokio::select! {
            biased;
            over = session.work(&call, &booted.spec) => match over? {
                Some(exit) => Ok(exit),
                None => {
                    inside.stop_asked().await;
                    Ok(Exit(0))
                }
            },
            error = session.heartbeats(&call) => Err(error),
        }
    }
}

/// One start of the program.
struct Session<'a> {
    program: &'a SimulatedAgent,
    inside: &'a Inside,
    uplink: &'a Arc<dyn Uplink>,
    incarnation: Incarnation,
}

impl Session<'_> {
    /// Until the program is over: with its exit, or without one where it only is not heard any more.
    async fn work(&self, call: &Call, spec: &ProgramSpec) -> Result<Option<Exit>, Error> {
        if let Some(task) = &spec.setup {
            let failure = match (self.program.prepare)(task) {
                SetupAct::Succeed => None,
                SetupAct::Fail(output) => Some(output),
                SetupAct::Hang => std::future::pending().await,
            };
            let report = SetupReport { hash: task.hash.clone(), failure };
            self.persist(|control| {
                let report = report.clone();
                async move { control.end_setup(call, report).await }
            })
            .await?;
        }
        if spec.disk_limit.is_some() {
            self.persist(|control| self.beat(control, call)).await?;
        }
        loop {
            let wait = Duration::from_secs(20);
            let lease = self.persist(|control| async move { control.lease(call, wait).await }).await?;
            let Some(lease) = lease else { continue };
            self.inside.log((self.program.log)(&lease.message));
            self.inside.append("/agent/messages", format!("{}\n", lease.message.text()).as_bytes());
            match (self.program.act)(&lease.message) {
                Act::Answer(text) => self.end(call, &lease, Ending::Done, Some(text)).await?,
                Act::Fail(reason) => self.end(call, &lease, Ending::Failed { reason }, None).await?,
                Act::Work(time, text) => {
                    let steps = vec![NewStep { kind: StepKind::Log, tool: None, text: "working".into() }];
                    let report = StepsReport { commit: self.commit_id(), message: Some(lease.message.id), steps };
                    let tell = |control: ControlPlane| {
                        let report = report.clone();
                        async move { control.add_steps(call, report).await }
                    };
                    self.persist(tell).await?;
                    tokio::select! {
                        biased;
                        () = self.cancelled(call) => self.end(call, &lease, Ending::Cancelled, None).await?,
                        () = tokio::time::sleep(time) => self.end(call, &lease, Ending::Done, Some(text)).await?,
                    }
                }
                Act::Hang => std::future::pending().await,
                Act::Crash => return Ok(Some(Exit(137))),
                Act::FallSilent => return Ok(None),
                Act::Fill(bytes, text) => {
                    // Zeros that nobody reads take no memory.
                    self.inside.write(HEAP, vec![0; usize::try_from(bytes).unwrap_or_default()]);
                    self.end(call, &lease, Ending::Done, Some(text)).await?;
                    self.persist(|control| self.beat(control, call)).await?;
                }
            }
        }
    }

    fn commit_id(&self) -> CommitId {
        self.program.entropy.commit_id(self.program.clock.now())
    }

    /// Makes a call once, by whichever server answers.
    async fn ask<T, F>(&self, call: impl Fn(ControlPlane) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let computer = self.inside.computer();
        let answer = match self.uplink.dial(computer).await {
            Some(line) => line.carry((computer, self.incarnation), call).await,
            None => Err(unreachable("no server answers")),
        };
        self.uplink.hear(computer).await;
        answer
    }

    /// Makes a call again and again until it is answered.
    async fn persist<T, F>(&self, call: impl Fn(ControlPlane) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut pause = Duration::from_millis(50);
        loop {
            match self.ask(&call).await {
                Err(error) if error.is_retryable() => {
                    tokio::time::sleep(self.program.entropy.jitter(pause)).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                answer => return answer,
            }
        }
    }

    /// Says that it lives, and what its volume holds at this moment.
    async fn beat(&self, control: ControlPlane, call: &Call) -> Result<HeartbeatReply, Error> {
        let report = HeartbeatReport { disk_used: Some(self.inside.disk_used()) };
        control.heartbeat(call, Some(report)).await
    }

    async fn heartbeats(&self, call: &Call) -> Error {
        loop {
            tokio::time::sleep(Duration::from_secs(HEARTBEAT_SECONDS)).await;
            if let Err(error) = self.ask(|control| self.beat(control, call)).await
                && !error.is_retryable()
            {
                return error;
            }
        }
    }

    async fn cancelled(&self, call: &Call) {
        loop {
            if let Ok(beat) = self.ask(|control| self.beat(control, call)).await
                && beat.cancel.is_some()
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn end(&self, call: &Call, lease: &LeaseReply, ending: Ending, reply: Option<String>) -> Result<(), Error> {
        let reply = reply.map(|text| vec![Part::text(text)]);
        let report =
            EndReport { commit: self.commit_id(), message: lease.message.id, ending, reply, steps: Vec::new() };
        let tell = |control: ControlPlane| {
            let report = report.clone();
            async move { control.end(call, report).await.map(drop) }
        };
        self.persist(tell).await
    }
}

#[async_trait]
impl SimulatedProgram for SimulatedAgent {
    async fn run(&self, inside: Inside) -> Exit {
        let served = tokio::select! {
            biased;
            () = inside.stop_asked() => return Exit(0),
            served = self.serve(&inside) => served,
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
