//! What works without a server, and what is said where one is missed.

use insta::assert_snapshot;
use raworc_cli::args::ReferencePage;
use raworc_cli::commands::reference::page;

use crate::home::Home;

#[test]
fn the_version_is_printed_in_each_format() {
    let home = Home::new();
    assert_snapshot!(home.run(&["version"]).shown(&home), @r"
    exit: 0
    -- out
    raworc [VERSION]
    -- err
    ");
    assert_snapshot!(home.run(&["version", "-o", "json"]).shown(&home), @r#"
    exit: 0
    -- out
    {
      "version": "[VERSION]",
      "protocol": "1.1"
    }
    -- err
    "#);
    assert_snapshot!(home.run(&["version", "-o", "yaml"]).shown(&home), @r#"
    exit: 0
    -- out
    protocol: "1.1"
    version: "[VERSION]"
    -- err
    "#);
    assert_snapshot!(home.run(&["version", "-o", "name"]).shown(&home), @r"
    exit: 0
    -- out
    [VERSION]
    -- err
    ");
}

#[test]
fn without_a_command_help_says_where_to_start() {
    let home = Home::new();
    assert_snapshot!(home.run(&[]).shown(&home), @r"
    exit: 2
    -- out
    -- err
    Run fleets of AI agents, each with a computer of its own

    Usage: raworc [OPTIONS] <COMMAND>

    Commands:
      quickstart  See it work: an agent takes messages, sleeps, wakes, and has every file still
      up          Serve an installation on this machine: server and operator in one process
      server      Serve callers and agents, with an operator elsewhere
      operator    Keep computers as their owners want them, with a server elsewhere
      login       Log in to a server
      logout      Log out, here and at the server
      agent       Make agents, look at them, and tell them what to be [alias: agents]
      send        Send an agent work, and see it done
      chat        Talk with an agent
      history     Read what was said
      events      Read the log of everything that changes
      status      Tell whether the server is well, and who you are to it
      store       Look after what is kept: its state, backups, the way to another database
      image       Make the images of agents' computers
      bench       Measure what Raworc takes on this machine, beside a floor
      version     Print the version
      completion  Print what makes your shell complete commands and agents' names
      help        Print this message or the help of the given subcommand(s)

    Options:
      -h, --help     Print help (see more with '--help')
      -V, --version  Print version

    Global options:
          --server <URL>     The server to speak to [default: that of the latest login, else
                             http://127.0.0.1:9000] [env: RAWORC_SERVER=]
          --tenant <TENANT>  Work in this tenant instead of your own [env: RAWORC_TENANT=]
      -o, --output <FORMAT>  How to print what was asked for [default: table] [possible values: table,
                             json, yaml, name]
          --color <WHEN>     When to use colours [default: auto] [possible values: auto, always, never]
      -v, --verbose...       Say more of what happens; twice for still more
      -q, --quiet            Say nothing but what was asked for

    Start here:
      raworc quickstart           see it work, from nothing
      raworc up                   serve an installation on this machine
      raworc agent create ada     make an agent
      raworc send ada '!uname -a' send it work

    Use `raworc help COMMAND` for more on a command.
    ");
}

#[test]
fn a_slip_in_a_command_is_a_usage_error() {
    let home = Home::new();
    assert_snapshot!(home.run(&["agnet", "list"]).shown(&home), @r"
    exit: 2
    -- out
    -- err
    error: unrecognized subcommand 'agnet'

      tip: some similar subcommands exist: 'agents', 'agentd', 'agent'

    Usage: raworc [OPTIONS] <COMMAND>

    For more information, try '--help'.
    ");
}

#[test]
fn a_bad_name_is_refused_with_the_rule() {
    let home = Home::new();
    assert_snapshot!(home.run(&["agent", "create", "Ada"]).shown(&home), @r#"
    exit: 2
    -- out
    -- err
    error: invalid value 'Ada' for '<NAME>': "Ada" is not a valid agent name: use 1 to 63 lower-case letters, digits and hyphens, with a letter or digit at both ends

    For more information, try '--help'.
    "#);
}

#[test]
fn a_server_that_does_not_answer_is_named_with_how_to_start_one() {
    let home = Home::new();
    // Nobody listens there any more.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let output = home.raworc(&["agent", "list", "--server", &url]).env("RAWORC_TOKEN", "x").output().expect("runs");
    let err = String::from_utf8(output.stderr).expect("UTF-8").replace(&url, "[URL]");
    assert_eq!(output.status.code(), Some(7), "{err}");
    assert_snapshot!(err, @r"
    error: no server answers at [URL]: Connection refused (os error 111)
    hint: start one with `raworc up`, or name another with --server URL
    ");
}

#[test]
fn without_a_login_the_way_to_one_is_told() {
    let home = Home::new();
    assert_snapshot!(home.run(&["agent", "list"]).shown(&home), @r"
    exit: 4
    -- out
    -- err
    error: you are not logged in to http://127.0.0.1:9000
    hint: log in with `raworc login`
    hint: or start a server on this machine with `raworc up`, which logs you in
    ");
}

#[test]
fn one_half_alone_needs_a_database_that_it_can_share() {
    let home = Home::new();
    let [server, operator] = ["server", "operator"].map(|half| home.run(&[half]).shown(&home));
    assert_eq!(server, operator);
    assert_snapshot!(server, @r"
    exit: 2
    -- out
    -- err
    error: store: SQLite is for one process, and a server or operator alone has others beside it
    hint: name a database that all of them share, such as store = 'postgres://raworc@db.example.org/raworc'
    hint: or start `raworc up`: server and operator in one process
    ");
}

#[test]
fn a_store_that_nobody_knows_is_named_without_what_is_secret_in_it() {
    let home = Home::new();
    for (store, what) in
        [("oracle://ada:hunter2@db/raworc", "oracle"), ("postgres:ada:hunter2@db/raworc", "an address")]
    {
        let refused = home.raworc(&["up"]).env("RAWORC_STORE", store).output().expect("runs");
        let err = String::from_utf8(refused.stderr).expect("UTF-8");
        assert_eq!(refused.status.code(), Some(2), "{err}");
        let is_told = err.contains(&format!("not in {what}")) && err.contains("SQLite");
        assert!(is_told && !err.contains("hunter2"), "{err}");
    }
}

#[test]
fn an_unknown_key_of_the_configuration_is_named() {
    let home = Home::new();
    std::fs::write(home.path().join("raworc.toml"), "listn = '127.0.0.1:9000'\n").expect("written");
    let refused = home.run(&["up"]);
    assert_eq!(refused.code, 2, "{refused:#?}");
    assert!(refused.err.contains("listn") && refused.err.contains("raworc.toml"), "{refused:#?}");
}

#[test]
fn every_shell_gets_its_script() {
    let home = Home::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = home.run(&["completion", shell]).ok();
        assert!(script.contains("raworc"), "{shell}: {script}");
    }
}

#[test]
fn words_of_the_command_line_are_completed() {
    let home = Home::new();
    let completed = home.raworc(&["--", "raworc", "agent", "keep"]).env("COMPLETE", "fish").output().expect("runs");
    let text = String::from_utf8(completed.stdout).expect("UTF-8");
    assert!(text.starts_with("keep-awake\tKeep an agent awake for a time"), "{text}");
}

#[test]
fn the_reference_is_what_the_code_says() {
    let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference");
    for (name, which) in [("cli", ReferencePage::Cli), ("configuration", ReferencePage::Configuration)] {
        let path = docs.join(name).with_extension("md");
        let there = std::fs::read_to_string(&path).expect("the page is there");
        assert!(
            there == page(which),
            "{} is not what the code says; write it anew with\n  cargo run -- reference {name} > docs/reference/{name}.md",
            path.display()
        );
    }
}

#[test]
fn the_default_idle_time_is_one_in_the_description_the_help_and_the_code() {
    let in_code = raworc_core::agent::AgentSpec::default().idle_timeout;
    assert_eq!(in_code, raworc_core::agent::DEFAULT_IDLE_TIMEOUT);
    let help = Home::new().run(&["agent", "create", "--help"]).ok();
    assert!(help.contains(&format!("[default: {in_code}s]")), "{help}");
    // Tests beside the API keep this file as the code is.
    let description = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let description = std::fs::read_to_string(description).expect("the description is there");
    let description: serde_json::Value = serde_json::from_str(&description).expect("JSON");
    let schemas = description["components"]["schemas"].as_object().expect("schemas");
    let told: Vec<_> = schemas
        .iter()
        .filter_map(|(name, schema)| Some((name, schema["properties"].get("idle_timeout")?.get("default")?)))
        .collect();
    assert!(!told.is_empty() && told.iter().all(|(_, default)| **default == in_code), "{told:?}");
}
