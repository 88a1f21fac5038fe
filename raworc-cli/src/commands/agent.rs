//! `raworc agent ...`, one module for each verb.

pub mod spec;
