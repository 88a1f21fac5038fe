//! The certificate of the agents' listener, and the authority that signs it.
//!
//! The authority's key is worked out from the installation's signing key, which stands sealed in the store. So every
//! server of an installation has the same authority, and a program that was started by one trusts the others, and the
//! same one after its restart. The listener's own key is new in each process.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use raworc_core::control::ControlPlane;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, SanType, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use super::ListenError;

/// What an Ed25519 key's 32 bytes follow in PKCS #8 (RFC 8410, section 7).
const ED25519_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

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
    /// A new certificate for the names and addresses under which programs reach the listener.
    ///
    /// # Errors
    /// Where a name is none.
    pub fn new(control: &ControlPlane, names: &[String]) -> Result<Self, ListenError> {
        let failed = |error: rcgen::Error| ListenError::Certificate(error.to_string());
        let ca_key = authority_key(control)?;
        let ca_params = authority();
        let ca_pem = ca_params.self_signed(&ca_key).map_err(failed)?.pem();
        let issuer = Issuer::new(ca_params, ca_key);

        let key = KeyPair::generate().map_err(failed)?;
        let certificate = leaf(names)?.signed_by(&key, &issuer).map_err(failed)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map(|config| config.with_no_client_auth())
            .and_then(|config| config.with_single_cert(vec![certificate.der().clone()], key))
            .map_err(|error| ListenError::Certificate(error.to_string()))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { ca_pem, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }
}

fn authority_key(control: &ControlPlane) -> Result<KeyPair, ListenError> {
    let mut hash = Sha256::new();
    hash.update(b"raworc agents' listener: the key of its certificate authority, 1\0");
    hash.update(control.system().signing_key().expose_secret());
    let seed = Zeroizing::new(<[u8; 32]>::from(hash.finalize()));
    let der = Zeroizing::new([ED25519_PREFIX.as_slice(), seed.as_slice()].concat());
    let der = PrivatePkcs8KeyDer::from(der.as_slice());
    KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ED25519)
        .map_err(|error| ListenError::Certificate(error.to_string()))
}

/// The same in every process, to the last byte.
fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named("Raworc agents' listener");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(4096, 1, 1);
    params.serial_number = Some(1_u64.into());
    params
}

fn leaf(names: &[String]) -> Result<CertificateParams, ListenError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = named("Raworc server");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(4096, 1, 1);
    for name in names {
        params.subject_alt_names.push(match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into().map_err(|error: rcgen::Error| {
                ListenError::Certificate(format!("{name:?} is no host name: {error}"))
            })?),
        });
    }
    Ok(params)
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
