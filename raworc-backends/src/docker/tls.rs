//! TLS to an engine: whom we trust, who we are, and what people are told where either is wrong.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::config::ENGINE_LIMIT;

/// Whose certificates are trusted.
const CA: &str = "ca.pem";

/// Who we are, where the engine asks.
const CERTIFICATE: &str = "cert.pem";

/// The key of it.
const KEY: &str = "key.pem";

/// The configuration by the files of a directory: `ca.pem`, and `cert.pem` with `key.pem` where there is either.
pub(super) fn config(directory: &Path) -> Result<ClientConfig, String> {
    let read = |name: &str| {
        let path = directory.join(name);
        std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let wrong = |name: &str, why: &dyn std::fmt::Display| format!("{}: {why}", directory.join(name).display());
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&read(CA)?).map_err(|why| wrong(CA, &why))? {
        roots.add(certificate).map_err(|error| wrong(CA, &error))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    if [CERTIFICATE, KEY].iter().all(|name| !directory.join(name).exists()) {
        return Ok(builder.with_no_client_auth());
    }
    let chain = certificates(&read(CERTIFICATE)?).map_err(|why| wrong(CERTIFICATE, &why))?;
    let key = PrivateKeyDer::from_pem_slice(&read(KEY)?).map_err(|error| wrong(KEY, &error))?;
    builder.with_client_auth_cert(chain, key).map_err(|error| wrong(KEY, &error))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(read) if read.is_empty() => Err("there is no certificate in it".into()),
        Ok(read) => Ok(read),
        Err(error) => Err(error.to_string()),
    }
}

/// What the engine has against us, where a call did not tell: it says so after its handshake, and whether that or the call
/// is first is a matter of luck.
pub(super) async fn objection(config: Arc<ClientConfig>, authority: &str) -> Option<io::Error> {
    let (host, _) = authority.rsplit_once(':')?;
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).ok()?;
    let asked = async {
        let stream = TcpStream::connect(authority).await?;
        let mut stream = TlsConnector::from(config).connect(name, stream).await?;
        stream.write_all(b"GET /_ping HTTP/1.0\r\n\r\n").await?;
        stream.read_u8().await
    };
    tokio::time::timeout(ENGINE_LIMIT, asked).await.ok()?.err()
}

/// What a failed call says of TLS, with the file that it is about.
pub(super) fn explained(error: &(dyn Error + 'static), directory: &Path) -> Option<String> {
    let mut at = Some(error);
    let cause = loop {
        let error = at?;
        match of_rustls(error) {
            Some(cause) => break cause,
            None => at = error.source(),
        }
    };
    let file = |name: &str| PathBuf::from(directory).join(name).display().to_string();
    Some(match cause {
        rustls::Error::InvalidCertificate(why) => {
            format!("the engine's certificate is not trusted by {}: {why}", file(CA))
        }
        rustls::Error::AlertReceived(alert) if is_of_a_certificate(*alert) => {
            let who = if directory.join(CERTIFICATE).exists() {
                format!("the engine refuses the certificate {}", file(CERTIFICATE))
            } else {
                format!("the engine asks for a certificate, and there is no {}", file(CERTIFICATE))
            };
            format!("{who}: {alert:?}")
        }
        other => format!("TLS failed: {other}"),
    })
}

/// An I/O error keeps what it was made from, but not as its source.
fn of_rustls<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(found) = error.downcast_ref::<rustls::Error>() {
        return Some(found);
    }
    let inner = error.downcast_ref::<io::Error>()?.get_ref()?;
    of_rustls(inner)
}

const fn is_of_a_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::CertificateRequired
    )
}
