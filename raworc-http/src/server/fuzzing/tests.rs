//! The seeds of the fuzzers by the compiler that everything is built with.

use std::fs;
use std::path::PathBuf;

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
    let files = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let seeds: Vec<_> = files.map(|file| fs::read(file.expect("readable").path()).expect("readable")).collect();
    assert!(!seeds.is_empty(), "{} is empty", directory.display());
    seeds
}

#[test]
fn the_seeds_of_the_fuzzers_hold() {
    for seed in seeds("gateway").iter().chain(&seeds("model_stream")) {
        super::answer(seed);
        super::question(seed);
    }
    for seed in seeds("path") {
        let query = String::from_utf8(seed).expect("text");
        let _ = super::request_for(&query);
    }
}
