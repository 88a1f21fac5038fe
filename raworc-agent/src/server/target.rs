//! Where the agents' listener is, and how it is dialled.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// How long dialling may take.
const DIAL_LIMIT: Duration = Duration::from_secs(5);

/// An address in the boot line that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the agents' listener cannot be at {url:?}: {reason}")]
pub(crate) struct BadAddress {
    url: String,
    reason: String,
}

/// A connection, whatever it runs over.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Where the listener is.
pub(crate) enum Target {
    /// A Unix socket.
    Unix(PathBuf),
    /// TLS.
    Tls {
        /// Its address.
        address: SocketAddr,
        /// How its certificate is checked.
        connector: TlsConnector,
    },
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tls { address, .. } => write!(f, "https://{address}"),
        }
    }
}

impl Target {
    /// Reads `unix:/path` or `https://ip:port`.
    pub(crate) fn parse(url: &str, ca: Option<&str>) -> Result<Self, BadAddress> {
        let bad = |reason: String| BadAddress { url: url.to_owned(), reason };
        if let Some(path) = url.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        let Some(address) = url.strip_prefix("https://") else {
            return Err(bad("write unix:/path or https://ip:port".into()));
        };
        let address = address.trim_end_matches('/').parse();
        let address = address.map_err(|_| bad("no names are resolved here; write https://ip:port".into()))?;
        let ca = ca.ok_or_else(|| bad("the authority of its certificate is missing in the boot line".into()))?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
            let certificate = certificate.map_err(|error| bad(format!("its authority is no PEM: {error}")))?;
            roots.add(certificate).map_err(|error| bad(format!("its authority is no certificate: {error}")))?;
        }
        if roots.is_empty() {
            return Err(bad("its authority is empty".into()));
        }
        // Named, for the process may hold other providers.
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| bad(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self::Tls { address, connector: TlsConnector::from(Arc::new(config)) })
    }

    /// Makes a connection.
    pub(crate) async fn dial(&self) -> io::Result<Box<dyn Stream>> {
        let dialled = tokio::time::timeout(DIAL_LIMIT, self.dial_slowly()).await;
        dialled.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn dial_slowly(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            Self::Tls { address, connector } => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let name = ServerName::IpAddress(address.ip().into());
                Ok(Box::new(connector.connect(name, stream).await?))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_plain_http_are_refused_with_the_way_out() {
        for (url, says) in [
            ("https://raworc.example:9001", "no names are resolved"),
            ("http://127.0.0.1:9001", "unix:/path or https://ip:port"),
            ("https://127.0.0.1:9001", "authority of its certificate is missing"),
        ] {
            let error = Target::parse(url, None).expect_err(url);
            assert!(error.to_string().contains(says), "{error}");
        }
        let error = Target::parse("https://127.0.0.1:1", Some("nonsense")).expect_err("no certificate");
        assert!(error.to_string().contains("authority is empty"), "{error}");
    }
}
