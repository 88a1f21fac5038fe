//! The seeds of the fuzzers, and whatever else comes to mind, by the compiler that everything is built with.

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

/// The seeds of one target, which have to be there.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
    let files = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let seeds: Vec<_> = files.map(|file| fs::read(file.expect("readable").path()).expect("readable")).collect();
    assert!(!seeds.is_empty(), "{} is empty", directory.display());
    seeds
}

#[test]
fn the_seeds_of_truncation_hold() {
    seeds("truncation").iter().for_each(|seed| truncation(seed));
}

#[test]
fn the_seeds_of_boot_lines_hold() {
    seeds("boot").iter().for_each(|seed| boot(seed));
}

#[test]
fn the_seeds_of_model_streams_hold() {
    seeds("model_stream").iter().for_each(|seed| model_stream(seed));
}

#[test]
fn the_seeds_of_archives_hold() {
    for seed in seeds("archive") {
        let scratch = tempfile::tempdir().expect("a directory");
        archive(&seed, scratch.path());
    }
}

proptest! {
    #[test]
    fn whatever_is_shortened_is_as_it_should_be(limit in 0u16..400, text in "(\\PC|[a\\x00é🦀]){0,300}") {
        truncation(&[&limit.to_be_bytes(), text.as_bytes()].concat());
    }

    #[test]
    fn bytes_that_are_no_text_are_shortened_as_well(bytes in prop::collection::vec(any::<u8>(), 2..600)) {
        truncation(&[&[bytes[0] & 1], &bytes[1..]].concat());
    }
}
