//! Whether this machine lets computers be cut off, shown by one that is.

use std::fs;
use std::path::Path;

use raworc_core::runtime::RuntimeError;

use super::error::refused;
use super::plan::{Sight, Step};

/// What a computer of this machine sees, as the probe found it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProbeReport {
    /// Network interfaces inside: the loopback one alone.
    pub interfaces: Vec<String>,
    /// Entries of `/` inside.
    pub root: Vec<String>,
    /// Why limits on cpu, memory or processes are not enforced, where they are not.
    pub limits_missing: Option<String>,
}

/// Holds what a computer saw against what it may see.
pub(crate) fn judge(sight: Sight, limits_missing: Option<String>) -> Result<ProbeReport, RuntimeError> {
    let mut faults = Vec::new();
    for (name, inside) in &sight.namespaces {
        let outside = fs::read_link(format!("/proc/self/ns/{name}"));
        let outside = outside.map(|link| link.display().to_string()).unwrap_or_default();
        if inside.is_empty() || *inside == outside {
            faults.push(format!("its {name} namespace is the machine's"));
        }
    }
    if sight.processes != [1] {
        faults.push(format!("it sees the processes {:?}, not itself alone", sight.processes));
    }
    if sight.interfaces != ["lo"] {
        faults.push(format!("it has the network interfaces {:?}, not lo alone", sight.interfaces));
    }
    for name in ["root", "sys", "boot"] {
        if sight.root.iter().any(|entry| entry == name) {
            faults.push(format!("it sees /{name}"));
        }
    }
    if sight.uid != super::init::AGENT {
        faults.push(format!("it runs as user {}", sight.uid));
    }
    if sight.capabilities.len() != 5 || sight.capabilities.iter().any(|set| set.bytes().any(|digit| digit != b'0')) {
        faults.push(format!("it has the capabilities {:?}", sight.capabilities));
    }
    if !sight.home_writable {
        faults.push("it cannot write to /agent".into());
    }
    if faults.is_empty() {
        Ok(ProbeReport { interfaces: sight.interfaces, root: sight.root, limits_missing })
    } else {
        Err(refused("isolate a computer", format!("it was started, but {}", faults.join("; "))))
    }
}

/// What a person can do where the helper failed at `step`; begins with a line break.
pub(crate) fn way_out(step: Step) -> String {
    let mut ways = Vec::new();
    match step {
        Step::Namespaces | Step::User | Step::Files => {
            if number("/proc/sys/user/max_user_namespaces") == Some(0) {
                ways.push("allow user namespaces: sysctl user.max_user_namespaces=10000".to_owned());
            }
            if number("/proc/sys/kernel/unprivileged_userns_clone") == Some(0) {
                ways.push("allow user namespaces: sysctl kernel.unprivileged_userns_clone=1".into());
            }
            if number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == Some(1) {
                ways.push(
                    "allow user namespaces: sysctl kernel.apparmor_restrict_unprivileged_userns=0, or run as root"
                        .into(),
                );
            }
            if in_container() {
                ways.push(
                    "start the container with --cap-add SYS_ADMIN --security-opt seccomp=unconfined \
                     --security-opt apparmor=unconfined"
                        .into(),
                );
            }
            if ways.is_empty() {
                ways.push("run as root".into());
            }
        }
        Step::Proc => ways.push(
            "start the container with --security-opt systempaths=unconfined (docker) or --security-opt unmask=ALL \
             (podman)"
                .into(),
        ),
        Step::Cgroup | Step::Network | Step::Privileges | Step::Plan | Step::Program => {}
    }
    ways.push("or go without isolation by --no-isolation, which lets agents do all that you may do".into());
    format!("\nThe way out: {}", ways.join("; "))
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn in_container() -> bool {
    ["/.dockerenv", "/run/.containerenv"].iter().any(|path| Path::new(path).exists())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn good() -> Sight {
        Sight {
            namespaces: BTreeMap::from([("net".into(), "net:[1]".into())]),
            processes: vec![1],
            interfaces: vec!["lo".into()],
            root: vec!["agent".into(), "usr".into()],
            uid: 1000,
            capabilities: vec!["0000000000000000".into(); 5],
            home_writable: true,
        }
    }

    #[test]
    fn a_computer_that_sees_too_much_is_refused_with_all_that_it_sees() {
        assert!(judge(good(), None).is_ok());
        let own = fs::read_link("/proc/self/ns/net").expect("a link").display().to_string();
        let bad = Sight {
            namespaces: BTreeMap::from([("net".into(), own)]),
            processes: vec![1, 2],
            interfaces: vec!["lo".into(), "eth0".into()],
            root: vec!["root".into()],
            uid: 0,
            capabilities: vec!["1".into(); 5],
            home_writable: false,
        };
        let error = judge(bad, None).expect_err("refused").to_string();
        for word in ["net namespace", "[1, 2]", "eth0", "/root", "user 0", "capabilities", "/agent"] {
            assert!(error.contains(word), "{word}: {error}");
        }
    }

    #[test]
    fn every_way_out_ends_with_the_override() {
        for step in [Step::Namespaces, Step::Proc, Step::Network] {
            assert!(way_out(step).contains("--no-isolation"));
        }
    }
}
