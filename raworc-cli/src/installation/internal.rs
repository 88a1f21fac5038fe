//! Where the processes of an installation reach each other.

use std::net::SocketAddr;

use raworc_core::control::ControlPlane;
use raworc_http::server::agents::Links;
use raworc_http::server::internal::{InternalListener, InternalState, InternalTls, Peers};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::exit::{Exit, Failure};
use crate::settings::Settings;

/// The listener, before it serves: its address goes with the sign of life by which others find it.
pub(super) struct Door {
    listener: InternalListener,
    address: String,
}

/// The listener as it serves.
pub(super) struct Internal {
    address: String,
    closing: CancellationToken,
    serving: JoinHandle<()>,
}

impl Door {
    pub(super) async fn open(settings: &Settings) -> Result<Self, Failure> {
        let address = settings.internal.listen_address()?;
        let failed = |error| {
            Failure::new(Exit::Failed, format!("internal.listen: cannot listen at {address}"))
                .because(error)
                .hint("choose a free port, or 0 for any, at an address of this machine")
        };
        let listener = InternalListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address: reached_at(settings, bound) })
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Serves the others, who are shown `links` where this process has any.
    pub(super) fn serve(self, control: &ControlPlane, tls: InternalTls, links: Option<Links>) -> Internal {
        let (closing, state) = (CancellationToken::new(), InternalState { control: control.clone(), links });
        let serving = tokio::spawn(self.listener.serve(tls, state, closing.clone()));
        Internal { address: self.address, closing, serving }
    }
}

/// TLS and the way to the others.
pub(super) fn peers(control: &ControlPlane) -> Result<(InternalTls, Peers), Failure> {
    let tls = InternalTls::new(control).map_err(|error| {
        Failure::new(Exit::Failed, format!("the internal listener's certificate cannot be made: {error}"))
    })?;
    let peers = Peers::new(control, tls.clone());
    Ok((tls, peers))
}

/// What others dial: what was chosen, else the address itself, else this machine's name.
fn reached_at(settings: &Settings, bound: SocketAddr) -> String {
    let host = match &settings.internal.address {
        Some(chosen) if chosen.parse::<SocketAddr>().is_ok() => return chosen.clone(),
        Some(chosen) if chosen.parse::<std::net::IpAddr>().is_err() && chosen.contains(':') => return chosen.clone(),
        Some(chosen) => chosen.clone(),
        None if bound.ip().is_unspecified() => rustix::system::uname().nodename().to_string_lossy().into_owned(),
        None => return bound.to_string(),
    };
    match host.parse() {
        Ok(ip) => SocketAddr::new(ip, bound.port()).to_string(),
        Err(_) => format!("{host}:{}", bound.port()),
    }
}

impl Internal {
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) async fn close(self) {
        self.closing.cancel();
        if let Err(error) = self.serving.await {
            tracing::warn!(%error, "the internal listener did not end well");
        }
    }
}
