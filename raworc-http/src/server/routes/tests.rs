//! The API over an in-memory store, one request at a time.

mod access;
mod basics;
mod description;
mod hostile;
mod life;
mod log;
mod repeats;
