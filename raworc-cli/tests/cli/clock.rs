//! Processes whose clocks are off, by Debian's package `libfaketime`.

use std::fs::{read_dir, remove_file};
use std::path::{Path, PathBuf};

/// What sets a process's clock.
///
/// # Errors
/// Says how to have it.
pub(crate) fn library() -> Result<PathBuf, String> {
    let libraries = read_dir("/usr/lib").into_iter().flatten().flatten();
    let mut libraries = libraries.map(|directory| directory.path().join("faketime/libfaketime.so.1"));
    libraries.find(|library| library.exists()).ok_or_else(|| "Debian's package libfaketime is not installed".to_owned())
}

/// What a process is started with whose clock is off by so many seconds; nothing where that cannot be.
pub(crate) fn off_by(seconds: i64) -> Vec<(&'static str, String)> {
    let Ok(library) = library() else { return Vec::new() };
    vec![
        ("LD_PRELOAD", library.display().to_string()),
        ("FAKETIME", format!("{seconds:+}s")),
        // Clocks that measure what has passed are alike everywhere.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ]
}

/// Takes away what the library has left of processes that were killed.
pub(crate) fn sweep() {
    for entry in read_dir("/dev/shm").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let of = name.strip_prefix("sem.").unwrap_or(&name).strip_prefix("faketime_").and_then(|name| name.get(4..));
        if of.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Another test may have been quicker.
            let _ = remove_file(entry.path());
        }
    }
}
