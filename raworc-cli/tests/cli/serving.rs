//! A served installation, and the commands that speak to it.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use insta::assert_snapshot;

use crate::home::{Home, Ran};
use crate::lossy::Lossy;
use crate::up::{Up, until};

fn mode(path: std::path::PathBuf) -> u32 {
    std::fs::metadata(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions().mode() & 0o777
}

#[test]
fn an_agent_is_made_works_sleeps_wakes_and_is_deleted() {
    let home = Home::new();
    let up = Up::start(&home);
    assert_snapshot!(home.run(&["agent", "list"]).shown(&home), @r"
    exit: 0
    -- out
    -- err
    There are no such agents. Make one with: raworc agent create NAME
    ");
    assert_snapshot!(home.run(&["agent", "create", "ada", "--wait", "-l", "team=x"]).shown(&home), @r"
    exit: 0
    -- out
    agent ada made
    -- err
    ");
    assert_snapshot!(home.run(&["agent", "create", "ada"]).shown(&home), @r"
    exit: 5
    -- out
    -- err
    error: an agent named ada exists already; choose another name, or delete that one
    ");
    assert_snapshot!(home.run(&["send", "ada", "!echo kept > note.txt; echo done"]).shown(&home), @r"
    exit: 0
    -- out
    done
    -- err
      $ echo kept > note.txt; echo done
    ");
    assert_snapshot!(home.run_with_input(&["send", "ada", "--no-steps"], "!echo from a pipe\n").shown(&home), @r"
    exit: 0
    -- out
    from a pipe
    -- err
    ");
    assert_snapshot!(home.run(&["agent", "sleep", "ada"]).shown(&home), @r"
    exit: 0
    -- out
    ada sleeps
    -- err
    ");
    assert_snapshot!(home.run(&["agent", "exec", "--no-wake", "ada", "--", "true"]).shown(&home), @r"
    exit: 5
    -- out
    -- err
    error: agent ada is asleep; wake it, or leave out wake=false
    hint: wake it with `raworc agent wake NAME`
    ");
    assert_snapshot!(home.run(&["send", "ada", "--no-steps", "!cat note.txt"]).shown(&home), @r"
    exit: 0
    -- out
    kept
    -- err
    ");
    assert_snapshot!(home.run(&["agent", "list", "-l", "team=x", "-o", "name"]).shown(&home), @r"
    exit: 0
    -- out
    ada
    -- err
    ");
    assert_snapshot!(home.run(&["agent", "edit", "ada"]).shown(&home), @r"
    exit: 2
    -- out
    -- err
    error: nothing was said to change
    hint: give options such as --memory 2Gi, or run it on a terminal to edit the spec
    ");
    assert_snapshot!(home.run(&["agent", "edit", "ada", "--description", "new", "-l", "team-"]).shown(&home), @r"
    exit: 0
    -- out
    agent ada changed
    -- err
    ");
    assert_snapshot!(home.run(&["agent", "delete", "ada"]).shown(&home), @r"
    exit: 0
    -- out
    agent ada deleted
    -- err
    ");
    assert_snapshot!(home.run(&["agent", "get", "ada"]).shown(&home), @r#"
    exit: 3
    -- out
    -- err
    error: there is no agent "ada"
    hint: `raworc agent list` shows the agents that there are
    "#);
    assert_snapshot!(home.run(&["agent", "delete", "ada", "--ignore-missing"]).shown(&home), @r"
    exit: 0
    -- out
    -- err
    ");
    assert_eq!(up.end(), Some(0));
}

#[test]
fn a_command_in_the_computer_passes_its_streams_and_its_exit_code_on() {
    let home = Home::new();
    let _up = Up::start(&home);
    home.run(&["agent", "create", "ada", "--wait"]).ok();
    let script = "cat; echo err >&2; exit 7";
    let ran = home.run_with_input(&["agent", "exec", "-i", "ada", "--", "sh", "-c", script], "in\n");
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (7, "in\n", "err\n"));
}

#[test]
fn programs_of_agents_ignore_no_signal_that_the_server_was_made_to_ignore() {
    let home = Home::new();
    let args = ["up", "--listen", "127.0.0.1:0", "-o", "json", "--log", "error"];
    let _up = Up::of(home.raworc_in("trap '' HUP INT QUIT; exec \"$@\"", &args));
    home.run(&["agent", "create", "ada", "--wait"]).ok();
    let told = home.run(&["agent", "exec", "ada", "--", "grep", "SigIgn", "/proc/self/status"]).ok();
    let mask = told.trim().rsplit('\t').next().and_then(|mask| u64::from_str_radix(mask, 16).ok()).expect("a mask");
    // The first three signals; what else these tests were made to ignore is not the server's.
    assert_eq!(mask & 0b111, 0, "{told}");
}

#[test]
fn files_and_trees_are_copied_both_ways() {
    let home = Home::new();
    let _up = Up::start(&home);
    home.run(&["agent", "create", "ada", "--wait"]).ok();
    std::fs::create_dir_all(home.path().join("tree/below")).expect("made");
    std::fs::write(home.path().join("tree/below/file"), "deep").expect("written");
    std::fs::write(home.path().join("one.txt"), "one").expect("written");
    home.run(&["agent", "cp", "one.txt", "ada:/agent/"]).ok();
    home.run(&["agent", "cp", "tree", "ada:/agent/"]).ok();
    assert_eq!(home.run(&["agent", "cp", "ada:/agent/one.txt", "-"]).ok(), "one");
    home.run(&["agent", "cp", "ada:/agent/one.txt", "two.txt"]).ok();
    assert_eq!(std::fs::read_to_string(home.path().join("two.txt")).expect("there"), "one");
    home.run(&["agent", "cp", "ada:/agent/tree", "back"]).ok();
    assert_eq!(std::fs::read_to_string(home.path().join("back/below/file")).expect("there"), "deep");
    assert_snapshot!(home.run(&["agent", "cp", "ada:/agent/nothing", "-"]).shown(&home), @r"
    exit: 3
    -- out
    -- err
    error: /agent/nothing: No such file or directory (os error 2)
    ");
    assert_snapshot!(home.run(&["agent", "cp", "one.txt", "two.txt"]).shown(&home), @r"
    exit: 2
    -- out
    -- err
    error: one end has to be in an agent's computer, and the other one here
    hint: write the one in the computer as NAME:PATH, such as ada:/agent/report.pdf
    ");
}

#[test]
fn what_is_secret_is_readable_for_its_owner_alone_and_opens_the_door() {
    let home = Home::new();
    let up = Up::start(&home);
    let data = home.path().join(".local/share/raworc");
    assert_eq!(mode(data.clone()), 0o700);
    for file in ["master.key", "admin-password"] {
        assert_eq!(mode(data.join(file)), 0o600, "{file}");
    }
    assert_eq!(mode(home.path().join(".config/raworc/session.json")), 0o600);
    home.run(&["logout"]).ok();
    let refused = home.run(&["agent", "list", "--server", &up.url]);
    assert_eq!(refused.code, 4, "{refused:#?}");
    assert!(refused.err.contains("raworc login"), "{refused:#?}");
    let wrong = home.run_with_input(&["login", "--server", &up.url], "not the password\n");
    assert_eq!(wrong.code, 4, "{wrong:#?}");
    let file = data.join("admin-password").display().to_string();
    home.run(&["login", "admin", "--server", &up.url, "--password-file", &file]).ok();
    let status = home.run(&["status"]).ok();
    assert!(status.contains("you are admin in default, admin"), "{status}");
}

#[test]
fn a_token_that_is_not_good_says_how_to_log_in() {
    let home = Home::new();
    let up = Up::start(&home);
    let output = home.raworc(&["agent", "list"]).env("RAWORC_TOKEN", "bad").output().expect("runs");
    let err = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(4), "{err}");
    assert!(err.contains("hint: log in again with `raworc login`"), "{err}");
    drop(up);
}

#[test]
fn what_is_in_the_way_of_a_start_is_named_with_the_way_out() {
    let home = Home::new();
    let up = Up::start(&home);
    let address = up.url.strip_prefix("http://").expect("http").to_owned();
    let shown = |args: &[&str]| home.run(args).shown(&home).replace(&address, "[ADDRESS]");
    assert_snapshot!(shown(&["up", "--listen", &address]), @r"
    exit: 1
    -- out
    -- err
    error: [ADDRESS] is in use by another process
      because: Address already in use (os error 98)
    hint: stop that process, or choose another port with --listen 127.0.0.1:PORT; port 0 takes a free one
    ");
    let in_use = home.run(&["up", "--listen", "127.0.0.1:0"]);
    assert_eq!(in_use.code, 1, "{in_use:#?}");
    assert!(in_use.err.contains("uses the data directory") && in_use.err.contains("--data"), "{in_use:#?}");
    drop(up);
    std::fs::create_dir(home.path().join("damaged")).expect("made");
    std::fs::write(home.path().join("damaged/raworc.db"), "no database at all ".repeat(500)).expect("written");
    let key = home.path().join(".local/share/raworc/master.key").display().to_string();
    let damaged = home.run(&["up", "--listen", "127.0.0.1:0", "--data", "damaged", "--master-key-file", &key]);
    assert_eq!(damaged.code, 1, "{damaged:#?}");
    assert!(damaged.err.contains("is damaged"), "{damaged:#?}");
    let other = home.path().join("other.key").display().to_string();
    std::fs::write(&other, "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=").expect("written");
    let sealed = home.run(&["up", "--listen", "127.0.0.1:0", "--master-key-file", &other]);
    assert_eq!(sealed.code, 1, "{sealed:#?}");
    assert!(sealed.err.contains("sealed under master key"), "{sealed:#?}");
}

#[test]
fn the_tour_holds_and_a_second_one_carries_on() {
    let home = Home::new();
    let first = home.run(&["quickstart", "--exit", "--listen", "127.0.0.1:0", "--no-model"]).ok();
    assert!(first.contains("the same to the letter") && first.contains("start 1 has become start 2"), "{first}");
    let second = home.run(&["quickstart", "--exit", "--listen", "127.0.0.1:0", "--no-model"]).ok();
    assert!(second.contains("An agent is there from an earlier run"), "{second}");
    assert!(second.contains("below 1 of earlier runs"), "{second}");
}

#[test]
fn a_change_whose_answer_is_lost_is_made_once() {
    let home = Home::new();
    let up = Up::start(&home);
    let lossy = Lossy::to(&up.url);
    let session = std::fs::read_to_string(home.path().join(".config/raworc/session.json")).expect("logged in");
    let session: serde_json::Value = serde_json::from_str(&session).expect("JSON");
    let token = session["logins"][&up.url]["token"].as_str().expect("a token").to_owned();
    let through = |args: &[&str]| {
        let before = lossy.lost();
        lossy.lose_next();
        let mut command = home.raworc(args);
        let ran = command.env("RAWORC_SERVER", lossy.url()).env("RAWORC_TOKEN", &token).output().expect("raworc runs");
        assert_eq!(lossy.lost(), before + 1, "{args:?}");
        Ran::of(ran).ok()
    };
    assert_eq!(through(&["agent", "create", "ada", "--wait"]), "agent ada made\n");
    assert_eq!(through(&["send", "ada", "--no-steps", "!echo once >> log; echo done"]), "done\n");
    assert_eq!(home.run(&["agent", "exec", "ada", "--", "cat", "log"]).ok(), "once\n");
    through(&["agent", "edit", "ada", "--if-generation", "1", "--description", "new"]);
    let edited: serde_json::Value =
        serde_json::from_str(&home.run(&["agent", "get", "ada", "-o", "json"]).ok()).expect("JSON");
    assert_eq!((&edited["generation"], &edited["spec"]["description"]), (&2.into(), &"new".into()), "{edited}");
    through(&["agent", "keep-awake", "ada", "--for", "1h"]);
    assert_eq!(through(&["agent", "sleep", "ada"]), "ada sleeps\n");
    assert_eq!(through(&["agent", "delete", "ada"]), "agent ada deleted\n");
    assert_eq!(home.run(&["agent", "list", "-o", "name"]).ok(), "");
}

#[test]
fn the_log_of_a_computer_that_sleeps_or_died_is_printed() {
    let home = Home::new();
    let up = Up::start(&home);
    home.run(&["agent", "create", "ada", "--wait"]).ok();
    let running = home.run(&["agent", "logs", "ada"]);
    assert!(running.code == 0 && !running.err.contains("its last start"), "that start goes on: {running:#?}");
    home.run(&["agent", "sleep", "ada"]).ok();
    let slept = home.run(&["agent", "logs", "ada"]);
    assert!(slept.code == 0 && !slept.out.trim().is_empty(), "the runtime keeps the log of the last start: {slept:#?}");
    assert!(slept.err.contains("ada is slept: this is the log of its last start"), "{slept:#?}");
    let none = home.run(&["agent", "logs", "ada", "--previous"]);
    assert_eq!(none.code, 3, "nothing has died: {none:#?}");
    // Its program is the parent of its shell.
    let killed = home.run(&["send", "ada", "!kill -9 $PPID"]);
    assert_ne!(killed.code, 0, "{killed:#?}");
    home.run(&["agent", "wake", "ada"]).ok();
    let kept = home.run(&["agent", "logs", "ada", "--previous", "--tail", "200"]).ok();
    assert!(!kept.trim().is_empty() && kept.len() <= 200, "{kept}");
    assert_eq!(up.end(), Some(0));
}

#[test]
fn of_devices_and_of_what_the_kernel_shows_only_the_directories_are_copied() {
    let home = Home::new();
    let _up = Up::start(&home);
    home.run(&["agent", "create", "ada", "--wait"]).ok();
    home.run(&["agent", "cp", "ada:/dev", "dev"]).ok();
    home.run(&["agent", "cp", "ada:/proc", "proc"]).ok();
    assert!(home.path().join("dev/shm").is_dir() && !home.path().join("dev/urandom").exists());
    assert_eq!(std::fs::read_dir(home.path().join("proc")).expect("there").count(), 0);
}

#[test]
fn a_file_with_holes_is_copied_whole() {
    let home = Home::new();
    let _up = Up::start(&home);
    home.run(&["agent", "create", "ada", "--wait"]).ok();
    home.run(&["send", "ada", "!mkdir out; truncate -s 4M out/holes; echo end >> out/holes"]).ok();
    home.run(&["agent", "cp", "ada:/agent/out/holes", "alone"]).ok();
    home.run(&["agent", "cp", "ada:/agent/out", "tree"]).ok();
    for path in ["alone", "tree/holes"] {
        let bytes = std::fs::read(home.path().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(bytes.len() == (4 << 20) + 4 && bytes.ends_with(b"\0end\n"), "{path}: {} bytes", bytes.len());
    }
}

#[test]
fn a_command_whose_output_cannot_be_written_has_failed_unless_whoever_read_it_has_enough() {
    let home = Home::new();
    let _up = Up::start(&home);
    home.run(&["agent", "create", "ada", "--wait"]).ok();
    let full = || std::fs::File::options().write(true).open("/dev/full").expect("Linux");
    for script in ["echo hi", "echo hi >&2"] {
        let mut command = home.raworc(&["agent", "exec", "ada", "--", "sh", "-c", script]);
        let out = command.stdout(full()).output().expect("raworc runs");
        // Standard error is still there for what went wrong with standard output.
        let told = String::from_utf8_lossy(&out.stderr).into_owned();
        match script {
            "echo hi" => assert!(out.status.code() == Some(1) && told.contains("No space left"), "{out:?}"),
            _ => assert_eq!((out.status.code(), told.as_str()), (Some(0), "hi\n")),
        }
    }
    let mut command = home.raworc(&["agent", "exec", "ada", "--", "sh", "-c", "echo $$ > pid; exec yes"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("raworc runs");
    let mut first = [0; 2];
    child.stdout.take().expect("a pipe").read_exact(&mut first).expect("output");
    let ended = Ran::of(child.wait_with_output().expect("it ends"));
    assert_eq!((&first, ended.code, ended.err.as_str()), (b"y\n", 0, ""));
    until("its end in the computer", || {
        home.run(&["agent", "exec", "ada", "--", "sh", "-c", "! kill -0 $(cat pid) 2>/dev/null"]).code == 0
    });
}

#[test]
fn several_agents_are_one_document_of_json_or_yaml() {
    let home = Home::new();
    let _up = Up::start(&home);
    home.run(&["agent", "create", "ada"]).ok();
    home.run(&["agent", "create", "bob"]).ok();
    let names = |args: &[&str]| {
        let out = home.run(&[&["agent"], args, &["-o", "json"]].concat()).ok();
        let agents: Vec<serde_json::Value> =
            serde_json::from_str(&out).unwrap_or_else(|error| panic!("{args:?}: {error}: {out}"));
        agents.iter().map(|agent| agent["name"].as_str().expect("a name").to_owned()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names(&["wake", "ada", "bob"]), "ada bob");
    let some = home.run(&["agent", "get", "ada", "nobody", "bob", "-o", "name"]);
    assert_eq!((some.out.as_str(), some.code != 0), ("ada\n", true), "those before a failure are told");
    assert_eq!(names(&["sleep", "ada", "bob"]), "ada bob");
    assert_eq!(home.run(&["agent", "wake", "ada", "bob", "-o", "name"]).ok(), "ada\nbob\n");
    let yaml = home.run(&["agent", "sleep", "ada", "bob", "-o", "yaml"]).ok();
    let items = yaml.lines().filter(|line| line.starts_with("- ")).count();
    assert!(items == 2 && yaml.lines().all(|line| line.starts_with("- ") || line.starts_with("  ")), "{yaml}");
    // What was done before something failed is told too.
    let failed = home.run(&["agent", "wake", "ada", "nobody", "bob", "-o", "json"]);
    let told: Vec<serde_json::Value> = serde_json::from_str(&failed.out).expect("JSON");
    assert_eq!((failed.code, told.len(), &told[0]["name"]), (3, 1, &"ada".into()));
    let one: serde_json::Value =
        serde_json::from_str(&home.run(&["agent", "wake", "ada", "-o", "json"]).ok()).expect("JSON");
    assert_eq!(one["name"], "ada", "one agent is no list");
    assert_eq!(names(&["delete", "ada", "nobody", "bob", "--ignore-missing"]), "ada bob");
}
