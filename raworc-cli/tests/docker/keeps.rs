//! What an agent has in its home is there to the byte after sleep and after whatever ended its computer.

use std::process::Command;

use crate::home::Home;
use crate::up::{self, Up, until};
use crate::{Cleared, docker, label, on_slim, run_slim};

/// Something of each kind that a directory can have, with the modes, links, times and names that are lost most easily.
const FILL: &str = r#"
umask 022
mkdir -p tree/a/b && cd tree
head -c 300000 /dev/urandom > blob
ln blob hard
ln -s ../blob a/link
ln -s /nowhere/at/all dangling
mkfifo fifo
: > empty
truncate -s 5M sparse
printf one > 'a/a name with blanks'
printf two > 'a/añb — 日本'
printf three > "$(printf 'a/new\nline')"
printf four > a/b/setuid && chmod 4751 a/b/setuid
mkdir -m 1777 sticky
mkdir -m 0500 closed
touch -d '2001-02-03 04:05:06.123456789' a/b/setuid
touch -h -d '1999-12-31 23:59:59.5' dangling
touch -d '2030-01-01 00:00:00.000000001' a
"#;

/// Other owners, which root alone can have.
const OWN: &str =
    "cd tree && chown 1234:5678 blob && chown -h 4321:0 dangling && chown 65534:65534 a/b && chmod 2770 a/b";

/// Everything about a home: kind, mode, owner, size, time, target and number of links of each name, and the sum of each file.
const MANIFEST: &str = r#"
find . -printf '%p|%y|%m|%U:%G|%s|%T@|%l|%n\0' | sort -z | tr '\0' '\n'
find . -type f -print0 | sort -z | xargs -0 sha256sum --zero | tr '\0' '\n'
"#;

/// Ends the program as `kill -9` does, by its own name: not the first process, which would end the container.
const KILL_PROGRAM: &str = r#"
for process in /proc/[0-9]*; do
    case $(tr '\0' ' ' < "$process/cmdline") in /opt/raworc/raworc-agentd*) kill -9 "${process#/proc/}" ;; esac
done
"#;

/// What ends a computer's start.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Sleep,
    ProgramKilled,
    ContainerKilled,
}

pub(crate) fn a_home_is_the_same_after_ten_ends() {
    let home = Home::new();
    let _cleared = Cleared(&home);
    let _up = Up::of(on_slim(&home, &["up", "--listen", "127.0.0.1:0", "-o", "json", "--log", "warn"]));
    let agents = [("ada", false), ("rita", true)];
    for (name, is_root) in agents {
        let root = if is_root { &["--root"][..] } else { &[] };
        run_slim(&home, &[&["agent", "create", name, "--wait"], root].concat()).ok();
        shell(&home, name, FILL);
        if is_root {
            shell(&home, name, OWN);
        }
    }
    let ends = |round| match round % 4 {
        1 => &[End::Sleep, End::ProgramKilled][..],
        3 => &[End::Sleep, End::ContainerKilled],
        _ => &[End::Sleep],
    };
    for (round, end) in (0..10).flat_map(|round| ends(round).iter().map(move |end| (round, *end))) {
        for (name, _) in agents {
            let before = shell(&home, name, MANIFEST);
            assert!(before.lines().count() > 20, "there is something to keep: {before}");
            begin_again(&home, name, end);
            let after = shell(&home, name, MANIFEST);
            assert_eq!(after, before, "{name} after {end:?} in round {round}");
            let more = format!("head -c 10000 /dev/urandom > tree/of-{round}; mv tree/of-{round} tree/sticky/");
            shell(&home, name, &more);
        }
    }
}

/// Ends the present start of an agent's computer, and waits until the next one has come.
fn begin_again(home: &Home, name: &str, end: End) {
    let start = || up::agent(home, name)["status"]["incarnation"].as_u64().expect("a number");
    let before = start();
    match end {
        End::Sleep => {
            run_slim(home, &["agent", "sleep", name]).ok();
            run_slim(home, &["agent", "wake", name]).ok();
        }
        // Nobody waits for what may be ended together with the container.
        End::ProgramKilled => {
            docker(&["exec", "--detach", &container(home, name), "sh", "-c", KILL_PROGRAM]);
        }
        End::ContainerKilled => drop(docker(&["kill", &container(home, name)])),
    }
    until("the next start is idle", || start() > before && up::agent(home, name)["status"]["state"] == "idle");
}

/// The agent's container.
fn container(home: &Home, name: &str) -> String {
    let computer = up::agent(home, name)["status"]["computer"].as_str().expect("an id").to_owned();
    let of_computer = format!("label=raworc.computer={computer}");
    docker(&["ps", "-q", "--filter", &label(home), "--filter", &of_computer])
}

fn shell(home: &Home, name: &str, script: &str) -> String {
    run_slim(home, &["agent", "exec", name, "--", "sh", "-c", script]).ok()
}

/// That a home is the same says something only if a difference would be seen.
pub(crate) fn each_difference_of_a_home_is_seen() {
    let home = Home::new();
    let sh = |script: &str| {
        let output = Command::new("sh").args(["-c", script]).current_dir(home.path()).output().expect("a shell");
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    sh(FILL);
    let mut before = sh(MANIFEST);
    for change in [
        // With what else would tell put back.
        "t=$(stat -c %y tree/blob); printf x | dd of=tree/blob bs=1 seek=7 conv=notrunc status=none; touch -d \"$t\" tree/blob",
        "t=$(stat -c %y tree/a/link); d=$(stat -c %y tree/a); new=$(readlink tree/a/link | sed 's/.$/#/')
         ln -sfn \"$new\" tree/a/link; touch -h -d \"$t\" tree/a/link; touch -d \"$d\" tree/a",
        "chmod 0640 tree/empty",
        "touch -d '2001-02-03 04:05:06.123456788' tree/a/b/setuid",
        "ln tree/empty tree/one-more-name",
        "rm tree/fifo",
        "mkdir tree/new",
    ] {
        sh(change);
        let after = sh(MANIFEST);
        assert_ne!(after, before, "{change}");
        before = after;
    }
}
