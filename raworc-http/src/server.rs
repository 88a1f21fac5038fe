//! The server: the API's router, and what it stands on.

pub mod agents;
pub mod computers;
pub mod error;
pub mod tokens;

pub use error::ApiError;
pub use tokens::Tokens;
