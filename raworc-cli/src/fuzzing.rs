//! What fuzzers call: it is there in tests and for fuzzers alone. The seeds of `fuzz/seeds` run with the tests of this crate.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::commands::agent::cp::unpack;

/// What `raworc agent cp` unpacks here, whatever an agent's program packed, writes nothing but below the name that was
/// asked for. `scratch` is an empty directory.
///
/// # Panics
/// Where it does.
pub fn copy(data: &[u8], scratch: &Path) {
    let (inside, outside) = (scratch.join("inside"), scratch.join("outside"));
    for directory in [&inside, &outside] {
        fs::create_dir(directory).expect("made");
    }
    fs::write(outside.join("kept"), "kept").expect("written");
    fs::write(inside.join("beside"), "kept").expect("written");

    let unpacked = unpack(data, &inside, Path::new("d"), Path::new("mine"));

    let names = |directory: &Path| -> BTreeSet<_> {
        fs::read_dir(directory).expect("readable").map(|entry| entry.expect("readable").file_name()).collect()
    };
    assert_eq!(names(scratch), BTreeSet::from(["inside".into(), "outside".into()]));
    assert_eq!(names(&outside), BTreeSet::from(["kept".into()]));
    assert_eq!(fs::read(outside.join("kept")).expect("there"), b"kept");
    assert_eq!(fs::read(inside.join("beside")).expect("there"), b"kept");
    let mut made = names(&inside);
    made.remove(std::ffi::OsStr::new("mine"));
    assert_eq!(made, BTreeSet::from(["beside".into()]), "{unpacked:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_of_the_fuzzers_hold() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/copy");
        let mut run = 0;
        for seed in fs::read_dir(&seeds).expect("seeds") {
            let seed = fs::read(seed.expect("readable").path()).expect("readable");
            let scratch = tempfile::tempdir().expect("a directory");
            copy(&seed, scratch.path());
            run += 1;
        }
        assert!(run > 0, "{} is empty", seeds.display());
    }
}
