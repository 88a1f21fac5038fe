//! The program from its start to its end.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use raworc_core::entropy::{Clock, SystemClock};
use raworc_core::program::{BootReply, HEARTBEAT_SECONDS, TokenReply};
use tokio::io::AsyncRead;
use tokio::time::MissedTickBehavior;

use crate::boot::{self, NoBoot};
use crate::calls::{CallError, Calls};
use crate::egress::{self, Proxy};
use crate::link::{self, Hands};
use crate::lock::{self, InUse};
use crate::log::Log;
use crate::server::Server;
use crate::setup;
use crate::shared::Shared;
use crate::worker::Worker;

/// How the program is set up.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// The agent's home, where its volume is.
    pub home: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self { home: "/agent".into() }
    }
}

impl Options {
    /// As the computer says: the directory that `RAWORC_HOME` names; else `/agent`, where a volume is; else `HOME`, for
    /// computers that are no more than a directory.
    #[must_use]
    pub fn from_env() -> Self {
        let own = Self::default();
        let named = std::env::var_os("RAWORC_HOME");
        let named = named.or_else(|| std::env::var_os("HOME").filter(|_| !own.home.is_dir()));
        named.filter(|home| !home.is_empty()).map_or(own, |home| Self { home: home.into() })
    }

    /// With this home.
    #[must_use]
    pub fn with_home(mut self, home: impl Into<PathBuf>) -> Self {
        self.home = home.into();
        self
    }
}

/// Why the program ended without being asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Ended {
    /// It was not told who it is.
    #[error("the program was not told who it is")]
    NoBoot(#[from] NoBoot),
    /// The address in the boot line cannot be used.
    #[error("the boot line cannot be followed")]
    BadAddress(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The one before it did not end.
    #[error(transparent)]
    InUse(#[from] InUse),
    /// A newer incarnation has begun.
    #[error("a newer run of this computer's program has begun")]
    Stale,
    /// The server does not want it.
    #[error("the server does not want this program")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<CallError> for Ended {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Stale => Self::Stale,
            CallError::Away(_) | CallError::Refused { .. } => Self::Refused(Box::new(error)),
        }
    }
}

/// Runs the program: reads the boot line from `input`, and works until the server ends it.
///
/// Dropping the future ends what it has started, apart from what runs in the background.
///
/// # Errors
/// [`Ended`] says why it cannot go on. It never ends otherwise.
pub async fn run(input: impl AsyncRead + Unpin, options: Options) -> Result<Infallible, Ended> {
    run_with_log(input, options, Log::default()).await
}

pub(crate) async fn run_with_log(
    input: impl AsyncRead + Unpin,
    options: Options,
    log: Log,
) -> Result<Infallible, Ended> {
    let boot = boot::wait(input).await?;
    tracing::info!(computer = %boot.computer, incarnation = %boot.incarnation, "starting");
    let _alone = lock::take(&options.home).await?;
    let server =
        Server::new(&boot.agent_url, boot.ca.as_deref()).map_err(|error| Ended::BadAddress(Box::new(error)))?;
    let calls = Arc::new(Calls::new(server));
    let BootReply { token, spec } = calls.boot(&boot).await?;
    drop(boot);
    let proxy = if spec.proxied && !egress::has_network() { proxy().await } else { None };
    let base = proxy.as_ref().and_then(|proxy| proxy.environment().ok()).unwrap_or_default();
    let shared = Arc::new(Shared::with_base(base));
    shared.set_env(&spec.work.env);
    shared.meter.limit(spec.disk_limit);
    let hands = Arc::new(Hands::new(&options.home, Arc::clone(&shared), log));
    let work = async {
        if let Some(task) = &spec.setup {
            tracing::info!("the setup begins");
            let report = setup::run(task, &options.home, &shared, &calls).await?;
            shared.meter.written();
            calls.setup(&report).await?;
            if report.failure.is_some() {
                tracing::warn!("the setup failed; waiting for what the operator does");
                return std::future::pending().await;
            }
        }
        tracing::info!("ready");
        Err(Worker::new(Arc::clone(&calls), Arc::clone(&shared), &options.home).run().await)
    };
    let result: Result<Infallible, CallError> = tokio::select! {
        biased;
        () = calls.stale() => Err(CallError::Stale),
        result = work => result,
        error = renew(&calls, token) => Err(error),
        () = heartbeat(&calls, &shared) => Err(CallError::Stale),
        () = link::keep(Arc::clone(&calls), hands) => Err(CallError::Stale),
        never = proxied(proxy, Arc::clone(&calls)) => match never {},
        never = shared.meter.run(&options.home) => match never {},
    };
    Ok(result?)
}

/// The way out of a closed computer. One that cannot be had is no reason not to work.
async fn proxy() -> Option<Proxy> {
    let bound = Proxy::bind().await;
    bound.inspect_err(|error| tracing::warn!("there is no way out of this computer: {error}")).ok()
}

async fn proxied(proxy: Option<Proxy>, calls: Arc<Calls>) -> Infallible {
    match proxy {
        Some(proxy) => proxy.serve(calls).await,
        None => std::future::pending().await,
    }
}

/// Says that the program lives and what its volume holds, and hears what is to be cancelled. Ends with the incarnation.
async fn heartbeat(calls: &Calls, shared: &Shared) {
    let mut ticks = tokio::time::interval(Duration::from_secs(HEARTBEAT_SECONDS));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = true;
    loop {
        tokio::select! {
            biased;
            _ = ticks.tick() => {}
            // What could not be told waits for the next tick.
            () = shared.meter.news(), if heard => {}
        }
        let report = shared.meter.report();
        let answer = calls.heartbeat(&report).await;
        heard = answer.is_ok();
        match answer {
            Ok(reply) => {
                shared.meter.told(report);
                shared.meter.limit(reply.disk_limit);
                if let Some(message) = reply.cancel {
                    shared.cancel(message);
                }
            }
            Err(CallError::Stale) => return,
            Err(error) => tracing::info!("a heartbeat was not heard: {error}"),
        }
    }
}

/// How often the token is renewed, at most and at least, whatever this machine's clock says: it is good for an hour.
const RENEWED: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(20 * 60));

/// Renews the token in the middle of its life. Ends where the server refuses.
async fn renew(calls: &Calls, mut token: TokenReply) -> CallError {
    loop {
        let left = Duration::try_from(token.expires_at.duration_since(SystemClock.now())).unwrap_or_default();
        tokio::time::sleep((left / 2).clamp(RENEWED.0, RENEWED.1)).await;
        match calls.renew().await {
            Ok(fresh) => token = fresh,
            Err(error) => return error,
        }
    }
}
