//! What a program tries to reach, and must not.

use std::fs::Permissions;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process::Command;

use libtest_mimic::Trial;
use raworc_backends::local::{LocalOptions, LocalRuntime};
use raworc_core::ids::RuntimeName;

use crate::hostile::{SECRET, SET_USER_ID};
use crate::machine::{Machine, Made, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("files_of_the_machine_and_of_others_are_out_of_reach", files),
        trial("a_data_directory_that_computers_would_be_shown_is_refused", shown_data),
        trial("processes_of_the_machine_are_out_of_reach", processes),
        trial("the_machines_network_and_abstract_sockets_are_out_of_reach", network),
        trial("privileges_cannot_be_had_back", privileges),
        trial("the_servers_environment_is_out_of_reach", environment),
        trial("keys_of_the_servers_session_and_of_other_computers_are_out_of_reach", keys),
    ]
}

/// Runs the attempts, and shows that every one was refused.
async fn all_refused(machine: Machine) -> String {
    let made = machine.make().await;
    all_refused_in(machine, made).await
}

async fn all_refused_in(machine: Machine, made: Made) -> String {
    let (reason, log) = machine.run(&made).await;
    assert!(log.ends_with("all tried\n") && reason == "exit code 0", "{reason}: {log}");
    assert!(log.contains("refused ") && !log.contains("BROKE OUT"), "{log}");
    machine.close().await;
    log
}

async fn files() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("data");
    let link = directory.path().join("link");
    for path in [&data, &link] {
        std::fs::create_dir(path).expect("made");
    }
    let mut paths = Vec::new();
    for name in ["raworc.db", "master.key", "data/raworc.db"] {
        let path = directory.path().join(name);
        std::fs::write(&path, SECRET).expect("written");
        paths.push(path.display().to_string());
    }
    let neighbour = Machine::new(&format!("echo {SECRET} > /agent/secret; sleep 1000")).await;
    let made = neighbour.make().await;
    let start = neighbour.start(&made).await;
    let secret = neighbour.volume(&made).join("secret");
    crate::machine::wait_for("the neighbour's secret", async || secret.exists().then_some(())).await;
    paths.push(secret.display().to_string());
    let pid = start.0.split('.').next().expect("a number").to_owned();
    paths.push(format!("/proc/{pid}/root/agent/secret"));

    let mut arguments = vec!["files".to_owned()];
    arguments.extend(paths);
    all_refused(Machine::hostile(&arguments, |options| options.with_link_dir(&link)).await).await;
    neighbour.close().await;
}

/// An ordinary user's agents are that user outside: nothing but the place keeps them from its files.
async fn shown_data() {
    let directory = tempfile::tempdir().expect("a directory");
    std::os::unix::fs::symlink("/usr", directory.path().join("link")).expect("linked");
    let (elsewhere, key) = (directory.path().join("state"), Path::new("/usr/raworc-test/master.key"));
    let opened = async |state_dir: &Path, private: &[&Path]| {
        let name = RuntimeName::new("local").expect("a name");
        let options = LocalOptions::new(name, Machine::name(), state_dir).with_private(private);
        LocalRuntime::open(options).await.map_err(|error| error.to_string())
    };
    for state_dir in [Path::new("/usr/share/raworc-test/state"), &directory.path().join("link/raworc-test")] {
        let error = opened(state_dir, &[]).await.expect_err("refused");
        assert!(error.contains("lies below /usr") && error.contains("choose a place elsewhere"), "{error}");
        assert!(!state_dir.exists(), "nothing is made where it may not be");
    }
    let error = opened(&elsewhere, &[key]).await.expect_err("refused");
    assert!(error.contains("/usr/raworc-test/master.key lies below /usr"), "{error}");
    opened(&elsewhere, &[directory.path()]).await.expect("nothing of it is shown").close().await;
}

async fn processes() {
    let mut target = Command::new("/bin/sleep").arg("1000").spawn().expect("a target");
    let arguments = ["processes".to_owned(), target.id().to_string()];
    let log = all_refused(Machine::hostile(&arguments, |options| options).await).await;
    let survived = target.try_wait().expect("asked").is_none();
    target.kill().and_then(|()| target.wait()).expect("ended");
    assert!(survived, "the target was ended from inside: {log}");
}

async fn network() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let name = format!("raworc-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let _abstract_socket = UnixListener::bind_addr(&address).expect("bound");
    let arguments = ["network".to_owned(), listener.local_addr().expect("an address").to_string(), name];
    let log = all_refused(Machine::hostile(&arguments, |options| options).await).await;
    assert!(log.contains("its own loopback works"), "{log}");
}

async fn privileges() {
    let machine = Machine::hostile(&["privileges".to_owned()], |options| options).await;
    let made = machine.make().await;
    // The server's own user's: root's, where it is root.
    let file = machine.volume(&made).join(SET_USER_ID);
    std::fs::copy("/usr/bin/id", &file).expect("copied");
    std::fs::set_permissions(&file, Permissions::from_mode(0o4755)).expect("made a set-user-id program");
    all_refused_in(machine, made).await;
}

async fn environment() {
    // The server's environment cannot be changed here without harm to other tests, so a server of its own has it.
    let output = crate::servers::run_with_environment(&["hostile-environment"], SECRET);
    assert!(output.contains("all tried") && output.contains("refused inherit"), "{output}");
    assert!(!output.contains("BROKE OUT"), "{output}");
}

async fn keys() {
    let output = crate::servers::run_with_environment(&["hostile-keys"], SECRET);
    assert_eq!(output.matches("all tried").count(), 2, "{output}");
    assert!(!output.contains("BROKE OUT"), "{output}");
    // Where the kernel lets nobody have keys, there is nothing to show, and the server's own key says so.
    let (has_key, own_work) = (output.contains("the server has a key"), output.matches("its own keys work").count());
    assert!(has_key && own_work == 2 || !has_key && output.contains("keys are forbidden here"), "{output}");
}
