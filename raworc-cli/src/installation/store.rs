//! Where an installation keeps its rows: a file of its own, or a database that others have too.

use std::sync::Arc;

#[cfg(any(feature = "postgres", feature = "mysql"))]
use raworc_backends::DatabaseOptions;
#[cfg(feature = "mysql")]
use raworc_backends::mysql::MysqlStore;
#[cfg(feature = "postgres")]
use raworc_backends::postgres::PostgresStore;
use raworc_backends::sqlite::{Access, SqliteOptions, SqliteStore};
use raworc_backends::whole::WholeStore;
use raworc_core::control::Parts;
use raworc_core::ids::Revision;
use raworc_core::runtime::Runtimes;
use raworc_core::seal::MasterKey;
use raworc_core::store::{Store, StoreError};
use raworc_http::server::metrics::MeteredStore;
use secrecy::ExposeSecret;

use super::Role;
use crate::exit::{Exit, Failure};
use crate::settings::Settings;

/// A store that is open.
pub(crate) struct Opened(Kind);

enum Kind {
    Sqlite(Arc<SqliteStore>),
    #[cfg(feature = "postgres")]
    Postgres(Arc<PostgresStore>),
    #[cfg(feature = "mysql")]
    Mysql(Arc<MysqlStore>),
}

impl Opened {
    /// Opens what the settings name.
    pub(crate) async fn open(settings: &Settings, role: Role) -> anyhow::Result<Self> {
        let kind = match scheme(settings)? {
            Scheme::Sqlite if role != Role::Both => return Err(only_for_one().into()),
            Scheme::Sqlite => {
                let options = SqliteOptions::new(&settings.data).without_leases();
                let opened = SqliteStore::open(options).await;
                Kind::Sqlite(Arc::new(opened.map_err(|error| directory_failed(settings, error))?))
            }
            #[cfg(feature = "postgres")]
            Scheme::Postgres => {
                let opened = PostgresStore::open(database(settings)?).await;
                Kind::Postgres(Arc::new(opened.map_err(database_failed)?))
            }
            #[cfg(feature = "mysql")]
            Scheme::Mysql => {
                let opened = MysqlStore::open(database(settings)?).await;
                Kind::Mysql(Arc::new(opened.map_err(database_failed)?))
            }
        };
        Ok(Self(kind))
    }

    /// Where it is, without what is secret.
    pub(super) fn place(&self, settings: &Settings) -> String {
        let data = settings.data.display();
        match &self.0 {
            Kind::Sqlite(_) => format!("{data} (SQLite)"),
            #[cfg(feature = "postgres")]
            Kind::Postgres(store) => format!("{data}, rows in {}", store.place()),
            #[cfg(feature = "mysql")]
            Kind::Mysql(store) => format!("{data}, rows in {}", store.place()),
        }
    }

    /// What a control plane is made of, whose commits are counted. Where others share the store, its time is the database's:
    /// what one issues is good at the other.
    pub(super) fn parts(&self, runtimes: Runtimes, master_key: MasterKey) -> Parts {
        let mut parts = match &self.0 {
            Kind::Sqlite(store) => Parts::new(Arc::clone(store), runtimes, master_key),
            #[cfg(feature = "postgres")]
            Kind::Postgres(store) => {
                let clock = store.clock();
                Parts { clock, ..Parts::new(Arc::clone(store), runtimes, master_key) }
            }
            #[cfg(feature = "mysql")]
            Kind::Mysql(store) => {
                let clock = store.clock();
                Parts { clock, ..Parts::new(Arc::clone(store), runtimes, master_key) }
            }
        };
        parts.store = Arc::new(MeteredStore::new(parts.store));
        parts
    }

    /// Whether other processes may have it open as well.
    pub(super) fn is_shared(&self) -> bool {
        !matches!(self.0, Kind::Sqlite(_))
    }

    /// The store itself.
    pub(crate) fn store(&self) -> Arc<dyn Store> {
        match &self.0 {
            Kind::Sqlite(store) => store.clone(),
            #[cfg(feature = "postgres")]
            Kind::Postgres(store) => store.clone(),
            #[cfg(feature = "mysql")]
            Kind::Mysql(store) => store.clone(),
        }
    }

    /// Whether nothing was ever written to it.
    pub(super) async fn is_fresh(&self) -> Result<bool, StoreError> {
        let head = self.store().head().await;
        Ok(head?.value == Revision(0))
    }

    /// Writes what is queued, and gives it free.
    pub(crate) async fn close(&self) {
        match &self.0 {
            Kind::Sqlite(store) => store.close().await,
            #[cfg(feature = "postgres")]
            Kind::Postgres(store) => store.close().await,
            #[cfg(feature = "mysql")]
            Kind::Mysql(store) => store.close().await,
        }
    }
}

fn only_for_one() -> Failure {
    Failure::new(Exit::Usage, "store: SQLite is for one process, and a server or operator alone has others beside it")
        .hint("name a database that all of them share, such as store = 'postgres://raworc@db.example.org/raworc'")
        .hint("or start `raworc up`: server and operator in one process")
}

/// Opens what the settings name as a whole: its tables may be of any release, or not be there.
///
/// # Errors
/// Names the database or the directory and the way out.
pub async fn open_whole(settings: &Settings, access: Access) -> Result<Box<dyn WholeStore>, Failure> {
    match scheme(settings)? {
        Scheme::Sqlite => {
            let options = SqliteOptions::new(&settings.data);
            SqliteStore::whole(&options, access).await.map_err(|error| directory_failed(settings, error))
        }
        #[cfg(feature = "postgres")]
        Scheme::Postgres => PostgresStore::whole(&database(settings)?).await.map_err(database_failed),
        #[cfg(feature = "mysql")]
        Scheme::Mysql => MysqlStore::whole(&database(settings)?).await.map_err(database_failed),
    }
}

/// A kind of store that this build has.
enum Scheme {
    Sqlite,
    #[cfg(feature = "postgres")]
    Postgres,
    #[cfg(feature = "mysql")]
    Mysql,
}

/// Which of them the settings name.
fn scheme(settings: &Settings) -> Result<Scheme, Failure> {
    let address = settings.store.expose_secret();
    // What is no address may still hold a password.
    let scheme = match address.split_once("://") {
        Some((scheme, _)) => scheme,
        None if address == "sqlite" => address,
        None => "an address without ://",
    };
    match scheme {
        "sqlite" => Ok(Scheme::Sqlite),
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => Ok(Scheme::Postgres),
        #[cfg(feature = "mysql")]
        "mysql" | "mariadb" => Ok(Scheme::Mysql),
        _ => Err(Failure::new(Exit::Usage, format!("store: this build keeps rows in {}, not in {scheme}", known()))
            .hint("leave `store` out of the configuration for SQLite in the data directory")),
    }
}

/// The stores of this build.
fn known() -> String {
    let stores = [
        Some("SQLite"),
        cfg!(feature = "postgres").then_some("PostgreSQL (postgres://)"),
        cfg!(feature = "mysql").then_some("MySQL or MariaDB (mysql://)"),
    ];
    stores.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(any(feature = "postgres", feature = "mysql"))]
fn database(settings: &Settings) -> Result<DatabaseOptions, Failure> {
    let options = DatabaseOptions::new(settings.store.expose_secret());
    let Some(path) = &settings.store_password_file else { return Ok(options) };
    let password = std::fs::read_to_string(path).map_err(|error| {
        Failure::new(Exit::Failed, format!("store_password_file: cannot read {}", path.display())).because(error)
    })?;
    Ok(options.with_password(password.trim_end_matches(['\r', '\n'])))
}

#[cfg(any(feature = "postgres", feature = "mysql"))]
fn database_failed(error: StoreError) -> Failure {
    Failure::new(Exit::Failed, "the database cannot be opened").because(error)
}

fn directory_failed(settings: &Settings, error: StoreError) -> Failure {
    let failure = Failure::new(Exit::Failed, "the data directory cannot be opened").because(error);
    failure.hint(format!("it is {}; choose another one with --data DIR or RAWORC_DATA", settings.data.display()))
}
