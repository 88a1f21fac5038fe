//! Blobs: what is too large for a row, kept by its content.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ids::TenantName;
use crate::store::StoreError;

/// The SHA-256 of a blob's content, written `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, pattern = "^sha256:[0-9a-f]{64}$"))]
pub struct BlobId([u8; 32]);

impl BlobId {
    /// The id of this content.
    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        Self(Sha256::digest(content).into())
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex::encode(self.0))
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobId({self})")
    }
}

/// A text that is no blob's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a blob id: write sha256: and 64 hexadecimal digits")]
pub struct InvalidBlobId;

impl FromStr for BlobId {
    type Err = InvalidBlobId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix("sha256:").ok_or(InvalidBlobId)?;
        // There is one way to write an id.
        if digits.bytes().any(|digit| digit.is_ascii_uppercase()) {
            return Err(InvalidBlobId);
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| InvalidBlobId)?;
        Ok(Self(bytes))
    }
}

impl Serialize for BlobId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BlobId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Keeps content by its hash, apart for each tenant.
///
/// # Contract
/// - `B1` What was put is read back byte for byte, once `put` has returned.
/// - `B2` Putting the same content again changes nothing and gives the same id.
/// - `B3` A range reads the bytes that it names; what lies past the end is left out.
/// - `B4` A blob that is not there, or is another tenant's, is `None`.
/// - `B5` Unlinking what is not there succeeds.
#[async_trait]
pub trait BlobStore: Send + Sync + fmt::Debug {
    /// Keeps `content` and returns its id.
    async fn put(&self, tenant: &TenantName, content: Bytes) -> Result<BlobId, StoreError>;

    /// The bytes of a blob, all of them or those in `range`.
    async fn get(
        &self,
        tenant: &TenantName,
        id: BlobId,
        range: Option<Range<u64>>,
    ) -> Result<Option<Bytes>, StoreError>;

    /// Forgets a blob.
    async fn unlink(&self, tenant: &TenantName, id: BlobId) -> Result<(), StoreError>;
}
