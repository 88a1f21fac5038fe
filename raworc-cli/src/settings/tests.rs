use std::collections::HashMap;

use super::*;

fn read(file: &str, variables: &[(&str, &str)], args: &AssemblyArgs) -> Result<Settings, Failure> {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("raworc.toml");
    std::fs::write(&path, file).expect("written");
    let mut variables: HashMap<_, _> =
        variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    variables.entry("RAWORC_DATA".into()).or_insert_with(|| "/tmp/data".into());
    Settings::read(args, Some(&path), variables)
}

#[test]
fn without_anything_the_defaults_hold() {
    let settings = read("", &[], &AssemblyArgs::default()).expect("defaults");
    assert_eq!(settings.listen, "127.0.0.1:9000");
    assert!(settings.local.isolation);
    let (ours, theirs) = (settings.control(), control::Settings::default());
    assert_eq!((ours.inbox_limit, ours.inbox_bytes), (theirs.inbox_limit, theirs.inbox_bytes));
    assert_eq!(ours.agents_per_tenant, theirs.agents_per_tenant);
    assert_eq!(ours.setup_limit, theirs.setup_limit);
    assert_eq!(ours.keep_awake_limit, theirs.keep_awake_limit);
    assert_eq!(ours.cancel_grace, theirs.cancel_grace);
    assert_eq!(ours.idempotency_ttl, theirs.idempotency_ttl);
    assert_eq!(ours.work, theirs.work);
    assert_eq!(ours.models.get(None).map(|model| model.name.as_str()), Some("gpt-oss:20b"));
}

#[test]
fn options_win_over_variables_and_variables_over_the_file() {
    let file = "listen = '127.0.0.1:1'\nlog = 'warn'\nadmin = 'root'\n[limits]\ninbox = 5\n";
    let variables = [("RAWORC_LISTEN", "127.0.0.1:2"), ("RAWORC_LOG", "debug"), ("RAWORC_LIMITS__INBOX", "7")];
    let args = AssemblyArgs { listen: Some("127.0.0.1:3".into()), ..AssemblyArgs::default() };
    let settings = read(file, &variables, &args).expect("valid");
    assert_eq!(settings.listen, "127.0.0.1:3");
    assert_eq!(settings.log, "debug");
    assert_eq!(settings.admin.as_str(), "root");
    assert_eq!(settings.limits.inbox, 7);
}

#[test]
fn an_empty_name_of_a_model_in_a_file_is_none_and_an_empty_variable_is_not_there() {
    let model = |file: &str, variables: &[(&str, &str)]| {
        let settings = read(file, variables, &AssemblyArgs::default()).expect("valid");
        settings.all_models().map(|model| model.name.clone()).next()
    };
    let empty = [("RAWORC_MODEL__NAME", "")];
    assert_eq!(model("[model]\nname = ''", &[]), None);
    assert_eq!(model("[model]\nname = ''", &empty), None);
    assert_eq!(model("", &empty).as_deref(), Some("gpt-oss:20b"));
}

#[test]
fn what_a_computer_may_have_is_written_as_in_a_spec_and_none_as_0() {
    let local = |file: &str| read(file, &[], &AssemblyArgs::default()).map(|settings| settings.local);
    let given = local("[local]\ncpu = '500m'\nmemory = '2Gi'\npids = 100").expect("valid");
    assert_eq!(given.cpu, Limit(Some(Cpu::from_millis(500))));
    assert_eq!((given.memory, given.pids), (Some(Limit(Some(Bytes::new(2 << 30)))), 100));
    let none = local("[local]\ncpu = 0\nmemory = 0\npids = 0").expect("valid");
    assert_eq!((none.cpu, none.memory, none.pids), (Limit(None), Some(Limit(None)), 0));
    let error = local("[local]\nmemory = 'much'").expect_err("no amount").to_string();
    assert!(error.contains("512Mi"), "{error}");
}

#[cfg(feature = "docker")]
#[test]
fn a_container_has_what_the_runtime_gives_where_nothing_is_written_and_none_as_0() {
    use raworc_backends::docker::{DEFAULT_CPU, DEFAULT_MEMORY, DEFAULT_PIDS};
    let docker = |file: &str| read(file, &[], &AssemblyArgs::default()).expect("valid").docker;
    let given = docker("");
    assert_eq!((given.cpu, given.memory), (Limit(Some(DEFAULT_CPU)), Limit(Some(DEFAULT_MEMORY))));
    assert_eq!(given.pids, DEFAULT_PIDS);
    let none = docker("[docker]\ncpu = 0\nmemory = 0\npids = 0");
    assert_eq!((none.cpu, none.memory, none.pids), (Limit(None), Limit(None), 0));
}

#[test]
fn programs_on_other_machines_are_told_an_address_that_they_can_dial() {
    let reached = |listen: &str, address: Option<&str>| {
        let agents = Agents { sockets: None, listen: Some(listen.into()), address: address.map(Into::into) };
        let listen = agents.listen_address().map_err(|error| error.to_string())?.expect("there is one");
        let said = |reached: Vec<SocketAddr>| reached.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        agents.reached_at(listen).map(said).map_err(|error| error.to_string())
    };
    assert_eq!(reached("10.0.0.1:9001", None).as_deref(), Ok("10.0.0.1:9001"));
    assert_eq!(reached("0.0.0.0:9001", Some("10.0.0.1")).as_deref(), Ok("10.0.0.1:9001"));
    assert_eq!(reached("0.0.0.0:9001", Some("10.0.0.1:443")).as_deref(), Ok("10.0.0.1:443"));
    assert_eq!(reached("[::]:9001", Some("fd00::1")).as_deref(), Ok("[fd00::1]:9001"));
    assert!(reached("0.0.0.0:9001", None).is_err_and(|error| error.contains("agents.address is missing")));
    assert!(reached("9001", None).is_err_and(|error| error.contains("agents.listen")));
    for none in ["raworc.example", "0.0.0.0", "https://10.0.0.1:9001"] {
        assert!(reached("0.0.0.0:9001", Some(none)).is_err_and(|error| error.contains(none)), "{none}");
    }
    assert_eq!(Agents::default().listen_address().expect("none is asked for"), None);
}

#[test]
fn what_computers_are_shown_has_an_absolute_path_without_dots_and_with_its_links_as_they_are_written() {
    let dir = tempfile::tempdir().expect("temp dir");
    let real = dir.path().canonicalize().expect("there");
    std::fs::create_dir_all(real.join("a/b")).expect("made");
    std::os::unix::fs::symlink(real.join("a/b"), real.join("link")).expect("linked");
    let shown = |data: &Path, sockets: &Path| {
        let variables = [("RAWORC_DATA", data), ("RAWORC_AGENTS__SOCKETS", sockets)];
        let variables = variables.map(|(name, path)| (name, path.to_str().expect("UTF-8")));
        let settings = read("", &variables, &AssemblyArgs::default())?;
        Ok::<_, Failure>((settings.data.clone(), settings.sockets()))
    };
    let here = std::env::current_dir().expect("here");
    let told = shown(&real.join("link/data"), Path::new("sockets")).expect("valid");
    assert_eq!(told, (real.join("link/data"), here.join("sockets")));
    // What `..` leads to is the parent of what the link leads to.
    let told = shown(&real.join("link/../data"), &real.join("a/../link/sockets")).expect("valid");
    assert_eq!(told, (real.join("a/data"), real.join("link/sockets")));
    assert_eq!(shown(&real.join("a/b/.."), &real).expect("valid").0, real.join("a"));
    for (data, sockets, key) in [("absent/../data", "a", "data"), ("a", "absent/../sockets", "agents.sockets")] {
        let error = shown(&real.join(data), &real.join(sockets)).expect_err("leads nowhere");
        assert_eq!(error.exit(), Exit::Usage);
        let told = error.to_string();
        assert!(told.starts_with(key) && told.contains(&real.join("absent/..").display().to_string()), "{told}");
    }
}

#[test]
fn an_unknown_key_is_an_error_that_names_it() {
    for (file, variables, named) in [
        ("listn = 'x'", vec![], "listn"),
        ("[limits]\ninbx = 1", vec![], "inbx"),
        ("[[models]]\nname = 'x'\nurl = 'http://x'\nkind = 'y'", vec![], "kind"),
        ("", vec![("RAWORC_LISTN", "x")], "RAWORC_LISTN"),
        ("", vec![("RAWORC_LIMITS__INBX", "1")], "RAWORC_LIMITS__INBX"),
    ] {
        let error = read(file, &variables, &AssemblyArgs::default()).expect_err(named);
        assert!(error.to_string().contains(named), "{error}");
        assert_eq!(error.exit(), Exit::Usage);
    }
}

#[test]
fn a_variable_with_a_slip_is_told_the_nearest_name() {
    let error = read("", &[("RAWORC_LISTN", "x")], &AssemblyArgs::default()).expect_err("a slip");
    let shown = crate::exit::render(&error.into(), "error", "hint");
    assert!(shown.contains("did you mean RAWORC_LISTEN?"), "{shown}");
}

#[test]
fn variables_of_other_programs_are_left_alone() {
    let variables = [("RAWORC_PORT", "tcp://10.0.0.1:9000"), ("RAWORC_SERVICE_HOST", "10.0.0.1"), ("HOME", "/root")];
    read("", &variables, &AssemblyArgs::default()).expect("left alone");
}

#[test]
fn a_wrong_type_names_the_key() {
    let error = read("[limits]\ninbox = 'many'", &[], &AssemblyArgs::default()).expect_err("no number");
    assert!(error.to_string().contains("limits.inbox"), "{error}");
}

#[test]
fn a_limit_that_cannot_be_had_is_refused_with_those_that_can() {
    for (file, named) in [
        ("[limits]\nstreams_per_principal = 0", "1 or more"),
        ("[limits]\ncalls_per_computer = 0", "1 to 300"),
        ("[limits]\ncalls_per_computer = 301", "1 to 300"),
    ] {
        let error = read(file, &[], &AssemblyArgs::default()).expect_err(named);
        assert_eq!(error.exit(), Exit::Usage);
        let shown = crate::exit::render(&error.into(), "error", "hint");
        assert!(shown.contains(named), "{shown}");
    }
    let most = read("[limits]\ncalls_per_computer = 300", &[], &AssemblyArgs::default()).expect("valid");
    assert_eq!(most.limits.calls_per_computer, 300);
}

#[test]
fn further_models_are_known_beside_the_default() {
    let file = "[model]\nname = 'a'\n[[models]]\nname = 'b'\nurl = 'http://127.0.0.1:1'\nwire = 'openai'\n";
    let models = read(file, &[], &AssemblyArgs::default()).expect("valid").control().models;
    assert_eq!(models.get(None).map(|model| model.name.as_str()), Some("a"));
    assert_eq!(models.get(Some("b")).map(|model| model.wire), Some(ModelWire::Openai));
}

#[test]
fn every_key_of_the_table_is_taken_and_every_field_is_in_the_table() {
    for key in KEYS {
        let value = match key.value() {
            Some(value) => value.to_string(),
            // A text, a path and an amount all the same.
            None => "0".to_owned(),
        };
        read("", &[(&key.variable(), &value)], &AssemblyArgs::default()).expect(key.name);
    }
    // A field without a default in the table cannot be read from an empty file.
    read("", &[], &AssemblyArgs::default()).expect("complete");
}
