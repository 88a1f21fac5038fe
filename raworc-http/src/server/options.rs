//! What can be chosen about a router.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use metrics_exporter_prometheus::PrometheusHandle;
use raworc_core::control::ControlPlane;
use tokio_util::sync::CancellationToken;

use super::agents::egress::Egress;
use super::agents::{Links, Listening};

/// How many streams one principal has where nothing else is chosen: a platform calls for all of its people as one user,
/// and a command that somebody is attached to takes four.
pub const STREAMS_PER_PRINCIPAL: usize = 4096;

/// How many calls one computer has at most, and where nothing else is chosen. A call takes three streams of the
/// computer's link, which has 1024: enough are left for what ends commands and for cancels.
pub const CALLS_PER_COMPUTER: usize = 300;

/// What can be chosen about a router.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// For how long a login is good.
    pub token_ttl: Duration,
    /// Bytes that the body of a request may have.
    pub body_limit: usize,
    /// Bytes of bodies, those up to 16 KiB left out, that are in memory at one time; one principal may have a quarter of them. More
    /// wait for room, and are refused with `busy` after five seconds.
    pub bytes_in_bodies: usize,
    /// Streams of events, and calls into computers, that one principal may have open at this server.
    pub streams_per_principal: usize,
    /// Calls into one computer that may be open at this server, [`CALLS_PER_COMPUTER`] at most. Those that end a command
    /// or tell it the size of its terminal are left out, as they are of the principal's.
    pub calls_per_computer: usize,
    /// Passwords that are checked at one time; more wait their turn.
    pub logins_at_once: usize,
    /// After so long without an event a stream says that it is alive.
    pub keep_alive: Duration,
    /// What `/metrics` shows; there are none where absent.
    pub metrics: Option<PrometheusHandle>,
    /// Whether `/metrics` needs no token. For servers on a loopback address.
    pub open_metrics: bool,
    /// What `/readyz` looks at beside the store.
    pub checks: Vec<ReadyCheck>,
    /// The programs that are linked here, shared with the agents' listener; none of them where absent.
    pub links: Option<Links>,
    /// The way out of closed computers, shared with the agents' listener; nothing is told of it where absent.
    pub egress: Option<Egress>,
    /// Streams, those into computers too, and waiting calls end when this is cancelled.
    pub closing: CancellationToken,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            token_ttl: Duration::from_secs(12 * 3600),
            body_limit: 2 << 20,
            bytes_in_bodies: 64 << 20,
            streams_per_principal: STREAMS_PER_PRINCIPAL,
            calls_per_computer: CALLS_PER_COMPUTER,
            logins_at_once: 4,
            keep_alive: Duration::from_secs(15),
            metrics: None,
            open_metrics: false,
            checks: Vec::new(),
            links: None,
            egress: None,
            closing: CancellationToken::new(),
        }
    }
}

impl Options {
    /// With a token whose cancellation ends streams and waiting calls.
    #[must_use]
    pub fn with_closing(mut self, closing: CancellationToken) -> Self {
        self.closing = closing;
        self
    }

    /// With logins that are good for so long.
    #[must_use]
    pub const fn with_token_ttl(mut self, ttl: Duration) -> Self {
        self.token_ttl = ttl;
        self
    }

    /// With so many streams of events, and calls into computers, for each principal.
    #[must_use]
    pub const fn with_streams_per_principal(mut self, streams: usize) -> Self {
        self.streams_per_principal = streams;
        self
    }

    /// With so many calls into each computer, [`CALLS_PER_COMPUTER`] at most.
    #[must_use]
    pub const fn with_calls_per_computer(mut self, calls: usize) -> Self {
        self.calls_per_computer = if calls < CALLS_PER_COMPUTER { calls } else { CALLS_PER_COMPUTER };
        self
    }

    /// With the programs that are linked here.
    #[must_use]
    pub fn with_links(mut self, links: Links) -> Self {
        self.links = Some(links);
        self
    }

    /// With the way out of closed computers.
    #[must_use]
    pub fn with_egress(mut self, egress: Egress) -> Self {
        self.egress = Some(egress);
        self
    }

    /// With another thing for `/readyz` to look at: whether it is well, or what is the matter.
    #[must_use]
    pub fn with_check<F>(mut self, name: &'static str, check: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.checks.push(ReadyCheck { name, check: Arc::new(move || Box::pin(check())) });
        self
    }

    /// With a look of `/readyz` at whether an operator lives for each runtime, in this process or in another.
    #[must_use]
    pub fn with_operator_check(self, control: &ControlPlane) -> Self {
        let control = control.clone();
        self.with_check("operator", move || {
            let control = control.clone();
            async move {
                let without = control.system().runtimes_without_operator().await.map_err(|error| {
                    tracing::warn!(%error, "operators' signs of life cannot be read");
                    "cannot be told: the store does not answer".to_owned()
                })?;
                match without.first() {
                    None => Ok(()),
                    Some(runtime) => Err(format!("no operator looks after the agents of runtime {runtime}")),
                }
            }
        })
    }

    /// With a look of `/readyz` at whether programs are accepted.
    #[must_use]
    pub fn with_agents_check(self, listening: Listening) -> Self {
        self.with_check("agents_listener", move || std::future::ready(listening.check()))
    }

    /// With figures for `/metrics`, from [`metrics::install`](super::metrics::install).
    #[must_use]
    pub fn with_metrics(mut self, handle: PrometheusHandle, open: bool) -> Self {
        self.metrics = Some(handle);
        self.open_metrics = open;
        self
    }
}

/// Something that has to be well before a server takes calls.
#[derive(Clone)]
pub struct ReadyCheck {
    /// What it is.
    pub name: &'static str,
    check: Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>,
}

impl ReadyCheck {
    /// Whether it is well, or what is the matter.
    ///
    /// # Errors
    /// A sentence that says what is the matter.
    pub async fn look(&self) -> Result<(), String> {
        (self.check)().await
    }
}

impl fmt::Debug for ReadyCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadyCheck").field("name", &self.name).finish_non_exhaustive()
    }
}
