//! Databases that are there for one test, of every kind.

use std::marker::PhantomData;

use sqlx::{Connection, SqliteConnection};
use tempfile::TempDir;

use super::super::WholeStore;
use super::super::words::Words;
use crate::DatabaseOptions;
use crate::sql::server::Server;
use crate::sql::server::tests::database::Database;
use crate::sql::store::SqlStore;
use crate::sqlite::{Access, Sqlite, SqliteOptions, SqliteStore};

/// A database of some kind that is there for one test.
pub(crate) trait Place: Sync {
    type Words: Words;

    async fn open(&self) -> SqlStore<Self::Words>;

    async fn whole(&self, access: Access) -> Box<dyn WholeStore>;

    async fn conn(&self) -> <Self::Words as crate::sql::dialect::Dialect>::Connection;
}

/// A directory.
pub(crate) struct Directory(pub(crate) TempDir);

impl Directory {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().expect("a temporary directory can be made"))
    }

    pub(crate) fn options(&self) -> SqliteOptions {
        SqliteOptions::new(self.0.path())
    }
}

impl Place for Directory {
    type Words = Sqlite;

    async fn open(&self) -> SqliteStore {
        SqliteStore::open(self.options()).await.expect("can be used")
    }

    async fn whole(&self, access: Access) -> Box<dyn WholeStore> {
        SqliteStore::whole(&self.options(), access).await.expect("can be used")
    }

    async fn conn(&self) -> SqliteConnection {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(self.options().database());
        SqliteConnection::connect_with(&options).await.expect("is there")
    }
}

/// A database on a server.
pub(crate) struct Served<D>(pub(crate) Database, PhantomData<fn() -> D>);

impl<D> Served<D> {
    pub(crate) fn new(database: Database) -> Self {
        Self(database, PhantomData)
    }
}

impl<D: Server> Place for Served<D> {
    type Words = D;

    async fn open(&self) -> SqlStore<D> {
        SqlStore::<D>::open(DatabaseOptions::new(self.0.url())).await.expect("can be used")
    }

    async fn whole(&self, _: Access) -> Box<dyn WholeStore> {
        SqlStore::<D>::whole(&DatabaseOptions::new(self.0.url())).await.expect("can be used")
    }

    async fn conn(&self) -> D::Connection {
        let (to, _) = D::options(&DatabaseOptions::new(self.0.url())).expect("an address");
        crate::sql::server::connect::<D>(&to).await.expect("answers")
    }
}
