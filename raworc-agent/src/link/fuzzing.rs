//! What fuzzers reach of the link: archives, and the path that a request names.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::archive::{read_tree, write_tree};
use super::reply::Query;

/// What lies at a path: what kind it is, its rights, and what is in it.
type Tree = BTreeMap<PathBuf, (char, u32, Vec<u8>)>;

/// An archive, whatever is in it, writes nothing outside of its directory; and what it made, packed and unpacked again,
/// is the same. `scratch` is an empty directory.
///
/// # Panics
/// Where that is not so.
pub fn archive(data: &[u8], scratch: &Path) {
    if has_holes(data) {
        // A few bytes of an archive stand for terabytes of zeros then, which the disk of the fuzzer does not have.
        return;
    }
    let made = |name: &str| {
        let directory = scratch.join(name);
        fs::create_dir(&directory).expect("made");
        directory
    };
    let (inside, outside, again) = (made("inside"), made("outside"), made("again"));
    fs::write(outside.join("kept"), "kept").expect("written");
    let before = tree(&outside);

    let unpacked = read_tree(&inside, data);

    assert_eq!(tree(&outside), before, "something was written outside");
    let names = fs::read_dir(scratch).expect("there").count();
    assert_eq!(names, 3, "something was made beside the directory");
    if unpacked.is_err() {
        return;
    }
    let there = tree(&inside);
    let mut packed = Vec::new();
    write_tree(&inside, None, &mut packed).expect("packed");
    read_tree(&again, packed.as_slice()).expect("what was packed is unpacked");
    assert_eq!(tree(&again), there, "what was packed and unpacked is another");
}

fn has_holes(data: &[u8]) -> bool {
    let mut archive = tar::Archive::new(data);
    let Ok(mut entries) = archive.entries() else { return false };
    entries.any(|entry| entry.is_ok_and(|entry| entry.header().entry_type().is_gnu_sparse()))
}

/// What lies below `root`. Its owner may read all of it from then on.
fn tree(root: &Path) -> Tree {
    let (mut tree, mut open) = (Tree::new(), vec![root.to_owned()]);
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).expect("readable") {
            let path = entry.expect("readable").path();
            let metadata = path.symlink_metadata().expect("there");
            let mode = metadata.permissions().mode() & 0o777 | 0o700;
            if !metadata.is_symlink() {
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("changed");
            }
            let (kind, content) = if metadata.is_dir() {
                open.push(path.clone());
                ('d', Vec::new())
            } else if metadata.is_symlink() {
                ('l', fs::read_link(&path).expect("a link").into_os_string().into_encoded_bytes())
            } else {
                ('f', fs::read(&path).expect("readable"))
            };
            tree.insert(path.strip_prefix(root).expect("below").to_owned(), (kind, mode, content));
        }
    }
    tree
}

/// The path that a request over the link is about, as [`home`](crate::fuzzing::home) has it; none where it is refused.
#[must_use]
pub fn path_of(uri: &http::Uri) -> Option<PathBuf> {
    let query = Query::of(uri);
    let named = query.need("path").ok()?;
    if named.contains('\0') { None } else { Some(crate::home::resolve(crate::fuzzing::home(), named)) }
}
