//! What fuzzers call: it is there in tests and for fuzzers alone. The seeds of `fuzz/seeds` run with the tests of this crate.

#[cfg(test)]
mod tests;

pub use super::agents::gateway::fuzzing::{answer, question};
pub use super::computers::fuzzing::request_for;
