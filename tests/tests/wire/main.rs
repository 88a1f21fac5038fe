//! What servers, clients, programs and stores write for each other: whatever a value is, it is read back as it was.

mod complete;
mod given;
mod kinds;
mod types;

use arbitrary::Unstructured;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use raworc_core::runtime::Boot;
use secrecy::ExposeSecret;

use given::Source;
use types::{TYPES, Unknown};

/// Bytes that a value is made of.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..1500)
}

fn each(cases: u32, check: impl Fn(&[u8]) -> Result<(), String>) {
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let failed = runner.run(&bytes(), |bytes| check(&bytes).map_err(TestCaseError::fail));
    if let Err(failure) = failed {
        panic!("{failure}");
    }
}

#[test]
fn whatever_is_written_is_read_back_as_it_was() {
    for wire in TYPES {
        each(128, |bytes| (wire.round_trip)(bytes).map_err(|why| format!("{}: {why}", wire.name)));
    }
}

#[test]
fn fields_that_nobody_knows_are_refused_in_requests_and_passed_over_in_what_newer_ones_answer() {
    for wire in TYPES {
        let wanted = match wire.unknown {
            Unknown::Refused => false,
            Unknown::PassedOver => true,
            Unknown::NoObject => continue,
        };
        each(32, |bytes| match (wire.with_unknown_field)(bytes) {
            Some(taken) if taken != wanted => Err(format!("{}: an unknown field is taken: {taken}", wire.name)),
            Some(_) | None => Ok(()),
        });
    }
}

#[test]
fn every_field_of_every_type_has_been_different_values() {
    let mut runner = TestRunner::deterministic();
    let seeds: Vec<_> = (0..300).map(|_| bytes().new_tree(&mut runner).expect("bytes").current()).collect();
    for wire in TYPES {
        let mut seen: std::collections::BTreeMap<String, std::collections::HashSet<String>> = Default::default();
        for seed in &seeds {
            for (field, value) in (wire.fields)(seed) {
                seen.entry(field).or_default().insert(value);
            }
        }
        // What is a map has fields of any name, and each but once.
        let named =
            |field: &str| !field.is_empty() && field.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        for (field, values) in seen.into_iter().filter(|(field, _)| named(field)) {
            assert!(values.len() > 1, "{}.{field} has been {values:?} alone", wire.name);
        }
    }
}

#[test]
fn a_boot_line_is_read_back_as_it_was() {
    each(256, |bytes| {
        let mut source = Source(Unstructured::new(bytes));
        let key: String = source.given();
        let boot = Boot {
            agent_url: source.given(),
            ca: source.given(),
            computer: source.given(),
            incarnation: source.given(),
            key: key.clone().into(),
        };
        let line = boot.to_line();
        let again = Boot::from_line(&line).map_err(|error| format!("{line:?}: {error}"))?;
        let same = (&again.agent_url, &again.ca, again.computer, again.incarnation)
            == (&boot.agent_url, &boot.ca, boot.computer, boot.incarnation);
        let one_line = line.find('\n') == Some(line.len() - 1);
        if same && one_line && again.key.expose_secret() == key { Ok(()) } else { Err(line) }
    });
    let line = r#"{"agent_url":"unix:/x","computer":"018f0000-0000-7000-8000-000000000000","incarnation":1,"key":"k"}"#;
    assert!(Boot::from_line(line).is_ok());
    assert!(Boot::from_line(&line.replacen('{', r#"{"more":1,"#, 1)).is_err(), "it has an unknown field");
}
