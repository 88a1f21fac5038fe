//! raworc-core

pub mod agent;
pub mod blob;
pub mod computer;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod entropy;
pub mod event;
pub mod ids;
pub mod labels;
pub mod message;
pub mod principal;
pub mod program;
pub mod quantity;
pub mod runtime;
pub mod step;
pub mod store;
