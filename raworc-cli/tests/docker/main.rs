//! The binary with a real Docker engine, the way a person uses both.
//!
//! What takes long is shown as ignored, and run by `-- --ignored two_hundred`.
//!
//! `RAWORC_TEST_BACKENDS` with `docker` in it makes an engine that does not answer a failure; else all of it is shown as
//! ignored.

#[cfg(all(feature = "postgres", feature = "mysql"))]
mod apart;
#[path = "../../../raworc-backends/tests/docker/between.rs"]
#[allow(dead_code, reason = "other binaries' tests use the rest")]
mod between;
mod by_hand;
mod compose;
mod crowd;
#[cfg(all(feature = "postgres", feature = "mysql"))]
#[path = "../../../raworc-backends/src/sql/server/tests/database.rs"]
#[allow(dead_code, reason = "other binaries' tests use the rest")]
mod database;
#[path = "../cli/disk.rs"]
mod disk;
#[path = "../../../raworc-backends/tests/docker/dockerd.rs"]
#[allow(dead_code, reason = "other binaries' tests use the rest")]
mod dockerd;
mod egress;
mod elsewhere;
mod full;
#[path = "../cli/home.rs"]
#[allow(dead_code, reason = "another binary's tests use the rest")]
mod home;
mod images;
mod keeps;
mod mapped;
mod pull;
mod restarted;
mod told;
#[path = "../cli/up.rs"]
#[allow(dead_code, reason = "another binary's tests use the rest")]
mod up;

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};

use libtest_mimic::{Arguments, Trial};
use raworc_core::entropy::{Clock, EntropyExt, SystemClock, SystemEntropy};

use self::between::{Between, Fate};
use self::dockerd::{Dockerd, IMAGE, answers, host};
use self::elsewhere::Elsewhere;
use self::home::{Home, Ran};
use self::up::{Up, until};

fn main() -> ExitCode {
    let required = std::env::var("RAWORC_TEST_BACKENDS").unwrap_or_default();
    let is_ignored = !required.split(',').any(|name| name == "docker") && !answers();
    let trial = |name: &str, test: fn()| {
        let run = move || {
            test();
            Ok(())
        };
        Trial::test(format!("docker::{name}"), run).with_ignored_flag(is_ignored)
    };
    let mut trials = Vec::new();
    #[cfg(all(feature = "postgres", feature = "mysql"))]
    trials.push(
        trial("servers_and_operators_are_killed_apart", apart::servers_and_operators_are_killed_apart)
            .with_ignored_flag(true),
    );
    trials.extend([
        trial("the_tour_holds_on_docker_and_leaves_nothing_running", the_tour_holds),
        trial("a_command_goes_on_while_raworc_is_killed_and_started_again", a_command_goes_on),
        trial("an_agent_waits_while_its_engine_is_away_and_goes_on_when_it_is_back", an_agent_waits_for_its_engine),
        trial("what_is_listed_is_reached_by_what_people_use", egress::what_is_listed_is_reached_by_what_people_use),
        trial("what_a_start_that_was_killed_left_of_its_trial_goes_with_the_next", a_trial_leaves_nothing),
        trial("an_engine_that_takes_calls_and_answers_none_holds_up_no_call_and_heals", an_engine_that_hangs),
        trial("up_serves_though_its_engine_hangs_after_its_greeting", an_engine_that_hangs_later),
        trial("an_agent_lives_on_an_engine_on_another_machine", an_agent_lives_elsewhere),
        trial("an_image_that_cannot_be_built_says_at_which_step", an_image_that_cannot_be_built),
        trial("a_home_is_the_same_to_the_byte_after_ten_sleeps_and_kills", keeps::a_home_is_the_same_after_ten_ends),
        trial("a_bench_of_docker_gives_each_figure_beside_the_engines_own", a_bench_of_docker),
        trial("an_agent_whose_volume_was_removed_by_hand_waits_for_it", by_hand::a_volume_that_was_removed),
        trial("an_agent_whose_container_was_removed_by_hand_gets_another", by_hand::a_container_that_was_removed),
        trial(
            "a_strangers_container_or_volume_with_our_name_is_told_with_the_way_out",
            by_hand::a_stranger_with_our_name,
        ),
        trial("an_image_that_was_removed_by_hand_is_told_with_the_way_out", by_hand::an_image_that_was_removed),
        trial("what_an_engine_does_not_enforce_is_told", told::what_is_not_enforced),
        trial("an_agent_lives_on_an_engine_that_maps_users", mapped::an_agent_lives),
        trial("messages_wait_while_the_volume_is_over_its_limit", messages_wait_for_room),
        trial("each_difference_of_a_home_would_be_seen", keeps::each_difference_of_a_home_is_seen),
        trial(
            "an_agent_gets_another_computer_on_its_volume_after_its_engine_was_started_anew",
            restarted::an_agent_gets_another_computer_on_its_volume,
        ),
        trial(
            "a_full_disk_of_the_engine_is_told_with_a_way_out_and_heals",
            full::a_full_disk_of_the_engine_is_told_and_heals,
        ),
        trial("two_hundred_agents_live_on_one_engine", crowd::two_hundred_agents_live_on_one_engine)
            .with_ignored_flag(true),
        trial("up_tries_out_whether_the_image_can_run_the_program_and_remembers_that_it_can", images::up_tries_it_out),
        trial(
            "an_agents_own_image_that_cannot_run_the_program_is_a_condition_with_the_way_out",
            images::unfit_for_an_agent,
        ),
        trial("who_waits_for_an_image_is_shown_how_far_its_pull_came", pull::who_waits_is_shown),
        trial("how_far_a_pull_came_is_told_and_what_cannot_be_pulled_is_a_condition", pull::an_image_is_pulled),
        trial("an_agent_lives_in_debian_with_the_static_program", images::debian),
        trial("an_agent_lives_in_a_system_of_busybox_alone", images::busybox),
        trial("an_agent_lives_in_an_image_with_one_static_shell_and_nothing_else", images::one_shell),
        trial("an_agent_in_an_image_without_a_shell_says_so_and_moves_files", images::no_shell),
        trial(
            "the_compose_file_brings_up_an_installation_with_mysql",
            compose::an_installation_is_brought_up_with_mysql,
        ),
        trial(
            "the_compose_file_brings_up_an_installation_with_postgres",
            compose::an_installation_is_brought_up_with_postgres,
        ),
        trial("an_image_for_another_processor_says_what_cannot_be_executed", images::another_processor),
    ]);
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

pub(crate) fn docker(args: &[&str]) -> String {
    ask(args).unwrap_or_else(|error| panic!("docker {args:?}: {error}"))
}

/// The same where it may be refused.
pub(crate) fn ask(args: &[&str]) -> Result<String, String> {
    let output = Command::new("docker").args(["--host", &host()]).args(args).output().expect("the docker command");
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// The binary in this home, with the engine. `auto` would take the local runtime where the engine is slow, so whoever means
/// that says so.
pub(crate) fn raworc(home: &Home, args: &[&str]) -> Command {
    let mut command = home.raworc(args);
    command.env("DOCKER_HOST", host()).env("RAWORC_RUNTIME", "docker");
    command
}

/// The same with an image that is made of nothing but a Debian.
pub(crate) fn on_slim(home: &Home, args: &[&str]) -> Command {
    let mut command = raworc(home, args);
    command.env("RAWORC_DOCKER__IMAGE", IMAGE);
    command
}

/// The same on an engine of the test's own.
pub(crate) fn on_engine(engine: &Dockerd, home: &Home, args: &[&str]) -> Command {
    let mut command = on_slim(home, args);
    command.env("DOCKER_HOST", engine.host());
    command
}

pub(crate) fn run_slim(home: &Home, args: &[&str]) -> Ran {
    Ran::of(on_slim(home, args).output().expect("raworc runs"))
}

pub(crate) fn run(home: &Home, args: &[&str]) -> Ran {
    Ran::of(raworc(home, args).output().expect("raworc runs"))
}

/// What finds all that the installation of this home has on the engine.
pub(crate) fn label(home: &Home) -> String {
    let name = std::fs::read_to_string(home.path().join(".local/share/raworc/installation")).expect("there");
    format!("label=raworc.installation={}", name.trim())
}

/// Names the installation of a home before its first start, so that the engine can be asked for what becomes of it.
pub(crate) fn label_ahead(home: &Home) -> String {
    let data = home.path().join(".local/share/raworc");
    std::fs::create_dir_all(&data).expect("made");
    let name = format!("{:016x}", u64::from_le_bytes(SystemEntropy.bytes()));
    std::fs::write(data.join("installation"), name).expect("written");
    label(home)
}

/// The same of what `up` makes to try the engine out: it has a name of its own, so that no operator takes it for an orphan.
pub(crate) fn trial_label_ahead(home: &Home) -> String {
    format!("{}-trial", label_ahead(home))
}

/// Takes away at its end what the installation of a home has on the engine.
pub(crate) struct Cleared<'a>(pub(crate) &'a Home);

impl Drop for Cleared<'_> {
    fn drop(&mut self) {
        clear(self.0);
    }
}

/// Whether the engine names nothing on a network.
pub(crate) fn is_empty(network: &str) -> bool {
    docker(&["network", "inspect", "--format", "{{len .Containers}}", network]) == "0"
}

fn clear(home: &Home) {
    if !home.path().join(".local/share/raworc/installation").exists() {
        return;
    }
    let label = label(home);
    for (list, remove) in [
        (["ps", "-aq", ""], ["rm", "-f"]),
        (["volume", "ls", "-q"], ["volume", "rm"]),
        (["network", "ls", "-q"], ["network", "rm"]),
    ] {
        let mut list: Vec<_> = list.into_iter().filter(|word| !word.is_empty()).collect();
        list.extend(["--filter", &label]);
        for found in docker(&list).lines() {
            match ask(&[remove[0], remove[1], found]) {
                // An engine that has miscounted what was on a network gives it to nobody.
                Err(error) if error.contains("active endpoints") && is_empty(found) => {}
                removed => drop(removed.unwrap_or_else(|error| panic!("{found} stays: {error}"))),
            }
        }
    }
}

fn the_tour_holds() {
    let home = Home::new();
    let _cleared = Cleared(&home);
    let tour = ["quickstart", "--exit", "--listen", "127.0.0.1:0", "--no-model"];
    let first = run(&home, &tour).ok();
    assert!(first.contains("runtime  docker at ") && first.contains("docker-init"), "{first}");
    assert!(first.contains("the same to the letter") && first.contains("start 1 has become start 2"), "{first}");
    let second = run(&home, &tour).ok();
    assert!(second.contains("below 1 of earlier runs"), "{second}");
    images::the_computer_image(&home);
    assert_eq!(docker(&["ps", "-q", "--filter", &label(&home)]), "", "no computer runs on after the tour");
}

/// The container is not this process's: what runs in it does not end with it.
fn a_command_goes_on() {
    let home = Home::new();
    let _cleared = Cleared(&home);
    let start = || Up::of(raworc(&home, &["up", "--listen", "127.0.0.1:0", "-o", "json", "--log", "warn"]));
    let up = start();
    run(&home, &["agent", "create", "ada", "--wait"]).ok();
    let before = up::agent(&home, "ada")["status"]["incarnation"].clone();
    let sent = "!echo begun > begun; until [ -e go ]; do sleep 0.1; done; echo done";
    run(&home, &["send", "ada", "--no-wait", sent]).ok();
    let begun = ["agent", "exec", "ada", "--", "cat", "begun"];
    until("the command has begun", || run(&home, &begun).code == 0);
    up.kill();
    let _up = start();
    until("the program has found the new server", || {
        run(&home, &["agent", "exec", "ada", "--", "touch", "go"]).code == 0
    });
    until("the message has ended", || run(&home, &["history", "ada"]).ok().contains("\ndone\n"));
    let agent = up::agent(&home, "ada");
    assert_eq!(agent["status"]["incarnation"], before, "it was one start all the time: {agent:#}");
}

/// Without the engine, `auto` makes computers by namespaces; agents of Docker stay what they are.
fn an_agent_waits_for_its_engine() {
    let home = Home::new();
    let _cleared = Cleared(&home);
    let up = ["up", "--listen", "127.0.0.1:0", "-o", "json", "--log", "warn"];
    let with_engine = Up::of(raworc(&home, &up));
    run(&home, &["agent", "create", "ada", "--wait"]).ok();
    run(&home, &["agent", "sleep", "ada"]).ok();
    assert_eq!(with_engine.end(), Some(0));
    let mut command = raworc(&home, &up);
    command.env("DOCKER_HOST", "unix:///nowhere.sock").env("RAWORC_RUNTIME", "auto");
    let without = Up::of(command);
    run(&home, &["agent", "create", "bob", "--wait"]).ok();
    assert_eq!(up::agent(&home, "bob")["spec"]["runtime"], "local");
    run(&home, &["send", "ada", "--no-wait", "!echo here again"]).ok();
    let reason = || up::condition(&home, "ada", "Ready").map(|ready| ready["reason"].clone());
    until("the reason is told", || reason().is_some_and(|reason| reason == "EngineUnavailable"));
    assert!(run(&home, &["agent", "explain", "ada"]).ok().contains("/nowhere.sock"), "and which engine it is");
    assert_eq!(without.end(), Some(0));
    let _with_engine = Up::of(raworc(&home, &up));
    until("the message has ended", || run(&home, &["history", "ada"]).ok().contains("\nhere again\n"));
}

/// That a call has a limit is shown in paused time; here, what needs no engine waits for none.
fn an_engine_that_hangs() {
    let home = Home::new();
    let _cleared = Cleared(&home);
    let socket = home.path().join("mute.sock");
    let mute = std::os::unix::net::UnixListener::bind(&socket).expect("bound");
    // What is accepted is kept, and nothing is said.
    let kept = std::sync::Arc::<std::sync::Mutex<Vec<_>>>::default();
    let keeps = kept.clone();
    std::thread::spawn(move || mute.incoming().flatten().for_each(|call| keeps.lock().expect("kept").push(call)));
    let mut command = on_slim(&home, &["up", "--listen", "127.0.0.1:0", "-o", "json", "--log", "error"]);
    command.env("DOCKER_HOST", format!("unix://{}", socket.display()));
    let up = Up::of(command);
    let began = tokio::time::Instant::now();
    run(&home, &["agent", "create", "ada"]).ok();
    run(&home, &["agent", "delete", "ada", "--yes"]).ok();
    assert_ne!(run(&home, &["agent", "get", "ada"]).code, 0, "its name is free");
    // Each that waited for the engine would take as long as a call of it may.
    assert!(began.elapsed() < raworc_backends::docker::ENGINE_LIMIT * 3, "{:?}", began.elapsed());

    // What is made on another runtime lives meanwhile.
    run(&home, &["agent", "create", "bob"]).ok();
    run(&home, &["agent", "create", "cy", "--runtime", "local", "--wait"]).ok();
    assert!(run(&home, &["send", "cy", "!echo here"]).ok().contains("here"), "cy answers");
    let ready = || up::condition(&home, "bob", "Ready").unwrap_or_default();
    until("the reason is told", || ready()["reason"] == "EngineUnavailable");
    let explained = run(&home, &["agent", "explain", "bob"]).ok();
    let way_out = "mute.sock takes calls, and says nothing for 15s; start it anew where it hangs";
    assert!(explained.contains("EngineUnavailable") && explained.contains(way_out), "{explained}");
    assert!(run(&home, &["send", "cy", "!echo still here"]).ok().contains("still here"), "cy answers");

    let engine = host();
    let real = engine.strip_prefix("unix://");
    if !dockerd::is_untested("an engine that answers again", real.is_none().then_some("its engine has no socket")) {
        std::fs::remove_file(&socket).expect("the silent one is gone");
        std::os::unix::fs::symlink(real.expect("a socket"), &socket).expect("linked");
        kept.lock().expect("kept").clear();
        until("bob is up", || up::agent(&home, "bob")["status"]["state"] == "idle");
        assert!(run(&home, &["send", "bob", "!echo here"]).ok().contains("here"), "bob answers");
    }
    assert_eq!(up.end(), Some(0));
}

fn messages_wait_for_room() {
    let home = Home::new();
    let _cleared = Cleared(&home);
    let up = Up::of(on_slim(&home, &["up", "--listen", "127.0.0.1:0", "-o", "json", "--log", "warn"]));
    disk::messages_wait_for_room(&home);
    assert_eq!(up.end(), Some(0));
}

/// From the question for the image on, or from the computer on trial on.
fn an_engine_that_hangs_later() {
    let (host, runtime) = (host(), tokio::runtime::Runtime::new().expect("a runtime"));
    let Some(socket) = host.strip_prefix("unix://") else {
        dockerd::is_untested("an engine that hangs after its greeting", Some("its engine has no socket"));
        return;
    };
    for (answered, why) in [
        (["/version", "/info"].as_slice(), "does not say whether it has the image within"),
        (&["/version", "/info", "/json"], "does not make a computer and take it away within"),
    ] {
        let between = runtime.block_on(async {
            Between::deciding(socket, move |line| {
                let path = line.split(' ').nth(1).unwrap_or_default();
                let is_greeting = !path.contains("/containers/") && answered.iter().any(|end| path.ends_with(end));
                std::future::ready(if is_greeting { Fate::Passed } else { Fate::Unanswered })
            })
        });
        let home = Home::new();
        let mut command = on_slim(&home, &["up", "--listen", "127.0.0.1:0", "--log", "warn"]);
        let mut child =
            command.env("DOCKER_HOST", between.host()).stdout(Stdio::piped()).spawn().expect("raworc starts");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
        let up = Up { child, url: String::new(), started: serde_json::Value::Null };
        let told = lines.by_ref().find(|line| line.contains("runtime")).expect("it serves");
        assert!(told.contains(why), "{told}");
        // Where this machine has no walls, there is no other runtime.
        if run(&home, &["agent", "create", "bob", "--runtime", "local", "--wait"]).code == 0 {
            assert!(run(&home, &["send", "bob", "!echo here"]).ok().contains("here"));
        }
        assert_eq!(up.end(), Some(0));
    }
}

/// Docker's own command line makes the context by which the engine is found.
fn an_agent_lives_elsewhere() {
    if dockerd::is_untested("an engine on another machine", elsewhere::why_not()) {
        return;
    }
    let engine = Elsewhere::start();
    let home = Home::new();
    let files = engine.files().display();
    let endpoint = format!("host={},ca={files}/ca.pem,cert={files}/cert.pem,key={files}/key.pem", engine.host());
    for context in [["create", "far", "--docker", &endpoint].as_slice(), &["use", "far"]] {
        let made = home.program("docker").arg("context").args(context).output().expect("the docker command");
        assert!(made.status.success(), "{made:?}");
    }
    let with = |args: &[&str], more: &[(&str, &str)]| {
        let mut command = home.raworc(args);
        command.env("RAWORC_RUNTIME", "docker").env("RAWORC_DOCKER__IMAGE", elsewhere::IMAGE);
        command.envs(more.iter().copied());
        command
    };
    let up = ["up", "--listen", "127.0.0.1:0", "-o", "json", "--log", "warn"];
    let nowhere = Ran::of(with(&up, &[("RAWORC_DOCKER__REMOTE", "true")]).output().expect("raworc runs"));
    assert!(nowhere.code == 2 && nowhere.err.contains("agents.listen"), "{nowhere:#?}");

    let listen = engine.free_port();
    let whole = [("RAWORC_DOCKER__REMOTE", "true"), ("RAWORC_AGENTS__LISTEN", listen.as_str())];
    let start = || Up::of(with(&up, &whole));
    let first = start();
    let networks = || engine.docker(&["network", "ls", "--quiet", "--filter", "label=raworc.installation"]);
    assert_eq!(networks(), "", "that of the computer on trial is gone");
    let raworc = |args: &[&str]| Ran::of(home.raworc(args).output().expect("raworc runs"));
    let closed = raworc(&["agent", "create", "ada"]);
    assert!(closed.code != 0 && closed.err.contains("use the mode open"), "{closed:#?}");
    raworc(&["agent", "create", "ada", "--network", "open", "--wait"]).ok();
    let said = raworc(&["send", "ada", "!echo here > kept; cat kept; cat /proc/sys/kernel/hostname"]).ok();
    assert!(said.contains("here"), "{said}");
    assert_eq!(raworc(&["agent", "exec", "ada", "--", "cat", "kept"]).ok(), "here\n", "over the link");
    assert_ne!(engine.docker(&["ps", "--quiet"]), "", "it is there that it runs");
    let before = up::agent(&home, "ada")["status"]["incarnation"].clone();
    first.kill();
    let second = start();
    until("the program has found the new server", || raworc(&["agent", "exec", "ada", "--", "cat", "kept"]).code == 0);
    assert_eq!(up::agent(&home, "ada")["status"]["incarnation"], before, "it is one start all the time");
    raworc(&["agent", "sleep", "ada"]).ok();
    until("the computer has stopped", || engine.docker(&["ps", "--quiet"]).is_empty());
    let woken = raworc(&["send", "ada", "!cat kept && echo again"]).ok();
    assert!(woken.contains("here\nagain"), "{woken}");
    raworc(&["agent", "delete", "ada", "--yes"]).ok();
    until("the computer is gone", || engine.docker(&["ps", "--all", "--quiet"]).is_empty());
    until("its network is gone", || networks().is_empty());
    let programs = engine.docker(&["volume", "ls", "--quiet", "--filter", "label=raworc.program"]);
    let volumes = || engine.docker(&["volume", "ls", "--quiet"]);
    until("its volume is gone, and the program stays for the next one", || volumes() == programs);
    assert_eq!(programs.lines().count(), 1, "{programs}");
    assert_eq!(second.end(), Some(0));
    let tour = with(&["quickstart", "--exit", "--listen", "127.0.0.1:0", "--no-model"], &whole).output();
    let told = Ran::of(tour.expect("raworc runs")).ok();
    assert!(told.contains("--network open") && told.contains("start 1 has become start 2"), "{told}");
}

fn an_image_that_cannot_be_built() {
    let home = Home::new();
    std::fs::write(home.path().join("Dockerfile"), "FROM debian:bookworm-slim\nRUN echo so far && exit 7\n")
        .expect("written");
    let built = run(&home, &["image", "build", "--file", "Dockerfile", "--tag", "localhost/raworc-test:never"]);
    assert_eq!(built.code, 1, "{built:#?}");
    assert!(built.err.contains("so far") && built.err.contains("returned a non-zero code: 7"), "{built:#?}");
    let absent = run(&home, &["image", "build", "--file", "nowhere"]);
    assert!(absent.code == 2 && absent.err.contains("nowhere"), "{absent:#?}");
    let mut elsewhere = raworc(&home, &["image", "build"]);
    let elsewhere = Ran::of(elsewhere.env("DOCKER_HOST", "unix:///nowhere.sock").output().expect("raworc runs"));
    for (host, said) in [("ssh://ada@there", "unix:///PATH"), ("tcp://10.0.0.1:2375", "docker.without_tls")] {
        let refused =
            Ran::of(raworc(&home, &["image", "build"]).env("DOCKER_HOST", host).output().expect("raworc runs"));
        let is_told =
            refused.err.contains("the Docker engine of DOCKER_HOST cannot be used") && refused.err.contains(said);
        assert!(refused.code == 2 && is_told, "{refused:#?}");
    }
    assert!(
        elsewhere.code == 7 && elsewhere.err.contains("no Docker engine answers at unix:///nowhere.sock"),
        "{elsewhere:#?}"
    );
}

/// A start makes a computer on trial, and may be killed in the middle of that.
fn a_trial_leaves_nothing() {
    let home = Home::new();
    let _cleared = Cleared(&home);
    let up = ["up", "--listen", "127.0.0.1:0", "-o", "json", "--log", "warn"];
    let label = trial_label_ahead(&home);
    let volumes = || docker(&["volume", "ls", "-q", "--filter", &label]);
    let now = SystemClock.now().as_second().to_string();
    let mut events = Command::new("docker");
    events.args(["--host", &host(), "events", "--since", &now, "--filter", "event=create", "--filter", &label]);
    let mut events = events.stdout(Stdio::piped()).spawn().expect("the docker command");
    let mut starting = on_slim(&home, &up).stdout(Stdio::piped()).spawn().expect("raworc starts");
    let mut made = String::new();
    BufReader::new(events.stdout.take().expect("a pipe")).read_line(&mut made).expect("an event");
    starting.kill().expect("killed");
    starting.wait().expect("it is gone");
    events.kill().expect("killed");
    events.wait().expect("it is gone");
    assert!(made.contains("container create"), "{made}");
    assert_ne!(volumes(), "", "it was killed in the middle");
    let served = Up::of(on_slim(&home, &up));
    assert_eq!(volumes(), "", "the trial's volume is gone");
    assert_eq!(docker(&["ps", "-aq", "--filter", &label]), "", "and its container");
    assert_eq!(served.end(), Some(0));
}

fn a_bench_of_docker() {
    let home = Home::new();
    let place = home.path().display().to_string();
    let out = run_slim(&home, &["bench", "docker", "--rounds", "1", "--dir", &place, "-o", "json"]).ok();
    let figures: Vec<serde_json::Value> = serde_json::from_str(&out).expect("a list of figures");
    let number = |figure: &serde_json::Value, key: &str| figure[key][0].as_f64().unwrap_or_default();
    for (what, compared) in [
        ("docker, message to leased by a sleeper", true),
        ("docker, message to leased: outside the engine's calls", false),
        ("docker, sleep to stopped", true),
        ("docker, create to idle", true),
        ("docker, ten created at once, all idle", true),
    ] {
        let figure = figures.iter().find(|figure| figure["what"] == what).unwrap_or_else(|| panic!("no {what}"));
        assert!(number(figure, "ours") > 0.0, "{figure}");
        assert_eq!(number(figure, "floor") > 0.0, compared, "{figure}");
        assert_eq!(figure["verdict"] == "shown", !compared, "{figure}");
    }
    assert_eq!(home.names(), Vec::<String>::new(), "something was left behind");
}
