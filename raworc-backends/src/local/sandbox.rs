//! One start of a computer, from the runtime's side: the helper, its pipes, and its end.

use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use raworc_core::runtime::{LimitsReached, RuntimeError, StartId};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::{Mutex, watch};
use tokio::time::MissedTickBehavior;

use super::cgroup::{Group, Hits};
use super::error::{At, from_io, refused};
use super::logs::Log;
use super::plan::{ASK_END, Plan, Status, Step, frame};
use super::probe;
use super::process::{self, Identity};

/// How long the helper may take until the program runs.
const START_LIMIT: Duration = Duration::from_secs(30);

/// How long the kernel may take to end what was killed.
pub(crate) const END_LIMIT: Duration = Duration::from_secs(10);

/// How long what a dead program wrote is still read.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// A start that lives.
#[derive(Debug)]
pub(crate) struct Sandbox {
    /// Its identity.
    pub(crate) start: StartId,
    /// What it writes.
    pub(crate) log: Arc<Log>,
    process: Identity,
    group: Group,
    control: Mutex<Option<ChildStdin>>,
    released: watch::Sender<bool>,
    stopping: AtomicBool,
    ended: watch::Receiver<bool>,
}

/// The helper, before its program runs.
pub(crate) struct Launch {
    /// The first stage.
    pub(crate) process: Identity,
    child: Child,
    control: ChildStdin,
    statuses: Lines<BufReader<ChildStdout>>,
    output: ChildStderr,
    inner: Option<Identity>,
    mark: String,
}

/// What looks after a start to its end.
pub(crate) struct Keeper {
    child: Child,
    statuses: Lines<BufReader<ChildStdout>>,
    output: tokio::task::JoinHandle<()>,
    inner: Option<Identity>,
    mark: String,
    group: Group,
    ended: watch::Sender<bool>,
    log: Arc<Log>,
}

impl Launch {
    /// Runs the helper, which waits for its plan.
    pub(crate) fn spawn(init: &[String], mark: String) -> Result<Self, RuntimeError> {
        let what = "run the helper";
        let (program, arguments) = init.split_first().ok_or_else(|| refused(what, "no helper is configured"))?;
        // Not killed when it is let go of: it ends by itself once its pipe is closed, and only it can end what its program
        // has begun where there is no isolation.
        let mut child = Command::new(program)
            .args(arguments)
            .arg(&mark)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .at(what, program.as_ref())?;
        let process = child.id().and_then(Identity::of);
        match (process, child.stdin.take(), child.stdout.take(), child.stderr.take()) {
            (Some(process), Some(control), Some(statuses), Some(output)) => {
                let statuses = BufReader::new(statuses).lines();
                Ok(Self { process, child, control, statuses, output, inner: None, mark })
            }
            _ => Err(RuntimeError::Unavailable("the helper ended at once".into())),
        }
    }

    /// Hands over plan and boot line.
    pub(crate) async fn brief(&mut self, plan: &Plan, boot: &str) -> Result<(), RuntimeError> {
        let what = "brief the helper";
        let plan_frame = frame(&serde_json::to_vec(plan).map_err(|error| refused(what, error.to_string()))?);
        let mut bytes = plan_frame.clone();
        if plan.isolated {
            bytes.extend(&plan_frame);
        }
        bytes.extend(frame(boot.as_bytes()));
        // A helper that failed tells why; that it does not read any more is no news then.
        match self.control.write_all(&bytes).await {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(from_io(what, "", &error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Waits for what the helper tells first of all: that the program runs, or what it sees, or why not.
    pub(crate) async fn outcome(&mut self) -> Result<Status, RuntimeError> {
        let told = tokio::time::timeout(START_LIMIT, async {
            loop {
                match next_status(&mut self.statuses).await {
                    Some(Status::Inner(pid)) => self.inner = Identity::of(pid),
                    told => return told,
                }
            }
        });
        match told.await {
            Err(_) => Err(RuntimeError::TimedOut { what: "start the program", limit: START_LIMIT }),
            Ok(None) => {
                let mut said = Vec::new();
                let rest = (&mut self.output).take(4096);
                tokio::time::timeout(DRAIN_LIMIT, { rest }.read_to_end(&mut said)).await.ok();
                Err(RuntimeError::Unavailable(format!(
                    "the helper ended without a word; it wrote: {}",
                    String::from_utf8_lossy(&said).trim()
                )))
            }
            Ok(Some(Status::Failed { step, what, reason })) => {
                let hint = match step {
                    Step::Program => String::new(),
                    Step::Plan
                    | Step::Cgroup
                    | Step::Namespaces
                    | Step::User
                    | Step::Files
                    | Step::Proc
                    | Step::Network
                    | Step::Privileges => probe::way_out(step),
                };
                Err(refused("start the computer", format!("could not {what}: {reason}{hint}")))
            }
            Ok(Some(told)) => Ok(told),
        }
    }

    /// Ends the helper and whatever it began.
    pub(crate) async fn abandon(self, group: &Group) -> Result<(), RuntimeError> {
        let Self { mut child, control, inner, mark, .. } = self;
        drop(control);
        if tokio::time::timeout(END_LIMIT, child.wait()).await.is_err() {
            child.kill().await.ok();
        }
        gone(inner.as_ref(), group, &mark).await
    }

    /// Goes over to looking after the program.
    pub(crate) fn keep(self, group: Group, log: Arc<Log>) -> (Sandbox, Keeper) {
        let Self { process, child, control, statuses, output, inner, mark } = self;
        let (ended, ended_receiver) = watch::channel(false);
        let output = tokio::spawn(copy_output(output, Arc::clone(&log)));
        let sandbox = Sandbox {
            start: process.start_id(),
            log: Arc::clone(&log),
            process,
            group: group.clone(),
            control: Mutex::new(Some(control)),
            released: watch::Sender::new(false),
            stopping: AtomicBool::new(false),
            ended: ended_receiver,
        };
        (sandbox, Keeper { child, statuses, output, inner, mark, group, ended, log })
    }
}

impl Sandbox {
    /// Which limits it has run into.
    pub(crate) fn reached(&self) -> LimitsReached {
        self.group.hits().reached()
    }

    /// Whether its end was asked for.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Asks the program to end.
    pub(crate) async fn ask_end(&self) {
        self.stopping.store(true, Ordering::Release);
        if let Some(control) = self.control.lock().await.as_mut() {
            // Where the helper is gone, the end has come already.
            control.write_all(&[ASK_END]).await.ok();
            control.flush().await.ok();
        }
    }

    /// Ends everything in it, without asking.
    pub(crate) async fn release(&self) {
        self.stopping.store(true, Ordering::Release);
        self.released.send_replace(true);
        drop(self.control.lock().await.take());
    }

    /// Ends everything in it where there is no time to wait.
    pub(crate) fn release_now(&self) {
        self.stopping.store(true, Ordering::Release);
        self.released.send_replace(true);
        match self.control.try_lock() {
            Ok(mut control) => drop(control.take()),
            Err(_) => self.kill(),
        }
    }

    /// Kills the helper, and by that everything in it.
    pub(crate) fn kill(&self) {
        self.process.kill();
    }

    /// Waits until nothing of it is left; whether that came within `limit`.
    pub(crate) async fn ended_within(&self, limit: Duration) -> bool {
        let mut ended = self.ended.clone();
        tokio::time::timeout(limit, async { ended.wait_for(|ended| *ended).await.is_ok() }).await.unwrap_or(false)
    }
}

/// How often it is looked whether a limit was reached. Control groups of version 1 have no way to tell it by themselves.
const LOOK: Duration = Duration::from_millis(500);

/// After so long processes that would not end are ended again.
const AGAIN: Duration = Duration::from_secs(1);

impl Keeper {
    /// Waits for the end, telling `reached` when a limit is; sees to it that nothing is left, and says how it ended.
    pub(crate) async fn wait(&mut self, reached: impl Fn()) -> (String, LimitsReached) {
        let mut told = None;
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut known = LimitsReached::default();
        let status = loop {
            tokio::select! {
                status = next_status(&mut self.statuses), if told.is_none() => match status {
                    Some(Status::Ended { code, signal }) => told = Some((code, signal)),
                    Some(_) => {}
                    None => break self.child.wait().await.ok(),
                },
                status = self.child.wait() => break status.ok(),
                _ = look.tick() => {
                    let now = self.group.hits().reached();
                    if now != known {
                        known = now;
                        reached();
                    }
                }
            }
        };
        while told.is_none() {
            match next_status(&mut self.statuses).await {
                Some(Status::Ended { code, signal }) => told = Some((code, signal)),
                Some(_) => {}
                None => break,
            }
        }
        let hits = self.group.hits();
        // Nobody is told of an end while something is left: the next start would live beside it.
        while let Err(error) = gone(self.inner.as_ref(), &self.group, &self.mark).await {
            tracing::error!(%error, "processes of a computer are left; trying again");
            tokio::time::sleep(AGAIN).await;
        }
        if tokio::time::timeout(DRAIN_LIMIT, &mut self.output).await.is_err() {
            self.output.abort();
        }
        self.log.close();
        (reason(told, status, hits), hits.reached())
    }

    /// Tells those who wait that nothing is left.
    pub(crate) fn tell(&self) {
        self.ended.send_replace(true);
    }
}

/// Waits until nothing is left of what process 1 and the groups held, ending it where it has to be.
async fn gone(inner: Option<&Identity>, group: &Group, mark: &str) -> Result<(), RuntimeError> {
    let deadline = tokio::time::Instant::now() + END_LIMIT;
    // Process 1 is gone only when all others of its namespace are.
    while let Some(inner) = inner.filter(|inner| inner.is_alive()) {
        if tokio::time::Instant::now() >= deadline {
            return Err(RuntimeError::TimedOut { what: "end every process", limit: END_LIMIT });
        }
        inner.kill();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    if group.is_nowhere() && inner.is_none() {
        return end_marked(mark, END_LIMIT).await;
    }
    group.end(END_LIMIT).await.map_err(|error| from_io("end every process", "", &error))
}

/// Ends every process whose mark begins so, with all below it, and waits until none is left.
pub(crate) async fn end_marked(place: &str, limit: Duration) -> Result<(), RuntimeError> {
    let deadline = tokio::time::Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    loop {
        let left = process::marked(place);
        if left.is_empty() {
            return Ok(());
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(RuntimeError::TimedOut { what: "end every process", limit });
        }
        left.iter().for_each(process::end_with_descendants);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Waits for processes whose mark begins so to end by themselves.
pub(crate) async fn marked_end(place: &str, limit: Duration) {
    let deadline = tokio::time::Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    while !process::marked(place).is_empty() && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

async fn next_status(lines: &mut Lines<BufReader<ChildStdout>>) -> Option<Status> {
    loop {
        match lines.next_line().await {
            Ok(Some(line)) => match serde_json::from_str(&line) {
                Ok(status) => return Some(status),
                Err(error) => tracing::warn!(%error, "the helper said something odd"),
            },
            Ok(None) | Err(_) => return None,
        }
    }
}

async fn copy_output(mut output: ChildStderr, log: Arc<Log>) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match output.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(length) => {
                // A full disk must not hold the program up.
                if let Err(error) = log.append(&buffer[..length]) {
                    tracing::warn!(%error, "what a program wrote is lost");
                }
            }
        }
    }
}

fn reason(told: Option<(Option<i32>, Option<i32>)>, status: Option<ExitStatus>, hits: Hits) -> String {
    let ended = match told {
        Some((Some(code), _)) => format!("exit code {code}"),
        Some((None, Some(signal))) => format!("signal {signal}"),
        Some((None, None)) | None => match status {
            Some(status) if status.success() => "ended by the runtime".into(),
            Some(_) | None => "the helper was ended from outside".into(),
        },
    };
    let by_signal = !matches!(told, Some((Some(_), _)));
    if hits.out_of_memory > 0 && (by_signal || told.is_some_and(|(code, _)| code != Some(0))) {
        return format!("out of memory ({ended})");
    }
    if hits.out_of_pids > 0 {
        return format!("{ended}; the limit on processes was reached {} times", hits.out_of_pids);
    }
    ended
}
