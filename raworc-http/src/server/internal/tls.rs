//! TLS between the processes of an installation, in which both sides show who they are.

use std::fmt;
use std::sync::Arc;

use raworc_core::control::ControlPlane;
use rustls::pki_types::ServerName;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::server::authority::{Authority, Trust};

/// What every process of an installation is called by the others, wherever it runs.
const NAME: &str = "raworc.internal";

/// TLS of a process, as it is called and as it calls.
#[derive(Clone)]
pub struct InternalTls {
    pub(super) acceptor: TlsAcceptor,
    pub(super) connector: TlsConnector,
}

impl fmt::Debug for InternalTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InternalTls").finish_non_exhaustive()
    }
}

impl InternalTls {
    /// A new certificate, for this process alone.
    ///
    /// # Errors
    /// Says in words what the library refuses.
    pub fn new(control: &ControlPlane) -> Result<Self, String> {
        let authority = Authority::of(control, Trust::Processes)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.der.clone()).map_err(|error| error.to_string())?;
        let (roots, provider) = (Arc::new(roots), Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
        let said = |error: rustls::Error| error.to_string();

        let (chain, key) = authority.issue(&[NAME.to_owned()])?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
        let verifier = verifier.build().map_err(|error| error.to_string())?;
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(said)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(said)?;
        server.alpn_protocols = vec![b"h2".to_vec()];
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(said)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(said)?;
        client.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(server)), connector: TlsConnector::from(Arc::new(client)) })
    }

    pub(super) fn name() -> ServerName<'static> {
        // A constant that is a host name.
        ServerName::try_from(NAME).unwrap_or(ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()))
    }
}
