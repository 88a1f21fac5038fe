//! One module for each verb.

pub mod agent;
pub mod completion;
pub mod reference;
pub mod version;
