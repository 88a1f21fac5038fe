//! A look around from inside, for the probe.

use std::collections::BTreeMap;
use std::{fs, io};

use super::{Failure, Tried};
use crate::local::plan::{Sight, Step};

/// Looks around.
pub(super) fn look() -> Result<Sight, Failure> {
    gather().tried(Step::Files, "look around inside")
}

fn gather() -> io::Result<Sight> {
    let status = fs::read_to_string("/proc/self/status")?;
    let capabilities = status
        .lines()
        .filter_map(|line| line.split_once(":\t"))
        .filter(|(key, _)| ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].contains(key))
        .map(|(_, value)| value.trim().to_owned())
        .collect();
    let namespaces = ["user", "mnt", "pid", "net", "ipc", "uts"]
        .into_iter()
        .map(|name| (name.to_owned(), nix_stat(name)))
        .collect::<BTreeMap<_, _>>();
    let interfaces = fs::read_to_string("/proc/self/net/dev")?
        .lines()
        .skip(2)
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| name.trim().to_owned())
        .collect();
    let sample = "/agent/.raworc-probe";
    let home_writable = fs::write(sample, "x").and_then(|()| fs::remove_file(sample)).is_ok();
    Ok(Sight {
        namespaces,
        processes: names("/proc")?.iter().filter_map(|name| name.parse().ok()).collect(),
        interfaces,
        root: names("/")?,
        uid: rustix::process::geteuid().as_raw(),
        capabilities,
        home_writable,
    })
}

fn nix_stat(name: &str) -> String {
    fs::read_link(format!("/proc/self/ns/{name}")).map(|link| link.display().to_string()).unwrap_or_default()
}

fn names(directory: &str) -> io::Result<Vec<String>> {
    fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}
