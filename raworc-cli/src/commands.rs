//! One module for each verb.

pub mod agent;
pub mod apart;
#[cfg(feature = "bench")]
pub mod bench;
pub mod chat;
pub mod completion;
pub mod context;
pub mod events;
pub mod history;
#[cfg(feature = "docker")]
pub mod image;
pub mod login;
pub mod quickstart;
pub mod reference;
pub mod send;
pub mod store;
pub mod up;
pub mod version;
pub mod work;
