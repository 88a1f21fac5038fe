//! The API over an in-memory store, one request at a time.

mod basics;
mod support;
