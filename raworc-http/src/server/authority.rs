//! Authorities of certificates that every process of an installation has alike, and nobody else.
//!
//! An authority's key is worked out from the installation's signing key, which stands sealed in the store. So whatever is
//! signed by one process is trusted by the others, and by the same one after its restart, and nothing has to be handed out.

use std::fmt;
use std::net::IpAddr;

use raworc_core::control::ControlPlane;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, SanType, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// What an Ed25519 key's 32 bytes follow in PKCS #8 (RFC 8410, section 7).
const ED25519_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Who trusts an authority. Each has one of its own: what is good for one of them is nothing to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// Programs in computers, who dial servers.
    Programs,
    /// Processes of the installation, who dial each other.
    Processes,
}

impl Trust {
    const fn name(self) -> &'static str {
        match self {
            Self::Programs => "Raworc agents' listener",
            Self::Processes => "Raworc internal listener",
        }
    }

    const fn of_key(self) -> &'static [u8] {
        match self {
            Self::Programs => b"raworc agents' listener: the key of its certificate authority, 1\0",
            Self::Processes => b"raworc internal listener: the key of its certificate authority, 1\0",
        }
    }

    fn usages(self) -> Vec<ExtendedKeyUsagePurpose> {
        match self {
            Self::Programs => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Self::Processes => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        }
    }
}

/// A certificate and its key.
pub(super) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// An authority.
pub(super) struct Authority {
    trust: Trust,
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, in PEM.
    pub(super) pem: String,
    /// The same in DER.
    pub(super) der: CertificateDer<'static>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("trust", &self.trust).finish_non_exhaustive()
    }
}

impl Authority {
    /// The authority of this installation: the same in every process, to the last byte.
    ///
    /// # Errors
    /// Says in words what the library refuses.
    pub(super) fn of(control: &ControlPlane, trust: Trust) -> Result<Self, String> {
        let key = key(control, trust).map_err(|error| error.to_string())?;
        let params = params(trust);
        let own = params.self_signed(&key).map_err(|error| error.to_string())?;
        Ok(Self { trust, pem: own.pem(), der: own.der().clone(), issuer: Issuer::new(params, key) })
    }

    /// A new certificate for these names and addresses, with a key that no other process has.
    ///
    /// # Errors
    /// Where a name is none.
    pub(super) fn issue(&self, names: &[String]) -> Result<Identity, String> {
        let key = KeyPair::generate().map_err(|error| error.to_string())?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named("Raworc server");
        params.extended_key_usages = self.trust.usages();
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(4096, 1, 1);
        for name in names {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => {
                    let name = name.as_str().try_into();
                    SanType::DnsName(name.map_err(|error: rcgen::Error| format!("it is no host name: {error}"))?)
                }
            });
        }
        let certificate = params.signed_by(&key, &self.issuer).map_err(|error| error.to_string())?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok((vec![certificate.der().clone()], key))
    }
}

fn key(control: &ControlPlane, trust: Trust) -> Result<KeyPair, rcgen::Error> {
    let mut hash = Sha256::new();
    hash.update(trust.of_key());
    hash.update(control.system().signing_key().expose_secret());
    let seed = Zeroizing::new(<[u8; 32]>::from(hash.finalize()));
    let der = Zeroizing::new([ED25519_PREFIX.as_slice(), seed.as_slice()].concat());
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der.as_slice()), &PKCS_ED25519)
}

fn params(trust: Trust) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(trust.name());
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(4096, 1, 1);
    params.serial_number = Some(1_u64.into());
    params
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
