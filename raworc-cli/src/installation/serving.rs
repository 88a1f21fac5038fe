//! What serves callers and programs: the API, the agents' listeners, the gateway to models, the way out of computers.

use std::sync::Arc;

use raworc_core::control::ControlPlane;
use raworc_http::server::agents::egress::{Egress, EgressOptions};
use raworc_http::server::agents::gateway::Upstreams;
use raworc_http::server::agents::{AgentsState, Links, ListenerLimits};
use raworc_http::server::internal::Peers;
use raworc_http::server::metrics::Figures;
use raworc_http::server::{ConnectionLimits, Options, Tokens};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::agents::Listeners;
use super::api::{Api, Door};
use super::program;
use crate::settings::Settings;

/// What is there before callers are served: programs are already.
pub(super) struct Serving {
    pub(super) tokens: Tokens,
    pub(super) links: Links,
    upstreams: Upstreams,
    closing: CancellationToken,
    agents_closing: CancellationToken,
    agents: JoinHandle<()>,
    api: Api,
    _following: Option<AbortOnDropHandle<()>>,
}

impl Serving {
    /// Serves programs, and then callers.
    pub(super) fn start(
        settings: &Settings,
        control: &ControlPlane,
        (door, limits): (Door, ConnectionLimits),
        listeners: Listeners,
        peers: Option<Peers>,
        figures: Option<Figures>,
    ) -> anyhow::Result<Self> {
        let (tokens, closing, agents_closing) =
            (Tokens::new(control), CancellationToken::new(), CancellationToken::new());
        let mut links = Links::start(control);
        let mut following = None;
        if let Some(peers) = peers {
            following = Some(peers.follow_deltas());
            control.system().read_logs_elsewhere(Arc::new(peers.clone()));
            links = links.with_peers(peers);
        }
        let upstreams = program::upstreams(settings)?;
        let egress = Egress::new(EgressOptions::default().with_private(settings.egress.private.clone()));
        let state = AgentsState {
            control: control.clone(),
            tokens: tokens.clone(),
            links: links.clone(),
            upstreams: upstreams.clone(),
            egress: egress.clone(),
            closing: agents_closing.clone(),
        };
        let mut options = listeners
            .checked(Options::default())
            .with_closing(closing.clone())
            .with_links(links.clone())
            .with_egress(egress)
            .with_streams_per_principal(settings.limits.streams_per_principal)
            .with_calls_per_computer(settings.limits.calls_per_computer)
            .with_operator_check(control);
        if let Some(figures) = figures {
            options = options.with_metrics(figures, false);
        }
        let agents = listeners.serve(state, &agents_closing);
        let api = door.serve(raworc_http::server::router(control.clone(), options), limits, &closing);
        Ok(Self { tokens, links, upstreams, closing, agents_closing, agents, api, _following: following })
    }

    pub(super) fn url(&self) -> String {
        self.api.url()
    }

    pub(super) async fn model_answers(&self) -> Result<(), String> {
        program::model_answers(&self.upstreams).await
    }

    pub(super) async fn ended(&mut self) -> anyhow::Result<()> {
        self.api.ended().await
    }

    /// No new calls; what is under way ends. Programs are still served.
    pub(super) async fn close_api(self) -> Programs {
        self.closing.cancel();
        self.api.close().await;
        Programs { links: self.links, closing: self.agents_closing, serving: self.agents }
    }
}

/// Programs, once no caller is served any more.
pub(super) struct Programs {
    links: Links,
    closing: CancellationToken,
    serving: JoinHandle<()>,
}

impl Programs {
    /// No program is waited for.
    pub(super) async fn close(self) {
        self.links.close();
        self.closing.cancel();
        if let Err(error) = self.serving.await {
            tracing::warn!(%error, "the agents' listener did not end well");
        }
    }
}

/// Agents' connections get half of what this process may open, raised as far as it can be, and no more: a third, half of
/// which may be ways out that take as many again. Those of the API get a quarter: whatever either do, the database and the computers' own pipes can still be opened.
pub(super) fn connection_limits() -> (ListenerLimits, ConnectionLimits) {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut files = getrlimit(Resource::Nofile);
    if files.current != files.maximum {
        files.current = files.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, files) {
            tracing::warn!(%error, "the limit on open files cannot be raised");
        }
    }
    let files = getrlimit(Resource::Nofile).current.and_then(|files| usize::try_from(files).ok());
    let files = files.unwrap_or(usize::MAX);
    let (agents, api) = (ListenerLimits::default(), ConnectionLimits::default());
    let connections = (agents.connections.min(files / 3), api.connections.min(files / 4));
    (agents.with_connections(connections.0), api.with_connections(connections.1))
}
