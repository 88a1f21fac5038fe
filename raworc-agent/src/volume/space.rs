//! What the volume's file system says of itself, which costs nothing to ask.

use std::path::Path;

/// How full the whole file system is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Space {
    /// Bytes that are used: the volume's own are among them.
    pub(super) used: u64,
    /// Files that could be made yet.
    files: u64,
}

impl Space {
    pub(super) fn of(home: &Path) -> Option<Self> {
        let told = rustix::fs::statvfs(home).ok()?;
        let used = told.f_blocks.saturating_sub(told.f_bfree).saturating_mul(told.f_frsize);
        // One that has no blocks counts nothing.
        (told.f_blocks > 0).then_some(Self { used, files: told.f_ffree })
    }
}
