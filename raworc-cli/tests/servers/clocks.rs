//! Processes whose machines' clocks differ.

use crate::clock::{library, off_by, sweep};
use crate::{Installation, life};

/// By how many seconds the clocks of the processes with these data directories are off.
const OFF: [(&str, i64); 4] = [("first", 300), ("second", -300), ("third", 600), ("operator", -600)];

/// What the process with this data directory is started with.
pub(crate) fn variables(data: &str) -> Vec<(&'static str, String)> {
    let (_, seconds) = OFF.iter().find(|(name, _)| *name == data).expect("a process of these tests");
    off_by(*seconds)
}

fn differ(installation: &Installation, life: fn(&Installation)) {
    library().expect("a process's clock can be set");
    life(&Installation { clocks_differ: true, ..Installation::with(&installation.store) });
    sweep();
}

pub(crate) fn with_two_servers(installation: &Installation) {
    differ(installation, life::with_two_servers);
}

pub(crate) fn a_server_is_killed(installation: &Installation) {
    differ(installation, life::a_server_is_killed);
}

pub(crate) fn told_to_one(installation: &Installation) {
    differ(installation, life::told_to_one);
}
