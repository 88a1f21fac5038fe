//! A spec, or a change of one, from what is written on the command line.

use std::net::IpAddr;
use std::path::Path;

use raworc_core::agent::{AgentSpec, NetworkMode, SpecChange};
use serde_json::{Map, Value, json};

use crate::args::SpecArgs;
use crate::exit::{Exit, Failure};

/// The change of a spec that the options ask for, as a merge patch. A file comes first, options win over it.
///
/// # Errors
/// Names the option or the file that cannot be taken.
pub fn change(args: &SpecArgs) -> Result<SpecChange, Failure> {
    let mut patch = match &args.file {
        Some(file) => read_file(file)?,
        None => Map::new(),
    };
    let mut set = |path: &[&str], value: Option<Value>| {
        if let Some(value) = value {
            put(&mut patch, path, value);
        }
    };
    set(&["image"], args.image.clone().map(Value::from));
    set(&["model"], args.model.clone().map(Value::from));
    set(&["instructions"], text_or_file("instructions", args.instructions.as_deref())?);
    set(&["setup"], text_or_file("setup", args.setup.as_deref())?);
    set(&["description"], args.description.clone().map(Value::from));
    set(&["metadata"], args.metadata.as_deref().map(object).transpose()?);
    set(&["resources", "cpu"], args.cpu.map(|cpu| cpu.to_string().into()));
    set(&["resources", "memory"], args.memory.map(|bytes| bytes.to_string().into()));
    set(&["resources", "disk"], args.disk.map(|bytes| bytes.to_string().into()));
    set(&["resources", "pids"], args.pids.map(Value::from));
    set(&["root"], args.root.map(Value::from));
    set(&["idle_timeout"], args.idle_timeout.map(Value::from));
    set(&["busy_timeout"], args.busy_timeout.map(Value::from));
    set(&["network", "mode"], args.network.map(|mode| json!(NetworkMode::from(mode))));
    set(&["network", "egress"], list(&args.egress, egress)?);
    set(&["ports"], list(&args.ports, port)?);
    set(&["secrets"], (!args.secrets.is_empty()).then(|| json!(args.secrets)));
    for (table, pairs) in [("env", &args.env), ("labels", &args.label)] {
        for pair in pairs {
            let (key, value) = pair_of(table, pair)?;
            set(&[table, &key], Some(value));
        }
    }
    Ok(SpecChange(patch))
}

/// The spec that the options ask for.
///
/// # Errors
/// Names the option, the file or the field that cannot be taken.
pub fn whole(args: &SpecArgs) -> Result<AgentSpec, Failure> {
    let mut asked = Value::Object(change(args)?.0);
    drop_nulls(&mut asked);
    serde_json::from_value(asked)
        .map_err(|error| Failure::new(Exit::Usage, format!("the spec cannot be taken: {error}")))
}

fn drop_nulls(value: &mut Value) {
    if let Value::Object(map) = value {
        map.retain(|_, value| !value.is_null());
        map.values_mut().for_each(drop_nulls);
    }
}

/// Takes a field, such as `resources.memory` or `env.DEBUG`, back to its default.
pub fn unset(change: &mut SpecChange, field: &str) {
    // Only these hold keys of the user's own, which may contain dots themselves.
    let path: Vec<_> = match field.split_once('.') {
        Some((table @ ("env" | "labels" | "metadata"), key)) => vec![table, key],
        _ => field.split('.').collect(),
    };
    put(&mut change.0, &path, Value::Null);
}

fn put(patch: &mut Map<String, Value>, path: &[&str], value: Value) {
    match path {
        [] => {}
        [last] => {
            patch.insert((*last).to_owned(), value);
        }
        [first, rest @ ..] => {
            let below = patch.entry(*first).or_insert_with(|| json!({}));
            if !below.is_object() {
                *below = json!({});
            }
            if let Value::Object(below) = below {
                put(below, rest, value);
            }
        }
    }
}

fn read_file(file: &Path) -> Result<Map<String, Value>, Failure> {
    let stdin = file == Path::new("-");
    let read = if stdin { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(file) };
    let text = read.map_err(|error| {
        Failure::new(Exit::NotFound, format!("cannot read the spec from {}", file.display())).because(error)
    })?;
    let toml = file.extension().is_some_and(|extension| extension == "toml");
    let parsed = if toml { from_toml(&text) } else { serde_json::from_str(&text).map_err(|error| error.to_string()) };
    parsed.map_err(|error| {
        let form = if toml { "TOML" } else { "JSON" };
        Failure::new(Exit::Usage, format!("{} is no spec in {form}: {error}", file.display()))
            .hint("a spec is what `raworc agent get NAME -o json` shows under `spec`")
    })
}

fn from_toml(text: &str) -> Result<Map<String, Value>, String> {
    let source = config::File::from_str(text, config::FileFormat::Toml);
    let read = config::Config::builder().add_source(source).build().and_then(config::Config::try_deserialize);
    read.map_err(|error| error.to_string())
}

fn text_or_file(option: &str, text: Option<&str>) -> Result<Option<Value>, Failure> {
    let Some(text) = text else {
        return Ok(None);
    };
    let Some(file) = text.strip_prefix('@') else {
        return Ok(Some(text.into()));
    };
    let read = std::fs::read_to_string(file);
    let text =
        read.map_err(|error| Failure::new(Exit::NotFound, format!("--{option}: cannot read {file}")).because(error))?;
    Ok(Some(text.into()))
}

fn object(text: &str) -> Result<Value, Failure> {
    let refused = |why: String| Failure::new(Exit::Usage, format!("--metadata: {why}"));
    let value: Value = serde_json::from_str(text).map_err(|error| refused(format!("no JSON: {error}")))?;
    if value.is_object() { Ok(value) } else { Err(refused("give an object, such as '{\"ticket\": 7}'".into())) }
}

fn list(items: &[String], read: fn(&str) -> Result<Value, Failure>) -> Result<Option<Value>, Failure> {
    if items.is_empty() {
        return Ok(None);
    }
    items.iter().map(|item| read(item)).collect::<Result<Vec<_>, _>>().map(|items| Some(items.into()))
}

fn egress(text: &str) -> Result<Value, Failure> {
    match text.rsplit_once(':') {
        Some((host, port)) if text.parse::<IpAddr>().is_err() => {
            let port: u16 = port.parse().map_err(|_| {
                Failure::new(
                    Exit::Usage,
                    format!("--egress: {text:?}: write HOST or HOST:PORT, such as example.org:443"),
                )
            })?;
            Ok(json!({ "host": host.trim_matches(['[', ']']), "ports": [port] }))
        }
        Some(_) | None => Ok(json!({ "host": text })),
    }
}

fn port(text: &str) -> Result<Value, Failure> {
    let read = text.split_once('=').and_then(|(name, port)| Some((name, port.parse::<u16>().ok()?)));
    let (name, port) =
        read.ok_or_else(|| Failure::new(Exit::Usage, format!("--port: {text:?}: write NAME=PORT, such as web=8080")))?;
    Ok(json!({ "name": name, "port": port }))
}

/// `KEY=VALUE` sets, `KEY-` takes away, and a variable's `KEY` alone takes its value from the environment.
fn pair_of(table: &str, pair: &str) -> Result<(String, Value), Failure> {
    if let Some((key, value)) = pair.split_once('=') {
        return Ok((key.to_owned(), value.into()));
    }
    if let Some(key) = pair.strip_suffix('-') {
        return Ok((key.to_owned(), Value::Null));
    }
    if table == "labels" {
        return Ok((pair.to_owned(), "".into()));
    }
    match std::env::var(pair) {
        Ok(value) => Ok((pair.to_owned(), value.into())),
        Err(_) => Err(Failure::new(Exit::Usage, format!("--env: {pair} is not set here"))
            .hint(format!("write {pair}=VALUE, or {pair}- to take it away"))),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        spec: SpecArgs,
    }

    fn args(line: &[&str]) -> SpecArgs {
        Line::try_parse_from(std::iter::once("x").chain(line.iter().copied())).expect("valid").spec
    }

    #[test]
    fn without_options_the_spec_is_the_default() {
        assert_eq!(whole(&args(&[])).expect("valid"), AgentSpec::default());
    }

    #[test]
    fn each_option_sets_its_field() {
        let line = [
            "--image",
            "debian",
            "--model",
            "m",
            "--instructions",
            "be kind",
            "--setup",
            "true",
            "-e",
            "A=b=c",
            "--secret",
            "s",
            "-l",
            "team=x",
            "-l",
            "beta",
            "--description",
            "d",
            "--metadata",
            "{\"n\":1}",
            "--cpu",
            "0.5",
            "--memory",
            "1Gi",
            "--disk",
            "2Gi",
            "--pids",
            "9",
            "--root",
            "--idle-timeout",
            "10m",
            "--busy-timeout",
            "1h",
            "--network",
            "open",
            "--egress",
            "a.org",
            "--egress",
            "b.org:8443",
            "--port",
            "web=80",
        ];
        let spec = whole(&args(&line)).expect("valid");
        insta::assert_json_snapshot!(spec, @r#"
        {
          "image": "debian",
          "model": "m",
          "instructions": "be kind",
          "setup": "true",
          "env": {
            "A": "b=c"
          },
          "secrets": [
            "s"
          ],
          "resources": {
            "cpu": "500m",
            "memory": "1Gi",
            "disk": "2Gi",
            "pids": 9
          },
          "root": true,
          "idle_timeout": 600,
          "busy_timeout": 3600,
          "network": {
            "mode": "open",
            "egress": [
              {
                "host": "a.org"
              },
              {
                "host": "b.org",
                "ports": [
                  8443
                ]
              }
            ]
          },
          "ports": [
            {
              "name": "web",
              "port": 80
            }
          ],
          "labels": {
            "beta": "",
            "team": "x"
          },
          "description": "d",
          "metadata": {
            "n": 1
          }
        }
        "#);
    }

    #[test]
    fn options_win_over_the_file() {
        let dir = tempfile::tempdir().expect("temp dir");
        let json = dir.path().join("spec.json");
        std::fs::write(&json, r#"{"description": "file", "resources": {"memory": "1Gi", "pids": 5}}"#)
            .expect("written");
        let spec = whole(&args(&["-f", json.to_str().expect("text"), "--memory", "2Gi"])).expect("valid");
        assert_eq!(spec.description.as_deref(), Some("file"));
        assert_eq!(spec.resources.pids, Some(5));
        assert_eq!(spec.resources.memory.map(|memory| memory.to_string()).as_deref(), Some("2Gi"));
    }

    #[test]
    fn a_file_in_toml_is_read_with_its_case() {
        let dir = tempfile::tempdir().expect("temp dir");
        let toml = dir.path().join("spec.toml");
        std::fs::write(&toml, "description = 'file'\nidle_timeout = 5\n[env]\nDEBUG = '1'\n").expect("written");
        let spec = whole(&args(&["-f", toml.to_str().expect("text")])).expect("valid");
        assert_eq!(spec.idle_timeout, 5);
        assert_eq!(spec.env.get("DEBUG").map(String::as_str), Some("1"));
    }

    #[test]
    fn a_field_that_there_is_not_is_named() {
        let dir = tempfile::tempdir().expect("temp dir");
        let json = dir.path().join("spec.json");
        std::fs::write(&json, r#"{"imagee": "x"}"#).expect("written");
        let error = whole(&args(&["-f", json.to_str().expect("text")])).expect_err("unknown");
        assert!(error.to_string().contains("imagee"), "{error}");
    }

    #[test]
    fn keys_are_taken_away_by_a_hyphen_and_by_unset() {
        let mut patch = change(&args(&["-e", "A-", "-l", "b-"])).expect("valid");
        unset(&mut patch, "labels.app.kubernetes.io");
        unset(&mut patch, "resources.memory");
        assert_eq!(
            Value::Object(patch.0),
            json!({"env": {"A": null}, "labels": {"b": null, "app.kubernetes.io": null}, "resources": {"memory": null}})
        );
    }

    #[test]
    fn what_cannot_be_taken_is_named() {
        for (line, named) in [
            (["--metadata", "7"], "--metadata"),
            (["--egress", "a.org:x"], "--egress"),
            (["--port", "80"], "--port"),
            (["-e", "SURELY_NOT_SET_ANYWHERE"], "SURELY_NOT_SET_ANYWHERE"),
            (["--setup", "@/nowhere/at/all"], "/nowhere/at/all"),
        ] {
            let error = whole(&args(&line)).expect_err(named);
            assert!(error.to_string().contains(named), "{error}");
        }
    }
}
