//! `GET /stats`: what the computer uses.

use std::path::{Path, PathBuf};

use http::Response;
use raworc_core::program::ComputerStats;

use super::reply::{Body, LinkError, respond_json};
use crate::processes;

/// Processes, memory, processor time and disk.
pub(super) async fn read(home: &Path) -> Result<Response<Body>, LinkError> {
    let home = home.to_owned();
    let stats = tokio::task::spawn_blocking(move || stats(home)).await;
    let stats = stats.map_err(|error| LinkError::conflict(format!("the computer cannot be looked at: {error}")))?;
    respond_json(&stats)
}

fn stats(home: PathBuf) -> ComputerStats {
    let all = processes::all();
    let ticks: u64 = all.iter().map(|process| process.ticks).sum();
    let pages: u64 = all.iter().map(|process| process.pages).sum();
    let disk = rustix::fs::statvfs(home).ok();
    ComputerStats {
        processes: all.len() as u64,
        memory_bytes: pages * rustix::param::page_size() as u64,
        cpu_seconds: ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
        disk_bytes: disk.map(|disk| disk.f_blocks.saturating_sub(disk.f_bfree) * disk.f_frsize),
    }
}
