//! A listener of HTTP, and what is served at it until the process ends.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::Router;
use raworc_http::server::{ConnectionLimits, serve_within};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::exit::{Exit, Failure};

/// A listener that is there before anybody is served.
pub(super) struct Door {
    listener: TcpListener,
    address: SocketAddr,
}

impl Door {
    pub(super) async fn open(address: SocketAddr) -> Result<Self, Failure> {
        let listener = TcpListener::bind(address).await.map_err(|error| cannot_listen(address, error))?;
        let address = listener.local_addr().map_err(|error| cannot_listen(address, error))?;
        Ok(Self { listener, address })
    }

    /// Serves until `closing`.
    pub(super) fn serve(self, router: Router, limits: ConnectionLimits, closing: &CancellationToken) -> Api {
        let serving = serve_within(self.listener, router, limits, closing.clone().cancelled_owned());
        Api { address: self.address, serving: tokio::spawn(serving) }
    }
}

/// What is served.
pub(super) struct Api {
    address: SocketAddr,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Api {
    /// The address, as a program on this machine reaches it.
    pub(super) fn url(&self) -> String {
        let ip = match self.address.ip() {
            ip if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            ip => ip,
        };
        format!("http://{}", SocketAddr::new(ip, self.address.port()))
    }

    /// Waits until it has ended by itself, which it does only where it is broken.
    pub(super) async fn ended(&mut self) -> anyhow::Result<()> {
        (&mut self.serving).await??;
        Ok(())
    }

    /// Waits for the end of what is under way, once it is closing.
    pub(super) async fn close(self) {
        if !self.serving.is_finished()
            && let Err(error) = self.serving.await
        {
            tracing::warn!(%error, "the API did not end well");
        }
    }
}

fn cannot_listen(address: SocketAddr, error: std::io::Error) -> Failure {
    let failure = match error.kind() {
        std::io::ErrorKind::AddrInUse => Failure::new(Exit::Failed, format!("{address} is in use by another process"))
            .hint("stop that process, or choose another port with --listen 127.0.0.1:PORT; port 0 takes a free one"),
        std::io::ErrorKind::PermissionDenied => {
            Failure::new(Exit::Failed, format!("this user may not listen at {address}"))
                .hint("choose a port from 1024 on with --listen 127.0.0.1:PORT")
        }
        _ => Failure::new(Exit::Failed, format!("cannot listen at {address}"))
            .hint("choose an address of this machine with --listen 127.0.0.1:PORT"),
    };
    failure.because(error)
}
