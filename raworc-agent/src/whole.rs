//! Files that are written whole, or not at all.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use raworc_core::entropy::{EntropyExt, SystemEntropy};

/// A file that takes its place once it is [whole](Self::finish), and is gone if that never comes.
#[derive(Debug)]
pub(crate) struct Draft {
    file: File,
    place: PathBuf,
    fresh: PathBuf,
    mode: u32,
    /// Whose the file was that it takes the place of.
    owner: Option<(u32, u32)>,
}

impl Draft {
    /// Begins one beside `path`. Without a `mode` it has the rights of the file that is there.
    ///
    /// A link to a file stays one, and the file that it names is replaced.
    pub(crate) fn begin(path: &Path, mode: Option<u32>) -> io::Result<Self> {
        let place = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let name = place.file_name().ok_or(io::ErrorKind::InvalidFilename)?.to_string_lossy();
        let random = SystemEntropy.bytes::<6>().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let short = crate::truncate::beginning(&name, 200);
        let fresh = place.with_file_name(format!(".{short}.{random}.part"));
        let before = fs::metadata(&place).ok();
        let mode = mode.or_else(|| before.as_ref().map(|before| before.mode() & 0o777)).unwrap_or(0o644);
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
        Ok(Self { file, place, fresh, mode, owner: before.map(|before| (before.uid(), before.gid())) })
    }

    /// Where its content goes.
    pub(crate) const fn file(&self) -> &File {
        &self.file
    }

    /// Puts it in its place.
    pub(crate) fn finish(self) -> io::Result<()> {
        let own = self.file.metadata()?;
        if let Some((user, group)) = self.owner.filter(|owner| *owner != (own.uid(), own.gid())) {
            // Only root may give a file away; anybody else's is their own from now on.
            fchown(&self.file, Some(user), Some(group)).ok();
        }
        self.file.set_permissions(Permissions::from_mode(self.mode))?;
        fs::rename(&self.fresh, &self.place)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After the rename it is not there any more.
        let _ = fs::remove_file(&self.fresh);
    }
}

/// Writes the file at `path`, with the rights that it had.
pub(crate) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let draft = Draft::begin(path, None)?;
    draft.file().write_all(content)?;
    draft.finish()
}
