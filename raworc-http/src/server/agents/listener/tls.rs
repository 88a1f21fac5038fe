//! TLS of the agents' listener. Its authority is the installation's: a program that was started while one server was there
//! trusts the others.

use std::fmt;
use std::sync::Arc;

use raworc_core::control::ControlPlane;
use rustls::ServerConfig;
use tokio_rustls::TlsAcceptor;

use super::ListenError;
use crate::server::authority::{Authority, Trust};

/// TLS for the agents' listener.
#[derive(Clone)]
pub struct AgentsTls {
    /// The authority, in PEM: programs are told it as they start and trust no other.
    pub ca_pem: String,
    /// Accepts programs' connections.
    pub acceptor: TlsAcceptor,
}

impl fmt::Debug for AgentsTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentsTls").field("ca_pem", &self.ca_pem).finish_non_exhaustive()
    }
}

impl AgentsTls {
    /// The authority alone, in PEM, for an operator: it tells it to programs, and servers elsewhere accept them.
    ///
    /// # Errors
    /// Where the library refuses to make one.
    pub fn authority(control: &ControlPlane) -> Result<String, ListenError> {
        Ok(Authority::of(control, Trust::Programs).map_err(ListenError::Certificate)?.pem)
    }

    /// A new certificate for the names and addresses under which programs reach the listener.
    ///
    /// # Errors
    /// Where a name is none.
    pub fn new(control: &ControlPlane, names: &[String]) -> Result<Self, ListenError> {
        let authority = Authority::of(control, Trust::Programs).map_err(ListenError::Certificate)?;
        let (chain, key) = authority.issue(names).map_err(ListenError::Certificate)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map(|config| config.with_no_client_auth())
            .and_then(|config| config.with_single_cert(chain, key))
            .map_err(|error| ListenError::Certificate(error.to_string()))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { ca_pem: authority.pem, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }
}
