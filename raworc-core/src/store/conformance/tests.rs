//! The in-memory store passes every case.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use super::{BlobStoreUnderTest, StoreUnderTest, blob_cases, cases};
use crate::blob::BlobStore;
use crate::ids::Revision;
use crate::store::{MemoryStore, Store};

/// Memory, as the suite sees it.
#[derive(Default)]
struct Memory {
    opened: Mutex<Option<Arc<MemoryStore>>>,
}

#[async_trait]
impl StoreUnderTest for Memory {
    async fn open(&self) -> Arc<dyn Store> {
        let store = Arc::new(MemoryStore::default());
        *self.opened.lock().expect("nothing panics under it") = Some(Arc::clone(&store));
        store
    }

    async fn reopen(&self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        store
    }

    async fn forget_log(&self, _: &Arc<dyn Store>, upto: Revision) {
        let opened = self.opened.lock().expect("nothing panics under it");
        opened.as_ref().expect("a case opens its store first").forget_log(upto);
    }
}

#[async_trait]
impl BlobStoreUnderTest for Memory {
    async fn open(&self) -> Arc<dyn BlobStore> {
        Arc::new(MemoryStore::default())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_in_memory_store_passes_every_case() {
    for case in cases() {
        let name = case.name;
        let run = tokio::spawn(async move { case.run(Arc::new(Memory::default())).await });
        run.await.expect(name);
    }
    for case in blob_cases() {
        let name = case.name;
        let run = tokio::spawn(async move { case.run(Arc::new(Memory::default())).await });
        run.await.expect(name);
    }
}
