//! Files that are written whole, or not at all.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use raworc_core::entropy::{EntropyExt, SystemEntropy};

/// A file that takes its place once it is [whole](Self::finish), and is gone if that never comes.
#[derive(Debug)]
pub(crate) struct Draft {
    file: File,
    place: PathBuf,
    fresh: PathBuf,
    /// The rights that were asked for.
    asked: Option<u32>,
    mode: u32,
    /// Whose the file was that it takes the place of.
    owner: Option<(u32, u32)>,
    /// Whether what is there stays the file that it is, and is given the content.
    in_place: bool,
}

impl Draft {
    /// Begins one beside `path`. Without a `mode` it has the rights of the file that is there.
    ///
    /// A link to a file stays one, and the file that it names is replaced. What cannot be replaced, or has other names, is
    /// given the content in place once that is whole.
    pub(crate) fn begin(path: &Path, mode: Option<u32>) -> io::Result<Self> {
        let place = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let name = place.file_name().ok_or(io::ErrorKind::InvalidFilename)?.to_string_lossy();
        let random = hex::encode(SystemEntropy.bytes::<6>());
        let short = crate::truncate::beginning(&name, 200);
        let part = format!(".{short}.{random}.part");
        let before = fs::metadata(&place).ok();
        let asked = mode;
        let mode = asked.or_else(|| before.as_ref().map(|before| before.mode() & 0o777)).unwrap_or(0o644);
        let mut in_place = before.as_ref().map_or_else(|| place.is_symlink(), |before| before.nlink() > 1);
        let mut fresh = place.with_file_name(&part);
        let file = match open(&fresh, if in_place { 0o600 } else { mode }) {
            Err(error) if keeps_to_its_place(&error) && OpenOptions::new().write(true).open(&place).is_ok() => {
                in_place = true;
                fresh = std::env::temp_dir().join(&part);
                open(&fresh, 0o600).map_err(|_| error)?
            }
            file => file?,
        };
        let owner = before.map(|before| (before.uid(), before.gid()));
        Ok(Self { file, place, fresh, asked, mode, owner, in_place })
    }

    /// Where its content goes.
    pub(crate) const fn file(&self) -> &File {
        &self.file
    }

    /// Puts it in its place.
    pub(crate) fn finish(self) -> io::Result<()> {
        if self.in_place {
            return self.overwrite();
        }
        match self.replace() {
            Err(error) if keeps_to_its_place(&error) && self.place.is_file() => self.overwrite(),
            done => done,
        }
    }

    fn replace(&self) -> io::Result<()> {
        let own = self.file.metadata()?;
        if let Some((user, group)) = self.owner.filter(|owner| *owner != (own.uid(), own.gid())) {
            // Only root may give a file away; anybody else's is their own from now on.
            fchown(&self.file, Some(user), Some(group)).ok();
        }
        self.file.set_permissions(Permissions::from_mode(self.mode))?;
        fs::rename(&self.fresh, &self.place)
    }

    fn overwrite(&self) -> io::Result<()> {
        let mut place = OpenOptions::new().write(true).create(true).truncate(true).mode(self.mode).open(&self.place)?;
        let mut content = &self.file;
        content.rewind()?;
        io::copy(&mut content, &mut place)?;
        let now = place.metadata()?.mode() & 0o7777;
        match self.asked.filter(|asked| *asked != now) {
            Some(asked) => place.set_permissions(Permissions::from_mode(asked)),
            None => Ok(()),
        }
    }
}

/// Read and write: what cannot be put in its place is copied there.
fn open(fresh: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(fresh)
}

/// Whether a file may be written all the same, of which this was said when it was to be replaced: its directory is
/// another's, or the kernel's, or something is mounted there.
fn keeps_to_its_place(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let reasons = [Errno::ACCESS, Errno::PERM, Errno::ROFS, Errno::BUSY, Errno::XDEV, Errno::NOENT];
    Errno::from_io_error(error).is_some_and(|error| reasons.contains(&error))
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn read(path: &Path) -> String {
        fs::read_to_string(path).expect("there")
    }

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("set");
    }

    /// Runs it as somebody whom rights bind, whoever runs the test.
    fn as_a_user<T: Send>(run: impl FnOnce() -> T + Send) -> T {
        let user = move || {
            if rustix::process::geteuid().is_root() {
                let (group, user) = (rustix::fs::Gid::from_raw(65_534), rustix::fs::Uid::from_raw(65_534));
                rustix::thread::set_thread_res_gid(group, group, group).expect("set");
                rustix::thread::set_thread_res_uid(user, user, user).expect("set");
            }
            run()
        };
        std::thread::scope(|scope| scope.spawn(user).join().expect("it runs"))
    }

    #[test]
    fn a_file_with_another_name_has_one_content_under_both() {
        let home = tempfile::tempdir().expect("a directory");
        let (one, other) = (home.path().join("one"), home.path().join("other"));
        fs::write(&one, "a longer text").and_then(|()| fs::hard_link(&one, &other)).expect("made");
        write(&one, b"new").expect("written");
        assert_eq!((read(&one), read(&other)), ("new".into(), "new".into()));
        let draft = Draft::begin(&other, Some(0o640)).expect("begun");
        draft.file().write_all(b"newer").expect("written");
        assert_eq!(read(&one), "new", "it is not whole yet");
        draft.finish().expect("finished");
        assert_eq!((read(&one), read(&other)), ("newer".into(), "newer".into()));
        assert_eq!(fs::metadata(&one).expect("there").mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(home.path()).expect("a list").count(), 2, "nothing else is left");
    }

    #[test]
    fn a_link_to_what_is_not_there_stays_one_and_what_it_names_is_made() {
        let home = tempfile::tempdir().expect("a directory");
        let (link, named) = (home.path().join("link"), home.path().join("named"));
        symlink("named", &link).expect("linked");
        write(&link, b"new").expect("written");
        assert!(link.is_symlink());
        assert_eq!(read(&named), "new");
        assert_eq!(fs::read_dir(home.path()).expect("a list").count(), 2, "nothing else is left");
    }

    #[test]
    fn a_file_that_may_be_written_is_though_its_directory_may_not() {
        let home = tempfile::tempdir().expect("a directory");
        let (open, shut) = (home.path().join("open"), home.path().join("shut"));
        for (file, mode) in [(&open, 0o666), (&shut, 0o444)] {
            fs::write(file, "a longer text").expect("made");
            set(file, mode);
        }
        set(home.path(), 0o555);
        let written = as_a_user(|| write(&open, b"new"));
        let refused = [&shut, &home.path().join("fresh")].map(|path| as_a_user(|| write(path, b"new")));
        set(home.path(), 0o755);
        written.expect("written");
        assert_eq!((read(&open), read(&shut)), ("new".into(), "a longer text".into()));
        for refused in refused {
            assert_eq!(refused.expect_err("it may not be written").kind(), io::ErrorKind::PermissionDenied);
        }
        assert_eq!(fs::metadata(&open).expect("there").mode() & 0o777, 0o666);
        assert_eq!(fs::read_dir(home.path()).expect("a list").count(), 2, "nothing else is left");
    }
}
