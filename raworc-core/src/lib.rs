//! raworc-core

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

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
