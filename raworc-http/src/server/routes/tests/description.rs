//! The description of the API, and the documents that are checked against it.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use raworc_core::error::Error;
use serde_json::{Value, json};

use crate::server::error::{HTTP_CODES, status_of};
use crate::server::routes::document;
use crate::server::testing::Api;

fn docs(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs").join(path)
}

/// Compares with the file of this name, or writes it where `RAWORC_WRITE_DOCS` is set.
fn compare(path: &str, fresh: &str) {
    let file = docs(path);
    if std::env::var_os("RAWORC_WRITE_DOCS").is_some() {
        fs::create_dir_all(file.parent().expect("a directory")).expect("made");
        fs::write(&file, fresh).expect("written");
        return;
    }
    let kept = fs::read_to_string(&file).unwrap_or_default();
    assert!(kept == fresh, "docs/{path} is not of this code: run this test with RAWORC_WRITE_DOCS=1");
}

fn operations() -> Vec<(String, String, Value)> {
    let document: Value = serde_json::to_value(document()).expect("serializes");
    let paths = document["paths"].as_object().expect("paths").clone();
    let each = paths.into_iter().flat_map(|(path, item)| {
        let methods = item.as_object().expect("an item").clone();
        methods.into_iter().map(move |(method, operation)| (path.clone(), method, operation))
    });
    each.collect()
}

#[test]
fn the_description_in_the_docs_is_the_present_one() {
    compare("openapi.json", &(document().to_pretty_json().expect("serializes") + "\n"));
}

#[tokio::test]
async fn the_server_serves_its_description() {
    let api = Api::start().await;
    let served = api.get("", "/openapi.json").await;
    assert_eq!(served.body, serde_json::to_value(document()).expect("serializes"));
    assert_eq!(served.body["openapi"].as_str().map(|version| &version[..3]), Some("3.1"));
}

#[test]
fn every_operation_has_its_own_name_a_summary_and_its_errors() {
    let mut names = BTreeSet::new();
    for (path, method, operation) in operations() {
        let name = operation["operationId"].as_str().unwrap_or_else(|| panic!("{method} {path} has a name"));
        assert!(names.insert(name.to_owned()), "{name} is the name of two operations");
        assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{name} has a summary");
        let responses = operation["responses"].as_object().expect("responses");
        let has = |status: &str| responses.contains_key(status);
        assert!(responses.keys().any(|status| status.starts_with('2')), "{name}");
        assert!(has("500"), "{name}");
        assert_eq!(has("401") || name == "login", operation["security"] != json!([{}]) || name == "login", "{name}");
        assert_eq!(has("413"), operation.get("requestBody").is_some(), "{name}");
        for (status, response) in responses {
            if status.starts_with(['4', '5']) && !(name == "ready" && status == "503") {
                let schema = &response["content"]["application/json"]["schema"]["$ref"];
                assert_eq!(schema, "#/components/schemas/ErrorBody", "{name} {status}");
            }
        }
        let parameters: BTreeSet<_> = operation["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .iter()
            .filter(|parameter| parameter["in"] == "path")
            .map(|parameter| parameter["name"].as_str().expect("a name").to_owned())
            .collect();
        let in_path: BTreeSet<_> =
            path.split('/').filter_map(|part| Some(part.strip_prefix('{')?.strip_suffix('}')?.to_owned())).collect();
        assert_eq!(parameters, in_path, "{name}");
    }
}

#[test]
fn every_reference_in_the_description_leads_somewhere() {
    let document: Value = serde_json::to_value(document()).expect("serializes");
    let mut open = vec![&document];
    while let Some(value) = open.pop() {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(reference)) = map.get("$ref") {
                    let pointer = reference.strip_prefix('#').expect("of this document");
                    assert!(document.pointer(pointer).is_some(), "{reference}");
                }
                open.extend(map.values());
            }
            Value::Array(items) => open.extend(items),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

#[test]
fn every_code_has_a_status_and_a_row_in_the_docs() {
    let page = fs::read_to_string(docs("reference/http.md")).expect("the page is there");
    let rows: BTreeSet<_> = page.lines().filter(|line| line.starts_with("| `")).collect();
    let codes: BTreeSet<_> = Error::CODES.into_iter().chain(HTTP_CODES.map(|(code, _)| code)).collect();
    for code in &codes {
        let status = status_of(code).unwrap_or_else(|| panic!("{code} has a status"));
        let start = format!("| `{code}` | {} |", status.as_u16());
        assert!(rows.iter().any(|row| row.starts_with(&start)), "the page has a row that begins {start}");
    }
    let of_errors = rows.iter().filter(|row| row.split('|').nth(2).is_some_and(|cell| cell.trim().len() == 3));
    assert_eq!(of_errors.count(), codes.len(), "the page has a row for each code and no other");
}

#[test]
fn every_figure_has_a_row_in_the_docs() {
    let page = fs::read_to_string(docs("reference/http.md")).expect("the page is there");
    let rows: BTreeSet<_> =
        page.lines().filter_map(|line| line.strip_prefix("| `raworc_")?.split('`').next()).collect();
    let figures = crate::server::metrics::FIGURES.iter().flat_map(|figures| figures.iter());
    let figures: BTreeSet<_> = figures.map(|(name, _)| name.trim_start_matches("raworc_")).collect();
    assert_eq!(rows, figures);
}

#[test]
fn every_figure_is_on_the_dashboard_and_no_other() {
    let dashboard = fs::read_to_string(docs("../deploy/grafana/raworc.json")).expect("the dashboard is there");
    let dashboard: Value = serde_json::from_str(&dashboard).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let expressions: Vec<_> = targets.map(|target| target["expr"].as_str().expect("an expression")).collect();
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = expressions.iter().flat_map(|expression| expression.split(|c| !is_of_name(c)));
    let shown: BTreeSet<_> = words.filter(|word| word.starts_with("raworc_")).map(str::to_owned).collect();
    let [counters, gauges, times] = crate::server::metrics::FIGURES;
    let is_shown = |name: &str| {
        let of_time = |end: &str| shown.contains(&format!("{name}{end}"));
        shown.contains(name) || ["_bucket", "_sum", "_count"].into_iter().any(of_time)
    };
    let known = counters.iter().chain(gauges).chain(times).map(|(name, _)| *name);
    assert_eq!(known.filter(|name| !is_shown(name)).collect::<Vec<_>>(), Vec::<&str>::new(), "it lacks these");
    let whole = |word: &str| counters.iter().chain(gauges).any(|(name, _)| *name == word);
    let of_time = |word: &str| {
        let ends = ["_bucket", "_sum", "_count"].into_iter().filter_map(|end| word.strip_suffix(end));
        ends.into_iter().any(|word| times.iter().any(|(name, _)| *name == word))
    };
    let unknown: Vec<_> = shown.iter().filter(|word| !whole(word) && !of_time(word)).collect();
    assert_eq!(unknown, Vec::<&String>::new(), "there are no such figures");
}

#[test]
fn every_way_in_which_a_computer_may_not_be_reached_is_described() {
    let computers = operations().into_iter().filter(|(_, _, operation)| operation["tags"] == json!(["computers"]));
    for (path, method, operation) in computers {
        for status in ["403", "409", "502", "503", "504", "507"] {
            assert!(operation["responses"][status].is_object(), "{method} {path}: {status}");
        }
    }
}

#[test]
fn what_a_file_and_a_stream_are_answered_with_is_described() {
    let document: Value = serde_json::to_value(document()).expect("serializes");
    let media_types = |path: &str| {
        let content = &document["paths"][path]["get"]["responses"]["200"]["content"];
        content.as_object().expect("content").keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(media_types("/api/v0/agents/{name}/files"), ["application/json", "application/octet-stream"]);
    let event = &document["paths"]["/api/v0/events"]["get"]["responses"]["200"]["content"]["text/event-stream"];
    assert_eq!(event["schema"]["$ref"], "#/components/schemas/StreamedEvent");
}
