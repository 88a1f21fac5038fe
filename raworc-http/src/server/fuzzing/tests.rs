//! The seeds of the fuzzers by the compiler that everything is built with.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// The seeds of one target by their names.
fn seeds(target: &str) -> BTreeMap<String, Vec<u8>> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
    let files = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let seeds: BTreeMap<_, _> = files
        .map(|file| file.expect("readable"))
        .map(|file| (file.file_name().to_string_lossy().into_owned(), fs::read(file.path()).expect("readable")))
        .collect();
    assert!(!seeds.is_empty(), "{} is empty", directory.display());
    seeds
}

#[test]
fn the_seeds_of_the_fuzzers_hold() {
    for seed in seeds("gateway").values().chain(seeds("model_stream").values()) {
        super::answer(seed);
        super::question(seed);
    }
}

#[test]
fn of_the_seeds_of_paths_only_the_one_with_nul_is_refused_and_the_others_go_to_the_computer() {
    for (name, seed) in seeds("path") {
        let query = String::from_utf8(seed).expect("text");
        let request = super::request_for(&query);
        assert_eq!(request.is_none(), name == "nul", "{name}: {query} is sent as {request:?}");
        if let Some(uri) = request {
            assert_eq!((uri.host(), uri.path()), (Some("computer"), "/files"), "{name}");
        }
    }
}
