//! Stores in database servers, each case in a database of its own.

use std::sync::Arc;

use async_trait::async_trait;
use libtest_mimic::Trial;
use raworc_backends::DatabaseOptions;
use raworc_backends::mysql::MysqlStore;
use raworc_backends::postgres::PostgresStore;
use raworc_backends::whole::WholeStore;
use raworc_core::blob::BlobStore;
use raworc_core::ids::Revision;
use raworc_core::store::conformance::{BlobStoreUnderTest, StoreUnderTest, blob_cases, cases};
use raworc_core::store::{Store, StoreError};

use self::database::Database;
use super::{Open, assert_sound, same};
use crate::required::{Required, run};

#[path = "../../../../raworc-backends/src/sql/server/tests/database.rs"]
mod database;

/// Every case against every server that this machine has.
pub(crate) fn trials(required: &Required) -> Vec<Trial> {
    let mut trials = of::<Postgres>("postgres", required);
    // The same by way of a pooler, for `scripts/storm`.
    trials.extend(of::<Postgres>("pgbouncer", required).into_iter().map(|trial| trial.with_ignored_flag(true)));
    trials.extend(of::<Mysql>("mariadb", required));
    trials.extend(of::<Mysql>("mysql", required));
    trials
}

fn of<K: Kind>(name: &'static str, required: &Required) -> Vec<Trial> {
    let server = database::server(name);
    let is_ignored = server.is_err() && !required.contains(name);
    let mut trials = Vec::new();
    for case in cases() {
        let server = server.clone();
        trials.push(Trial::test(format!("{name}::{}", case.name), move || {
            let server = server?;
            run(Database::with(&server, |database| async {
                let subject = Server::<K>::in_database(database);
                case.run(Arc::clone(&subject) as Arc<dyn StoreUnderTest>).await;
                subject.close().await;
            }))
        }));
    }
    for case in blob_cases() {
        let server = server.clone();
        trials.push(Trial::test(format!("{name}::{}", case.name), move || {
            let server = server?;
            run(Database::with(&server, |database| async {
                let subject = Server::<K>::in_database(database);
                case.run(Arc::clone(&subject) as Arc<dyn BlobStoreUnderTest>).await;
                subject.close().await;
            }))
        }));
    }
    trials.into_iter().map(|trial| trial.with_ignored_flag(is_ignored)).collect()
}

/// A kind of server.
#[async_trait]
trait Kind: Send + Sync + 'static {
    type Store: Store + BlobStore + 'static;

    async fn open(options: DatabaseOptions) -> Result<Self::Store, StoreError>;
    async fn close(store: &Self::Store);
    async fn whole(options: &DatabaseOptions) -> Result<Box<dyn WholeStore>, StoreError>;
    async fn forget_log(store: &Self::Store, upto: Revision) -> Result<(), StoreError>;
}

macro_rules! kinds {
    ($($kind:ident: $store:ty;)+) => {$(
        struct $kind;

        #[async_trait]
        impl Kind for $kind {
            type Store = $store;

            async fn open(options: DatabaseOptions) -> Result<$store, StoreError> {
                <$store>::open(options).await
            }

            async fn close(store: &$store) {
                store.close().await;
            }

            async fn whole(options: &DatabaseOptions) -> Result<Box<dyn WholeStore>, StoreError> {
                <$store>::whole(options).await
            }

            async fn forget_log(store: &$store, upto: Revision) -> Result<(), StoreError> {
                store.forget_log(upto).await
            }
        }
    )+};
}

kinds! {
    Postgres: PostgresStore;
    Mysql: MysqlStore;
}

/// Stores in one database: a case has one, however many processes have it open.
struct Server<K: Kind> {
    database: Database,
    open: Open<Arc<K::Store>>,
}

impl<K: Kind> Server<K> {
    fn in_database(database: Database) -> Arc<Self> {
        Arc::new(Self { database, open: Open::default() })
    }

    async fn open_beside(&self) -> Arc<K::Store> {
        let store = K::open(DatabaseOptions::new(self.database.url())).await;
        let store = Arc::new(store.unwrap_or_else(|error| panic!("the store does not open: {error}")));
        self.open.push(Arc::clone(&store));
        store
    }

    /// Ends every process.
    async fn close(&self) {
        let open = std::mem::take(&mut *self.open.0.lock().expect("no case panics while it holds this"));
        for store in open {
            K::close(&store).await;
        }
        let left = K::whole(&DatabaseOptions::new(self.database.url())).await;
        assert_sound(left.expect("what a case leaves can be opened")).await;
    }
}

#[async_trait]
impl<K: Kind> StoreUnderTest for Server<K> {
    async fn open(&self) -> Arc<dyn Store> {
        assert!(self.open.0.lock().expect("no case panics while it holds this").is_empty(), "a case has one database");
        self.open_beside().await
    }

    async fn beside(&self, _store: &Arc<dyn Store>) -> Arc<dyn Store> {
        self.open_beside().await
    }

    async fn reopen(&self, _store: Arc<dyn Store>) -> Arc<dyn Store> {
        self.close().await;
        self.open_beside().await
    }

    fn blobs(&self, store: &Arc<dyn Store>) -> Option<Arc<dyn BlobStore>> {
        Some(self.open.find(|open| same(open, store)))
    }

    async fn forget_log(&self, store: &Arc<dyn Store>, upto: Revision) {
        K::forget_log(&self.open.find(|open| same(open, store)), upto).await.expect("the log can be cut");
    }
}

#[async_trait]
impl<K: Kind> BlobStoreUnderTest for Server<K> {
    async fn open(&self) -> Arc<dyn BlobStore> {
        self.open_beside().await
    }
}
