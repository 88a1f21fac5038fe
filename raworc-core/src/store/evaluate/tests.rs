//! What commits mean.
