#![doc = include_str!("../README.md")]

pub mod agent;
pub mod blob;
pub mod computer;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod control;
pub mod entropy;
pub mod error;
pub mod event;
pub mod ids;
pub mod labels;
pub mod message;
pub mod operator;
pub mod principal;
pub mod program;
pub mod quantity;
pub mod runtime;
pub mod seal;
#[cfg(feature = "simulator")]
pub mod simulator;
pub mod step;
pub mod store;
pub mod trace;
