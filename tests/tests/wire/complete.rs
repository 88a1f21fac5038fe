//! That no type is forgotten: those of the API's description, and all in the sources that can be written and read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::types::TYPES;

/// Schemas of the description that are no types which are both written and read.
const DESCRIPTION: [(&str, &str); 4] = [
    ("BTreeMap", "a map, as a field of other types"),
    ("LoginRequest", "holds a password, which the server only reads: what the client writes is tried in raworc-http"),
    ("NewUser", "the same"),
    ("StreamedEvent", "stands for a server-sent event in the description alone"),
];

/// Types that are private to one crate, and what tries them.
const PRIVATE: [(&str, &str); 25] = [
    ("Ask", "what the engine of crash tests is asked: raworc-cli/tests/crashes"),
    ("BootLine", "a boot line: in this test, by Boot"),
    ("Claims", "a token: server::tokens of raworc-http, and the fuzz target token"),
    ("Contents", "an export: sql::whole::tests of raworc-backends"),
    ("Conversation", "what a program remembers: context of raworc-agent"),
    ("DeathLog", "a record: operator::tests::deaths of raworc-core"),
    ("EndRecord", "what the local runtime keeps of a computer: raworc-backends/tests/local"),
    ("Exchange", "what a program remembers: context of raworc-agent"),
    ("Header", "an export: sql::whole::tests of raworc-backends"),
    ("Identity", "what the local runtime keeps of a computer: raworc-backends/tests/local"),
    ("Kind", "a token: server::tokens of raworc-http, and the fuzz target token"),
    ("Login", "the file of logins: session of raworc-cli"),
    ("Plan", "what the local runtime tells its helper: raworc-backends/tests/local"),
    ("Published", "a record: control::tests::runtimes of raworc-core"),
    ("Section", "an export: sql::whole::tests of raworc-backends"),
    ("Seen", "what the engine of crash tests answers: raworc-cli/tests/crashes"),
    ("Session", "the file of logins: session of raworc-cli"),
    ("Sight", "what the local runtime tells its helper: raworc-backends/tests/local"),
    ("StartRecord", "what the local runtime keeps of a computer: raworc-backends/tests/local"),
    ("Stored", "what a program remembers: context of raworc-agent"),
    ("TableSum", "an export: sql::whole::tests of raworc-backends"),
    ("ToolCall", "what a program remembers: context of raworc-agent"),
    ("Trailer", "an export: sql::whole::tests of raworc-backends"),
    ("Turn", "what a program remembers: context of raworc-agent"),
    ("UserRecord", "a record: control::tests of raworc-core, and routes::tests of raworc-http"),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn tried() -> BTreeSet<String> {
    TYPES.iter().map(|wire| wire.name.replace(' ', "")).collect()
}

#[test]
fn every_type_of_the_description_is_tried() {
    let document = fs::read_to_string(root().join("docs/openapi.json")).expect("the description");
    let document: serde_json::Value = serde_json::from_str(&document).expect("JSON");
    let schemas = document["components"]["schemas"].as_object().expect("schemas");
    let tried = tried();
    for name in schemas.keys() {
        let rust = name.replacen("Page_", "Page<", 1) + if name.starts_with("Page_") { ">" } else { "" };
        let excepted = DESCRIPTION.iter().any(|(known, _)| known == name);
        assert_ne!(
            tried.contains(&rust),
            excepted,
            "{name}: add it to tests/tests/wire/types.rs, or take it from here"
        );
    }
    for (name, _) in DESCRIPTION {
        assert!(schemas.contains_key(name), "{name} is not in the description");
    }
}

#[test]
fn every_type_that_is_written_and_read_is_tried() {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(root()).expect("the workspace").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("raworc-") {
            look(&entry.path().join("src"), &mut found);
        }
    }
    assert!(found.len() > 100, "only {} were found", found.len());
    let (tried, private): (_, BTreeMap<_, _>) = (tried(), PRIVATE.into_iter().collect());
    let known = |name: &str| tried.contains(name) || tried.iter().any(|tried| tried.starts_with(&format!("{name}<")));
    for (name, file) in &found {
        assert!(
            known(name) != private.contains_key(name.as_str()),
            "{name} of {} is written and read: add it to tests/tests/wire/types.rs",
            file.display()
        );
    }
    for (name, _) in private {
        assert!(found.contains_key(name), "{name} is in no source any more");
    }
}

/// The types below `directory` that derive, or have, both halves.
fn look(directory: &Path, found: &mut BTreeMap<String, PathBuf>) {
    for entry in fs::read_dir(directory).expect("readable").flatten() {
        let path = entry.path();
        if path.is_dir() {
            look(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            let text = fs::read_to_string(&path).expect("text");
            found.extend(of_text(&text).into_iter().map(|named| (named, path.clone())));
        }
    }
    // Macros declare these, and their names are in the description or in the types of others.
    found.retain(|name, _| !name.starts_with('$'));
}

/// The same in the text of one file.
fn of_text(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    for (at, line) in lines.iter().enumerate() {
        if line.starts_with("#[derive(") {
            // A long one goes over several lines.
            let end = lines[at..].iter().position(|line| line.contains(")]")).expect("the end of what is derived");
            let derived = lines[at..=at + end].join(" ");
            if derived.contains("Serialize") && derived.contains("Deserialize") {
                let named = lines[at..].iter().find_map(|line| declared(line)).expect("a type");
                found.push(named.to_owned());
            }
        }
        let own = line.strip_prefix("impl Serialize for ").map(|rest| rest.trim_end_matches(" {"));
        found.extend(own.map(str::to_owned));
    }
    found
}

#[test]
fn what_is_derived_over_several_lines_is_seen() {
    let text = "
        #[derive(
            Debug,
            Serialize,
            Deserialize,
        )]
        #[serde(deny_unknown_fields)]
        pub struct Long {
        }
        #[derive(Debug, Serialize)]
        pub struct Written {
        }
        #[derive(Serialize, Deserialize)]
        enum Short {
        }
        impl Serialize for Own {
        }";
    assert_eq!(of_text(text), ["Long", "Short", "Own"]);
}

fn declared(line: &str) -> Option<&str> {
    let line = line.trim_start_matches("pub(crate) ").trim_start_matches("pub(super) ").trim_start_matches("pub ");
    let rest = line.strip_prefix("struct ").or_else(|| line.strip_prefix("enum "))?;
    rest.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).next()
}
