//! Blobs with a flaw.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Flaw, Flawed};
use crate::blob::{BlobId, BlobStore};
use crate::ids::TenantName;
use crate::store::StoreError;
use crate::store::memory::lock;

impl Flawed {
    fn place(&self, tenant: &TenantName) -> TenantName {
        if self.is(Flaw::BlobsOfAllTenants) { TenantName::default() } else { tenant.clone() }
    }

    fn put(&self, tenant: &TenantName, id: BlobId, content: Bytes) {
        let (mut tables, now) = self.inner.lock();
        tables.put_blob(tenant, id, content, now);
    }
}

#[async_trait]
impl BlobStore for Flawed {
    async fn put(&self, tenant: &TenantName, content: Bytes) -> Result<BlobId, StoreError> {
        let (tenant, id) = (self.place(tenant), BlobId::of(&content));
        if self.is(Flaw::BlobIsLate) {
            if lock(&self.inner.tables).blob(&tenant, id).is_some() {
                return Ok(id);
            }
            self.put(&tenant, id, Bytes::new());
            tokio::task::yield_now().await;
        }
        *self.memory().puts.entry(id).or_default() += 1;
        let kept = if self.is(Flaw::BlobIsCut) { content.slice(..content.len().min(1 << 20)) } else { content };
        self.put(&tenant, id, kept);
        Ok(id)
    }

    async fn get(
        &self,
        tenant: &TenantName,
        id: BlobId,
        range: Option<Range<u64>>,
    ) -> Result<Option<Bytes>, StoreError> {
        let one_more = u64::from(self.is(Flaw::RangeIsInclusive));
        let range = range.map(|range| range.start..range.end.saturating_add(one_more));
        self.inner.get(&self.place(tenant), id, range).await
    }

    async fn unlink(&self, tenant: &TenantName, id: BlobId) -> Result<(), StoreError> {
        let tenant = self.place(tenant);
        if self.is(Flaw::UnlinkOfNothingFails) && lock(&self.inner.tables).blob(&tenant, id).is_none() {
            return Err(StoreError::Unusable { reason: "there is no such blob".into() });
        }
        if self.is(Flaw::BlobIsCounted)
            && let Some(puts) = self.memory().puts.get_mut(&id)
        {
            *puts -= 1;
            if *puts > 0 {
                return Ok(());
            }
        }
        self.inner.unlink(&tenant, id).await
    }
}
