//! The stores.

mod servers;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use libtest_mimic::Trial;
use raworc_backends::sqlite::{Access, SqliteOptions, SqliteStore};
use raworc_backends::whole::WholeStore;
use raworc_core::blob::BlobStore;
use raworc_core::ids::Revision;
use raworc_core::store::conformance::{BlobStoreUnderTest, StoreUnderTest, blob_cases, cases};
use raworc_core::store::{MemoryStore, Store};
use tempfile::TempDir;

use crate::required::{Required, run};

/// Every case against every store.
pub(crate) fn trials(required: &Required) -> Vec<Trial> {
    let mut trials = servers::trials(required);
    for case in cases() {
        trials.push(Trial::test(format!("memory::{}", case.name), move || run(case.run(Arc::new(Memory::default())))));
    }
    for case in cases() {
        trials.push(Trial::test(format!("sqlite::{}", case.name), move || {
            let subject = Arc::new(Sqlite::default());
            run(async {
                case.run(Arc::clone(&subject) as Arc<dyn StoreUnderTest>).await;
                subject.close().await;
            })
        }));
    }
    for case in blob_cases() {
        trials.push(Trial::test(format!("memory::{}", case.name), move || run(case.run(Arc::new(Memory::default())))));
    }
    for case in blob_cases() {
        trials.push(Trial::test(format!("sqlite::{}", case.name), move || {
            let subject = Arc::new(Sqlite::default());
            run(async {
                case.run(Arc::clone(&subject) as Arc<dyn BlobStoreUnderTest>).await;
                subject.close().await;
            })
        }));
    }
    trials
}

/// Stores of one kind that are open, by the address of what the suite holds.
struct Open<T>(Mutex<Vec<T>>);

impl<T> Default for Open<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Open<T> {
    fn push(&self, store: T) {
        self.0.lock().expect("no case panics while it holds this").push(store);
    }

    fn find(&self, wanted: impl Fn(&T) -> bool) -> T {
        let open = self.0.lock().expect("no case panics while it holds this");
        open.iter().find(|store| wanted(store)).expect("the suite gives back what it was given").clone()
    }
}

/// Whatever a case did, its store's rows agree with each other.
async fn assert_sound(mut store: Box<dyn WholeStore>) {
    let mut flaws = store.verify(&|_, _| {}).await.expect("what a case leaves can be read").flaws;
    store.close().await;
    // Agents are counted by the control plane, as none of the cases does.
    flaws.retain(|flaw| !flaw.starts_with("quotas "));
    assert!(flaws.is_empty(), "the case leaves flaws: {flaws:#?}");
}

fn same<T: Store>(one: &Arc<T>, other: &Arc<dyn Store>) -> bool {
    std::ptr::addr_eq(Arc::as_ptr(one), Arc::as_ptr(other))
}

#[derive(Default)]
struct Memory(Open<Arc<MemoryStore>>);

#[async_trait]
impl StoreUnderTest for Memory {
    async fn open(&self) -> Arc<dyn Store> {
        let store = Arc::new(MemoryStore::default());
        self.0.push(Arc::clone(&store));
        store
    }

    async fn reopen(&self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        store
    }

    fn blobs(&self, store: &Arc<dyn Store>) -> Option<Arc<dyn BlobStore>> {
        Some(self.0.find(|open| same(open, store)))
    }

    async fn forget_log(&self, store: &Arc<dyn Store>, upto: Revision) {
        self.0.find(|open| same(open, store)).forget_log(upto);
    }
}

#[derive(Default)]
struct Sqlite {
    open: Open<(Arc<SqliteStore>, PathBuf)>,
    directories: Mutex<Vec<TempDir>>,
}

impl Sqlite {
    async fn open_anew(&self) -> Arc<SqliteStore> {
        let directory = TempDir::new().expect("a temporary directory can be made");
        let path = directory.path().to_owned();
        self.directories.lock().expect("no case panics while it holds this").push(directory);
        self.open_in(path).await
    }

    async fn open_in(&self, directory: PathBuf) -> Arc<SqliteStore> {
        let store = SqliteStore::open(SqliteOptions::new(&directory)).await;
        let store = Arc::new(store.unwrap_or_else(|error| panic!("the store does not open: {error}")));
        self.open.push((Arc::clone(&store), directory));
        store
    }

    async fn close(&self) {
        let open = std::mem::take(&mut *self.open.0.lock().expect("no case panics while it holds this"));
        for (store, directory) in open {
            store.close().await;
            let left = SqliteStore::whole(&SqliteOptions::new(directory), Access::Read).await;
            assert_sound(left.expect("what a case leaves can be opened")).await;
        }
    }
}

#[async_trait]
impl StoreUnderTest for Sqlite {
    async fn open(&self) -> Arc<dyn Store> {
        self.open_anew().await
    }

    async fn reopen(&self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        let (old, directory) = self.open.find(|(open, _)| same(open, &store));
        old.close().await;
        self.open_in(directory).await
    }

    fn blobs(&self, store: &Arc<dyn Store>) -> Option<Arc<dyn BlobStore>> {
        Some(self.open.find(|(open, _)| same(open, store)).0)
    }

    async fn forget_log(&self, store: &Arc<dyn Store>, upto: Revision) {
        let (store, _) = self.open.find(|(open, _)| same(open, store));
        store.forget_log(upto).await.expect("the log can be cut");
    }
}

#[async_trait]
impl BlobStoreUnderTest for Memory {
    async fn open(&self) -> Arc<dyn BlobStore> {
        Arc::new(MemoryStore::default())
    }
}

#[async_trait]
impl BlobStoreUnderTest for Sqlite {
    async fn open(&self) -> Arc<dyn BlobStore> {
        self.open_anew().await
    }
}
