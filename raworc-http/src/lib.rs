//! raworc-http
