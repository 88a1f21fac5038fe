//! Where this process' own control groups are, and which controllers they have.

use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

/// The two interfaces of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// A hierarchy for each controller.
    V1,
    /// One hierarchy for all.
    V2,
}

/// What can be limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Controller {
    /// Processor time.
    Cpu,
    /// Memory.
    Memory,
    /// Processes.
    Pids,
}

impl Controller {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Cpu, Self::Memory, Self::Pids];

    const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Pids => "pids",
        }
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The group to which this process moves, so that the one above it can be divided.
const SERVER: &str = "raworc-server";

/// This process' own group in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) version: Version,
    pub(super) controllers: Vec<Controller>,
    pub(super) directory: PathBuf,
}

/// This process' own groups, in each hierarchy that has one of the controllers.
pub(super) fn places() -> io::Result<Vec<Place>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let mut places = locate(&mounts, &own);
    for place in places.iter_mut().filter(|place| place.version == Version::V2) {
        if place.directory.ends_with(SERVER) {
            place.directory.pop();
        }
        let available = fs::read_to_string(place.directory.join("cgroup.controllers")).unwrap_or_default();
        place.controllers = named_in(available.split_ascii_whitespace());
    }
    places.retain(|place| !place.controllers.is_empty());
    Ok(places)
}

fn named_in<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Vec<Controller> {
    Controller::ALL.into_iter().filter(|controller| names.clone().any(|name| name == controller.name())).collect()
}

/// Joins the table of mounts with the list of this process' groups.
fn locate(mounts: &str, own: &str) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    for line in mounts.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let left: Vec<_> = left.split(' ').collect();
        let right: Vec<_> = right.split(' ').collect();
        let ([_, _, _, root, point, ..], [kind, _, options, ..]) = (left.as_slice(), right.as_slice()) else {
            continue;
        };
        let (version, controllers) = match *kind {
            "cgroup" => (Version::V1, named_in(options.split(','))),
            "cgroup2" => (Version::V2, Vec::new()),
            _ => continue,
        };
        let path = own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (number, names, path) = (fields.next()?, fields.next()?, fields.next()?);
            let found = match version {
                Version::V1 => !controllers.is_empty() && named_in(names.split(',')) == controllers,
                Version::V2 => number == "0" && names.is_empty(),
            };
            found.then_some(path)
        });
        let Some(path) = path else { continue };
        // Inside a container the mount begins at the container's group, by whatever name it goes outside.
        let below = path.strip_prefix(root.trim_end_matches('/')).unwrap_or(path);
        let directory = Path::new(point).join(below.trim_start_matches('/'));
        if !places.iter().any(|place| place.version == version && place.controllers == controllers) {
            places.push(Place { version, controllers, directory });
        }
    }
    places
}

/// Lets the groups below `directory` use `controllers`, in version 2.
///
/// A group with processes cannot, so this process moves to one of its own below.
pub(super) fn delegate(directory: &Path, controllers: &[Controller]) -> io::Result<()> {
    let switch = directory.join("cgroup.subtree_control");
    let enabled = fs::read_to_string(&switch)?;
    let wanted: Vec<_> = controllers
        .iter()
        .filter(|controller| !enabled.split_ascii_whitespace().any(|name| name == controller.name()))
        .map(|controller| format!("+{controller}"))
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let wanted = wanted.join(" ");
    match fs::write(&switch, &wanted) {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            let own = directory.join(SERVER);
            super::make(&own)?;
            fs::write(own.join("cgroup.procs"), "0")?;
            fs::write(&switch, &wanted)
        }
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_hierarchies_are_found_with_their_controllers() {
        let mounts = "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
            35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
            36 31 0:33 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let own = "5:devices:/\n4:memory:/outer/one\n1:cpu:/\n0::/\n";
        let place = |version, controllers: &[Controller], directory: &str| Place {
            version,
            controllers: controllers.to_vec(),
            directory: directory.into(),
        };
        assert_eq!(
            locate(mounts, own),
            [
                place(Version::V1, &[Controller::Cpu], "/sys/fs/cgroup/cpu/"),
                place(Version::V1, &[Controller::Memory], "/sys/fs/cgroup/memory/outer/one"),
                place(Version::V2, &[], "/sys/fs/cgroup/unified/"),
            ]
        );
    }

    #[test]
    fn inside_a_container_the_path_begins_at_its_own_group() {
        let mounts = "32 31 0:29 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        let found = locate(mounts, "0::/docker/abc/app\n");
        assert_eq!(found[0].directory, Path::new("/sys/fs/cgroup/app"));
    }

    #[test]
    fn a_controller_is_switched_on_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let switch = directory.path().join("cgroup.subtree_control");
        fs::write(&switch, "memory").expect("written");
        delegate(directory.path(), &[Controller::Memory, Controller::Pids]).expect("switched");
        assert_eq!(fs::read_to_string(&switch).expect("read"), "+pids");
        fs::write(&switch, "memory pids").expect("written");
        delegate(directory.path(), &[Controller::Memory, Controller::Pids]).expect("nothing to do");
        assert_eq!(fs::read_to_string(&switch).expect("read"), "memory pids");
    }
}
