//! raworc-backends
