//! The process that owns the computers: what is left when it is killed, and what it is told when it may not isolate.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use libtest_mimic::Trial;
use raworc_backends::local::{Isolation, LocalOptions, LocalRuntime, PROGRAM_PATH};
use raworc_core::agent::Resources;
use raworc_core::ids::RuntimeName;
use raworc_core::runtime::{Phase, Runtime};

use crate::machine::{LIMIT, Machine, Made, boot, left_behind, open, processes_of, spec, trial, wait_for};

/// The first argument of a server.
pub(crate) const COMMAND: &str = "serve";

/// Leaves a process behind that will not end when asked.
const LINGER: &str = "(setsid sh -c 'trap \"\" TERM HUP; while :; do sleep 0.05; done' </dev/null >/dev/null 2>&1 &); \
    echo forked; while :; do sleep 1; done";

/// An ordinary user.
const NOBODY: u32 = 65534;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        trial("a_killed_server_leaves_no_process_and_its_successor_knows", a_killed_server_leaves_no_process),
        trial("without_isolation_a_killed_server_leaves_no_process_either", without_isolation_a_killed_server),
        trial("without_isolation_a_server_that_ends_without_a_close_leaves_no_process", without_isolation_an_early_end),
        trial("without_isolation_a_stop_ends_what_was_double_forked", without_isolation_a_stop_ends_all),
        trial("where_namespaces_are_forbidden_the_refusal_names_the_way_out", the_refusal_names_the_way_out),
        trial("two_processes_cannot_have_one_installation", two_processes_cannot_have_one_installation),
        trial("a_dropped_runtime_takes_its_computers_with_it", a_dropped_runtime_takes_its_computers_with_it),
    ];
    // Where an ordinary user runs these tests, all of them show it.
    if rustix::process::geteuid().is_root() {
        trials.push(trial("an_ordinary_user_isolates_as_well", an_ordinary_user_isolates_as_well));
        trials.push(trial(
            "without_control_groups_what_a_killed_server_and_its_helper_left_is_ended_by_the_next",
            without_control_groups_leftovers_are_ended,
        ));
    }
    trials
}

/// The server's side: `serve WHAT STATE_DIR INSTALLATION COMPUTER VOLUME`.
pub(crate) fn serve(args: &[String]) -> ExitCode {
    // Before any other thread is there, which would have another session.
    let key = (args[0] == "hostile-keys").then(plant_key);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let [what, state_dir, installation, computer, volume] = args else { panic!("{args:?}") };
        let made = Made { id: computer.parse().expect("an id"), volume: volume.parse().expect("an id") };
        let name = RuntimeName::new("local").expect("a name");
        let mut options =
            LocalOptions::new(name, installation.as_str(), state_dir).with_program(["/bin/sh", "-c", LINGER]);
        if what.starts_with("plain") {
            options = options.with_isolation(Isolation::None);
        }
        if what == "hostile-environment" {
            let own = std::env::current_exe().expect("this binary");
            options = options.with_program([PROGRAM_PATH, "hostile", "environment"]).with_program_file(own);
        }
        if let Some(number) = &key {
            let own = std::env::current_exe().expect("this binary");
            let program = [PROGRAM_PATH, "hostile", "keys", KEY, number.as_str()];
            options = options.with_program(program).with_program_file(own);
        }
        let local = LocalRuntime::open(options).await.expect("opened");
        if what == "probe" {
            say(&format!("{:?}", local.probe().await.map_err(|error| error.to_string())));
            return local.close().await;
        }
        let ensured = local.ensure(&spec(&made, Resources::default())).await.expect("made");
        say(&format!("{ensured:?}"));
        let machine = Machine::around(local, installation);
        if what == "hostile-environment" {
            let (_, log) = machine.run(&made).await;
            say(&log);
            return machine.close().await;
        }
        if what == "hostile-keys" {
            for made in [made, machine.make().await] {
                say(&machine.run(&made).await.1);
            }
            return machine.close().await;
        }
        let start = machine.start(&made).await;
        machine.wrote(&made, "forked").await;
        if what == "user" {
            machine.runtime.probe().await.unwrap_or_else(|error| panic!("{error}"));
            machine.runtime.stop(made.id, &start, LIMIT / 100).await.expect("stopped");
            assert_eq!(processes_of(installation), Vec::<String>::new());
            machine.runtime.remove(made.id).await.expect("removed");
            machine.runtime.remove_volume(made.volume).await.expect("removed");
        }
        say("serving");
        if what == "user" {
            return machine.close().await;
        }
        if what == "plain-without-close" {
            return;
        }
        std::future::pending::<()>().await;
    });
    ExitCode::SUCCESS
}

/// The name of the server's key.
const KEY: &str = "of-the-server";

/// Gives this process a session with a key in it, and returns its number.
fn plant_key() -> String {
    use keyutils_raw as kernel;
    let planted = kernel::keyctl_join_session_keyring(None)
        .and_then(|session| kernel::add_key("user", KEY, b"the-secret-of-the-machine", session))
        .and_then(|key| kernel::keyctl_search(kernel::KEY_SPEC_SESSION_KEYRING, "user", KEY, None).map(|_| key));
    match planted {
        Ok(key) => {
            say("the server has a key");
            key.to_string()
        }
        Err(error) => {
            say(&format!("the server cannot have a key: {error}"));
            "1".into()
        }
    }
}

fn say(line: &str) {
    use std::io::Write;
    writeln!(std::io::stdout(), "{line}").expect("the test reads");
}

fn command(binary: &Path, what: &str, state_dir: &Path, installation: &str, made: &Made) -> Command {
    let mut command = Command::new(binary);
    command
        .arg(COMMAND)
        .arg(what)
        .arg(state_dir)
        .args([installation, &made.id.to_string(), &made.volume.to_string()])
        .stdout(Stdio::piped());
    command
}

fn serving(server: &mut Child) {
    let lines = BufReader::new(server.stdout.as_mut().expect("piped")).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "serving"), "the server did not come up");
}

fn own_binary() -> PathBuf {
    std::env::current_exe().expect("this binary")
}

/// This binary in a directory that others may enter: it may lie where they cannot go. Another process copies it, since
/// whatever another thread begins meanwhile would hold this one's file open for writing, and nobody runs such a file.
fn copied_binary(directory: &Path) -> PathBuf {
    let binary = directory.join("server");
    let copied = Command::new("cp").arg("-p").arg(own_binary()).arg(&binary).status().expect("cp runs");
    assert!(copied.success(), "{} is copied", binary.display());
    binary
}

/// What a server says whose environment holds `secret`.
pub(crate) fn run_with_environment(what: &[&str], secret: &str) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    let installation = Machine::name();
    let mut server = command(&own_binary(), what[0], directory.path(), &installation, &Made::new())
        .env("RAWORC_MASTER_KEY", secret)
        .env("OPENAI_API_KEY", secret)
        .spawn()
        .expect("started");
    let mut output = String::new();
    server.stdout.take().expect("piped").read_to_string(&mut output).expect("read");
    assert!(server.wait().expect("ended").success(), "{output}");
    output
}

async fn killed(what: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    let (installation, made) = (Machine::name(), Made::new());
    let state_dir = directory.path().join("state");
    let mut server = command(&own_binary(), what, &state_dir, &installation, &made).spawn().expect("started");
    serving(&mut server);
    assert!(processes_of(&installation).len() >= 3, "the test's own processes cannot be seen");
    server.kill().and_then(|()| server.wait()).expect("killed");
    wait_for("every process ends with the server", async || processes_of(&installation).is_empty().then_some(())).await;

    let isolation = if what == "plain" { Isolation::None } else { Isolation::Required };
    let successor = open(&directory, &installation, "", |options| options.with_isolation(isolation)).await;
    let observed = successor.observe(made.id).await.expect("observed").expect("there");
    assert_eq!(observed.phase, Phase::Stopped { reason: Some("the server ended".into()) });
    successor.start(made.id, &boot(made.id, 2)).await.expect("starts again");
    successor.close().await;
    assert_eq!(left_behind(&installation), Vec::<String>::new());
}

async fn a_killed_server_leaves_no_process() {
    killed("isolated").await;
}

async fn without_isolation_a_killed_server() {
    killed("plain").await;
}

async fn without_isolation_an_early_end() {
    let directory = tempfile::tempdir().expect("a directory");
    let (installation, made) = (Machine::name(), Made::new());
    let state_dir = directory.path().join("state");
    let mut server = command(&own_binary(), "plain-without-close", &state_dir, &installation, &made);
    let output = server.stderr(Stdio::piped()).output().expect("started");
    assert!(output.status.success(), "{output:?}");
    // Whoever kills the helper keeps it from ending what was double-forked.
    wait_for("every process ends with the server", async || processes_of(&installation).is_empty().then_some(())).await;
    open(&directory, &installation, "", |options| options.with_isolation(Isolation::None)).await.close().await;
    assert_eq!(left_behind(&installation), Vec::<String>::new());
}

async fn without_isolation_a_stop_ends_all() {
    let machine = Machine::with(LINGER, |options| options.with_isolation(Isolation::None)).await;
    let made = machine.make().await;
    let start = machine.start(&made).await;
    machine.wrote(&made, "forked").await;
    assert!(processes_of(&machine.installation).len() >= 2, "the test's own processes cannot be seen");
    machine.runtime.stop(made.id, &start, LIMIT / 100).await.expect("stopped");
    assert_eq!(processes_of(&machine.installation), Vec::<String>::new());
    machine.close().await;
}

async fn an_ordinary_user_isolates_as_well() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).expect("opened");
    let binary = copied_binary(directory.path());
    let state_dir = directory.path().join("state");
    std::fs::create_dir(&state_dir).and_then(|()| chown(&state_dir, Some(NOBODY), Some(NOBODY))).expect("handed over");
    let installation = Machine::name();
    let output = command(&binary, "user", &state_dir, &installation, &Made::new())
        .uid(NOBODY)
        .gid(NOBODY)
        .stderr(Stdio::piped())
        .output()
        .expect("started");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("serving"), "{out}{err}");
    assert_eq!(left_behind(&installation), Vec::<String>::new());
}

async fn without_control_groups_leftovers_are_ended() {
    for what in ["plain", "isolated"] {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).expect("opened");
        let binary = copied_binary(directory.path());
        let state_dir = directory.path().join("state");
        std::fs::create_dir(&state_dir).and_then(|()| chown(&state_dir, Some(NOBODY), Some(NOBODY))).expect("made");
        let (installation, made) = (Machine::name(), Made::new());
        // An ordinary user may not write to control groups.
        let mut server =
            command(&binary, what, &state_dir, &installation, &made).uid(NOBODY).gid(NOBODY).spawn().expect("started");
        serving(&mut server);
        let computers = state_dir.join(&installation).join("computers").join(made.id.to_string());
        let record = std::fs::read_to_string(computers.join("start.json")).expect("a record");
        let record: serde_json::Value = serde_json::from_str(&record).expect("JSON");
        assert_eq!(record["cgroups"], serde_json::json!([]), "nothing else holds it together");
        let helper = i32::try_from(record["process"]["pid"].as_i64().expect("a number")).expect("a number");
        let pid = i32::try_from(server.id()).expect("a number");
        let signal = |pid, signal| {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("there");
        };
        // The server must not see its helper's end, or it would end the rest itself.
        signal(pid, nix::sys::signal::Signal::SIGSTOP);
        signal(helper, nix::sys::signal::Signal::SIGKILL);
        server.kill().and_then(|()| server.wait()).expect("killed");
        if what == "plain" {
            assert!(!processes_of(&installation).is_empty(), "what was double-forked lives on");
        }
        let isolation = if what == "plain" { Isolation::None } else { Isolation::Required };
        let successor = open(&directory, &installation, "", |options| options.with_isolation(isolation)).await;
        assert_eq!(processes_of(&installation), Vec::<String>::new(), "{what}");
        successor.close().await;
    }
}

async fn the_refusal_names_the_way_out() {
    // Inside a computer no further namespaces can be made, so a server in there is refused.
    let machine = Machine::with("", |options| {
        let made = Made::new();
        options
            .with_program([
                PROGRAM_PATH,
                COMMAND,
                "probe",
                "/agent/state",
                "inner",
                &made.id.to_string(),
                &made.volume.to_string(),
            ])
            .with_program_file(own_binary())
    })
    .await;
    let made = machine.make().await;
    let (_, log) = machine.run(&made).await;
    assert!(log.contains("Err(") && log.contains("make a user namespace"), "{log}");
    assert!(log.contains("sysctl user.max_user_namespaces") && log.contains("--no-isolation"), "{log}");
    machine.close().await;
}

async fn two_processes_cannot_have_one_installation() {
    let directory = tempfile::tempdir().expect("a directory");
    let (installation, made) = (Machine::name(), Made::new());
    let state_dir = directory.path().join("state");
    let mut server = command(&own_binary(), "isolated", &state_dir, &installation, &made).spawn().expect("started");
    serving(&mut server);
    let name = RuntimeName::new("local").expect("a name");
    let second = LocalRuntime::open(LocalOptions::new(name, installation.as_str(), &state_dir)).await;
    let untouched = processes_of(&installation).len();
    server.kill().and_then(|()| server.wait()).expect("killed");
    let error = second.expect_err("refused").to_string();
    assert!(error.contains("in use by another process"), "{error}");
    assert!(untouched >= 3, "the second process ended the first one's computers");
    wait_for("every process ends with the server", async || processes_of(&installation).is_empty().then_some(())).await;
    open(&directory, &installation, "", |options| options).await.close().await;
}

async fn a_dropped_runtime_takes_its_computers_with_it() {
    let machine = Machine::new(LINGER).await;
    let made = machine.make().await;
    machine.start(&made).await;
    machine.wrote(&made, "forked").await;
    let Machine { runtime, directory, installation } = machine;
    drop(runtime);
    wait_for("every process ends with the runtime", async || processes_of(&installation).is_empty().then_some(()))
        .await;
    open(&directory, &installation, "", |options| options).await.close().await;
    assert_eq!(left_behind(&installation), Vec::<String>::new());
}
