#![doc = include_str!("../README.md")]

#[cfg(feature = "docker")]
pub mod docker;
#[cfg(feature = "local")]
pub mod local;
#[cfg(feature = "sqlite")]
pub mod sqlite;
