//! Limits on cpu, memory and processes by control groups, of version 1 and 2.

mod find;

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use raworc_core::ids::ComputerId;
use raworc_core::runtime::LimitsReached;

use super::process::Identity;
pub(crate) use find::{Controller, Version};

/// Limits of one computer.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Limits {
    /// Thousandths of a core.
    pub(crate) cpu_millis: Option<u32>,
    /// Bytes.
    pub(crate) memory: Option<u64>,
    /// Processes and threads.
    pub(crate) pids: Option<u32>,
}

/// Processes that belong to the helper, beside those of the program.
const HELPERS: u64 = 2;

/// A period in which processor time is shared out, in microseconds.
const CPU_PERIOD: u64 = 100_000;

/// The groups of an installation, one in each hierarchy that can be written to.
#[derive(Debug, Default)]
pub(crate) struct Cgroups {
    parents: Vec<Parent>,
    missing: Vec<String>,
}

#[derive(Debug, Clone)]
struct Parent {
    version: Version,
    controllers: Vec<Controller>,
    directory: PathBuf,
}

impl Cgroups {
    /// Makes the installation's groups below the caller's own, as far as the system lets it.
    pub(crate) fn prepare(installation: &str) -> Self {
        let mut cgroups = Self::default();
        let places = match find::places() {
            Ok(places) => places,
            Err(error) => {
                cgroups.missing.push(format!("control groups cannot be found: {error}"));
                return cgroups;
            }
        };
        for controller in Controller::ALL {
            if !places.iter().any(|place| place.controllers.contains(&controller)) {
                cgroups.missing.push(format!(
                    "{controller}: no control group of this process has it; run as a service with Delegate=yes, \
                     or as root"
                ));
            }
        }
        for place in places {
            let directory = place.directory.join(format!("raworc-{installation}"));
            let made = match place.version {
                Version::V1 => make(&directory),
                Version::V2 => find::delegate(&place.directory, &place.controllers)
                    .and_then(|()| make(&directory))
                    .and_then(|()| find::delegate(&directory, &place.controllers)),
            };
            match made {
                Ok(()) => {
                    cgroups.parents.push(Parent { version: place.version, controllers: place.controllers, directory })
                }
                Err(error) => {
                    let names: Vec<_> = place.controllers.iter().map(ToString::to_string).collect();
                    cgroups.missing.push(format!(
                        "{}: the control group {} cannot be made: {error}; run as a service with Delegate=yes, or as root",
                        names.join(", "),
                        directory.display()
                    ));
                }
            }
        }
        cgroups
    }

    /// Why limits are not enforced, where they are not.
    pub(crate) fn missing(&self) -> Option<String> {
        (!self.missing.is_empty()).then(|| self.missing.join("; "))
    }

    /// Whether some hierarchy holds this controller.
    pub(crate) fn has(&self, controller: Controller) -> bool {
        self.parents.iter().any(|parent| parent.controllers.contains(&controller))
    }

    /// Makes the groups of one start of a computer, with its limits.
    pub(crate) fn create(&self, computer: ComputerId, limits: Limits) -> io::Result<Group> {
        let mut group = Group::default();
        for parent in &self.parents {
            let directory = parent.directory.join(computer.to_string());
            let part = Part { version: parent.version, directory };
            make(&part.directory).map_err(|error| named(&part.directory, &error))?;
            for controller in &parent.controllers {
                part.limit(*controller, limits)?;
            }
            group.parts.push(part);
        }
        Ok(group)
    }

    /// Groups that an earlier process left behind.
    pub(crate) fn leftovers(&self) -> Vec<PathBuf> {
        self.parents
            .iter()
            .flat_map(|parent| fs::read_dir(&parent.directory).into_iter().flatten().flatten())
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect()
    }

    /// Takes the installation's own groups away. What still holds a computer stays.
    pub(crate) fn remove(&self) {
        for parent in &self.parents {
            fs::remove_dir(&parent.directory).ok();
        }
    }
}

/// What a group's counters tell of a start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Hits {
    /// Processes that were ended because memory ran out.
    pub(crate) out_of_memory: u64,
    /// Times that no process could be made.
    pub(crate) out_of_pids: u64,
}

impl Hits {
    /// Which limits were reached.
    pub(crate) fn reached(self) -> LimitsReached {
        let mut reached = LimitsReached::default();
        reached.memory = self.out_of_memory > 0;
        reached.pids = self.out_of_pids > 0;
        reached
    }
}

/// The groups of one start.
#[derive(Debug, Clone, Default)]
pub(crate) struct Group {
    parts: Vec<Part>,
}

#[derive(Debug, Clone)]
struct Part {
    version: Version,
    directory: PathBuf,
}

impl Group {
    /// Groups that stand at these directories.
    pub(crate) fn at(directories: impl IntoIterator<Item = PathBuf>) -> Self {
        let parts = directories.into_iter().map(|directory| {
            let version = if directory.join("cgroup.kill").exists() { Version::V2 } else { Version::V1 };
            Part { version, directory }
        });
        Self { parts: parts.collect() }
    }

    /// Whether there is none, so that nothing tells which processes belong to them.
    pub(crate) fn is_nowhere(&self) -> bool {
        self.parts.is_empty()
    }

    /// Where they stand.
    pub(crate) fn directories(&self) -> Vec<PathBuf> {
        self.parts.iter().map(|part| part.directory.clone()).collect()
    }

    /// Where a process writes itself to enter them.
    pub(crate) fn entries(&self) -> Vec<PathBuf> {
        self.parts.iter().map(|part| part.directory.join("cgroup.procs")).collect()
    }

    /// What their counters tell.
    pub(crate) fn hits(&self) -> Hits {
        let mut hits = Hits::default();
        for part in &self.parts {
            let (memory, key) = match part.version {
                Version::V1 => ("memory.oom_control", "oom_kill"),
                Version::V2 => ("memory.events", "oom_kill"),
            };
            hits.out_of_memory = hits.out_of_memory.max(counter(&part.directory.join(memory), key));
            hits.out_of_pids = hits.out_of_pids.max(counter(&part.directory.join("pids.events"), "max"));
        }
        hits
    }

    fn processes(&self) -> Vec<u32> {
        let mut pids: Vec<u32> = self
            .entries()
            .iter()
            .filter_map(|file| fs::read_to_string(file).ok())
            .flat_map(|text| text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<_>>())
            .collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Ends every process in them and takes them away; waits up to `limit` for that.
    pub(crate) async fn end(&self, limit: Duration) -> io::Result<()> {
        let deadline = tokio::time::Instant::now() + limit;
        let mut pause = Duration::from_millis(1);
        loop {
            for part in self.parts.iter().filter(|part| part.version == Version::V2) {
                fs::write(part.directory.join("cgroup.kill"), "1").ok();
            }
            let left = self.processes();
            for pid in &left {
                if let Some(process) = Identity::of(*pid) {
                    process.kill();
                }
            }
            if left.is_empty() {
                match self.remove() {
                    Ok(()) => return Ok(()),
                    Err(error) if tokio::time::Instant::now() >= deadline => return Err(error),
                    Err(_) => {}
                }
            } else if tokio::time::Instant::now() >= deadline {
                return Err(io::Error::other(format!("{} processes do not end", left.len())));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    fn remove(&self) -> io::Result<()> {
        for part in &self.parts {
            match fs::remove_dir(&part.directory) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(named(&part.directory, &error)),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}

impl Part {
    fn limit(&self, controller: Controller, limits: Limits) -> io::Result<()> {
        let v1 = self.version == Version::V1;
        match controller {
            Controller::Cpu => {
                let quota = limits.cpu_millis.map(|millis| (u64::from(millis) * CPU_PERIOD / 1000).max(1000));
                if v1 {
                    self.write("cpu.cfs_period_us", &CPU_PERIOD.to_string())?;
                    self.write("cpu.cfs_quota_us", &quota.map_or("-1".into(), |quota| quota.to_string()))
                } else {
                    let quota = quota.map_or("max".into(), |quota| quota.to_string());
                    self.write("cpu.max", &format!("{quota} {CPU_PERIOD}"))
                }
            }
            Controller::Memory => {
                let none = if v1 { "-1" } else { "max" };
                let limit = limits.memory.map_or(none.into(), |bytes| bytes.to_string());
                let (file, swap, swap_limit) = if v1 {
                    ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", limit.as_str())
                } else {
                    ("memory.max", "memory.swap.max", if limits.memory.is_some() { "0" } else { none })
                };
                self.write(file, &limit)?;
                // Swap is counted by some kernels only.
                if self.directory.join(swap).exists() { self.write(swap, swap_limit) } else { Ok(()) }
            }
            Controller::Pids => {
                let limit = limits.pids.map_or("max".into(), |pids| (u64::from(pids) + HELPERS).to_string());
                self.write("pids.max", &limit)
            }
        }
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        let path = self.directory.join(file);
        fs::write(&path, text).map_err(|error| named(&path, &error))
    }
}

fn make(directory: &Path) -> io::Result<()> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// The number after `key` in a file of keys and numbers; 0 where there is none.
fn counter(file: &Path, key: &str) -> u64 {
    fs::read_to_string(file)
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == key)
        .and_then(|(_, number)| number.trim().parse().ok())
        .unwrap_or(0)
}
