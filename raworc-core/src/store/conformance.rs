//! The suites that every [`Store`] and every [`BlobStore`] passes.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # async fn run(subject: Arc<dyn raworc_core::store::conformance::StoreUnderTest>) {
//! for case in raworc_core::store::conformance::cases() {
//!     case.run(Arc::clone(&subject)).await;
//! }
//! # }
//! ```
//!
//! Each case opens a store of its own, so they may run side by side. Where a sentence is about writers that meet, a
//! case starts many tasks: give it a runtime with more than one thread.

mod agents;
mod audit;
mod blobs;
mod commits;
mod due;
mod idempotency;
mod leases;
mod log;
mod numbers;
mod pages;
mod purges;
mod quotas;
mod records;
mod scene;
mod text;
mod times;
mod touches;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;

use super::Store;
use crate::blob::BlobStore;

use crate::conformance::Case;
use crate::ids::Revision;

/// How the suite gets at stores of one kind.
#[async_trait]
pub trait StoreUnderTest: Send + Sync {
    /// A new store, empty.
    async fn open(&self) -> Arc<dyn Store>;

    /// The same data as another process would open them, while `store` is open; `store` itself where one process has
    /// them alone.
    async fn beside(&self, store: &Arc<dyn Store>) -> Arc<dyn Store> {
        Arc::clone(store)
    }

    /// The same data after the end of every process that had them open. A store that is no more than its process's
    /// memory is given back as it is.
    async fn reopen(&self, store: Arc<dyn Store>) -> Arc<dyn Store>;

    /// The blobs that are kept in the same store, so that its purges find them; none where it keeps none.
    fn blobs(&self, store: &Arc<dyn Store>) -> Option<Arc<dyn BlobStore>>;

    /// Makes the store forget its log up to `upto`, this revision included, as its retention would in time.
    async fn forget_log(&self, store: &Arc<dyn Store>, upto: Revision);
}

/// How the suite gets at blob stores of one kind.
#[async_trait]
pub trait BlobStoreUnderTest: Send + Sync {
    /// A new blob store, empty.
    async fn open(&self) -> Arc<dyn BlobStore>;
}

type StoreCase = Case<dyn StoreUnderTest>;
type BlobCase = Case<dyn BlobStoreUnderTest>;

/// A case with the name of the function that runs it.
macro_rules! case {
    ($run:ident shows $($id:literal),+) => {
        crate::conformance::Case::new(&[$($id),+], stringify!($run), |subject| Box::pin($run(subject)))
    };
}
use case;

/// Every case for stores.
#[must_use]
pub fn cases() -> Vec<StoreCase> {
    [
        agents::cases(),
        audit::cases(),
        commits::cases(),
        due::cases(),
        idempotency::cases(),
        leases::cases(),
        log::cases(),
        numbers::cases(),
        pages::cases(),
        purges::cases(),
        quotas::cases(),
        records::cases(),
        text::cases(),
        times::cases(),
        touches::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Every case for blob stores.
#[must_use]
pub fn blob_cases() -> Vec<BlobCase> {
    blobs::cases()
}
