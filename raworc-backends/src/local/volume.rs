//! Volumes: directories whose files an agent may have shaped to harm whoever walks them.
//!
//! Every step goes by one name from an open directory and follows no link.

mod copy;
mod own;
mod remove;
mod unlock;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown, lchown};
use std::path::Path;

use raworc_core::runtime::RuntimeError;

use super::config::UidRange;
use super::error::{At, refused};
use super::home::private_directory;

pub(crate) use copy::copy;
pub(crate) use own::hand_over;
pub(crate) use remove::remove;
pub(crate) use unlock::rename;

/// The users outside that volumes belong to. The owner of a volume's directory is the record.
#[derive(Debug)]
pub(crate) struct Users {
    range: UidRange,
    used: BTreeSet<u32>,
    next: u32,
}

impl Users {
    /// Reads which users the volumes belong to.
    pub(crate) fn read(range: UidRange, volumes: &Path) -> Result<Self, RuntimeError> {
        let what = "read the volumes' owners";
        let mut used = BTreeSet::new();
        for entry in fs::read_dir(volumes).at(what, volumes)? {
            let entry = entry.at(what, volumes)?;
            used.insert(fs::symlink_metadata(entry.path()).at(what, &entry.path())?.uid());
        }
        let next = used
            .range(range.first..range.first.saturating_add(range.count))
            .next_back()
            .map_or(0, |last| (last - range.first + 1) % range.count.max(1));
        Ok(Self { range, used, next })
    }

    /// Takes a user that no volume has. One that was given back is taken again as late as possible.
    pub(crate) fn take(&mut self) -> Result<u32, RuntimeError> {
        for _ in 0..self.range.count {
            let uid = self.range.first + self.next;
            self.next = (self.next + 1) % self.range.count;
            if self.used.insert(uid) {
                return Ok(uid);
            }
        }
        Err(refused(
            "give the volume a user of its own",
            format!(
                "all {} user ids from {} on are taken; configure a larger range",
                self.range.count, self.range.first
            ),
        ))
    }

    /// Gives a user back.
    pub(crate) fn give_back(&mut self, uid: u32) {
        self.used.remove(&uid);
    }
}

/// The user outside that a volume belongs to.
pub(crate) fn owner(volume: &Path) -> Result<Option<u32>, RuntimeError> {
    match fs::symlink_metadata(volume) {
        Ok(data) => Ok(Some(data.uid())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).at("look at the volume", volume),
    }
}

/// Marks a volume as used by root without isolation: what is written then is root's, whoever the volume belonged to.
pub(crate) fn give_to_root(volume: &Path) -> Result<(), RuntimeError> {
    lchown(volume, Some(0), Some(0)).at("take the volume over", volume)
}

/// Makes an empty volume that belongs to `uid`, whole or not at all.
pub(crate) fn create(volume: &Path, uid: Option<u32>) -> Result<(), RuntimeError> {
    let what = "make the volume";
    let new = volume.with_extension("new");
    private_directory(&new).at(what, &new)?;
    chown(&new, uid, uid).at(what, &new)?;
    fs::rename(&new, volume).at(what, volume)
}
