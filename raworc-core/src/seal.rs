//! Sealing: what is secret stands in the store only under the master key.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use secrecy::{ExposeSecret, SecretBox, SecretSlice};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::entropy::{Entropy, EntropyExt};

/// The one key outside the store. 32 bytes, written as base64 in a file.
#[derive(Debug)]
pub struct MasterKey {
    key: SecretBox<[u8; 32]>,
    id: String,
}

impl Clone for MasterKey {
    fn clone(&self) -> Self {
        Self::from_bytes(*self.key.expose_secret())
    }
}

/// A text that is no master key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a master key: it is 32 bytes in base64, as `head -c 32 /dev/urandom | base64` prints")]
pub struct InvalidMasterKey;

/// A record that cannot be opened: it was sealed under another key or for another purpose, or was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("sealed under master key {sealed_under}, and the present one is {present}; start with the key of that id")]
pub struct NotOpened {
    sealed_under: String,
    present: String,
}

/// A secret as it stands in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// The id of the key.
    pub key: String,
    /// Nonce and ciphertext, in base64.
    pub data: String,
}

impl MasterKey {
    /// A key of these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        let id = hex::encode(&Sha256::digest([b"raworc master key id\0".as_slice(), &bytes].concat())[..6]);
        Self { key: SecretBox::new(Box::new(bytes)), id }
    }

    /// A new key.
    #[must_use]
    pub fn generate(entropy: &dyn Entropy) -> Self {
        Self::from_bytes(entropy.bytes())
    }

    /// Reads a key as it stands in a file. A key whose bytes are all the same is refused.
    ///
    /// # Errors
    /// [`InvalidMasterKey`] says what is taken.
    pub fn from_text(text: &str) -> Result<Self, InvalidMasterKey> {
        let bytes = STANDARD.decode(text.trim()).map_err(|_| InvalidMasterKey)?;
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| InvalidMasterKey)?;
        if bytes.iter().all(|&byte| byte == bytes[0]) {
            return Err(InvalidMasterKey);
        }
        Ok(Self::from_bytes(bytes))
    }

    /// The text for a file.
    #[must_use]
    pub fn to_text(&self) -> String {
        STANDARD.encode(self.key.expose_secret())
    }

    /// Tells keys apart without telling the key.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Seals `secret` so that it opens only with the same `purpose`.
    #[must_use]
    pub fn seal(&self, purpose: &str, secret: &[u8], entropy: &dyn Entropy) -> Sealed {
        let nonce: [u8; 24] = entropy.bytes();
        let payload = Payload { msg: secret, aad: purpose.as_bytes() };
        // Encryption fails only for messages of 256 GiB and more.
        let sealed = self.cipher().encrypt(&XNonce::from(nonce), payload).unwrap_or_default();
        Sealed { key: self.id.clone(), data: STANDARD.encode([nonce.as_slice(), &sealed].concat()) }
    }

    /// Opens what was sealed with the same `purpose`.
    ///
    /// # Errors
    /// [`NotOpened`] names the key that it was sealed under.
    pub fn open(&self, purpose: &str, sealed: &Sealed) -> Result<SecretSlice<u8>, NotOpened> {
        let refused = || NotOpened { sealed_under: sealed.key.clone(), present: self.id.clone() };
        let data = STANDARD.decode(&sealed.data).map_err(|_| refused())?;
        let (nonce, data) = data.split_first_chunk::<24>().ok_or_else(refused)?;
        let payload = Payload { msg: data, aad: purpose.as_bytes() };
        self.cipher().decrypt(&XNonce::from(*nonce), payload).map(SecretSlice::from).map_err(|_| refused())
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(self.key.expose_secret().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SystemEntropy;

    #[test]
    fn what_was_sealed_opens_with_the_same_key_and_purpose_alone() {
        let key = MasterKey::generate(&SystemEntropy);
        let sealed = key.seal("jwt", b"secret", &SystemEntropy);
        assert_eq!(key.open("jwt", &sealed).expect("opens").expose_secret(), b"secret");
        assert!(key.open("other", &sealed).is_err());
        let other = MasterKey::generate(&SystemEntropy);
        let error = other.open("jwt", &sealed).expect_err("another key");
        assert!(error.to_string().contains(key.id()), "{error}");
    }

    #[test]
    fn a_key_reads_back_and_weak_ones_are_refused() {
        let key = MasterKey::generate(&SystemEntropy);
        assert_eq!(MasterKey::from_text(&key.to_text()).expect("reads back").id(), key.id());
        assert!(MasterKey::from_text(&STANDARD.encode([0; 32])).is_err());
        assert!(MasterKey::from_text("secret").is_err());
    }
}
