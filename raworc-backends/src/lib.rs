#![doc = include_str!("../README.md")]

#[cfg(feature = "docker")]
pub mod docker;
#[cfg(feature = "local")]
pub mod local;
#[cfg(feature = "mysql")]
pub mod mysql;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
#[cfg_attr(
    not(all(feature = "sqlite", feature = "postgres", feature = "mysql")),
    allow(dead_code, unreachable_pub, unused_imports, reason = "some of it is for the databases that are left out")
)]
mod sql;
#[cfg(feature = "sqlite")]
pub mod sqlite;

#[cfg(any(feature = "postgres", feature = "mysql"))]
pub use sql::server::DatabaseOptions;

/// A store as a whole: its state, all of it out and in, and whether it is sound.
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub mod whole {
    pub use crate::sql::whole::{
        Contents, LogStatus, Migrated, Status, TableRows, TableSum, Told, Verified, WholeError, WholeStore, read_export,
    };
}
