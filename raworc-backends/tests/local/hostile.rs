//! The hostile program: this test's own binary, as it runs inside a computer.
//!
//! Each attempt writes a line, `refused NAME: why` or `BROKE OUT NAME: how`, and the last line is `all tried`.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, chroot, setuid};
use rustix::fs::{FileType, Mode};
use rustix::mount::{MountFlags, UnmountFlags};

/// The first argument of the program.
pub(crate) const COMMAND: &str = "hostile";

/// A program in the volume that is another user's, and says as whom it runs.
pub(crate) const SET_USER_ID: &str = "set-user-id";

/// What a secret of the machine contains.
pub(crate) const SECRET: &str = "the-secret-of-the-machine";

/// Runs the attempts of the first argument.
pub(crate) fn inside(args: &[String]) -> ExitCode {
    let rest: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
    match args.first().map(String::as_str) {
        Some("files") => files(&rest),
        Some("processes") => processes(&rest),
        Some("network") => network(&rest),
        Some("privileges") => privileges(),
        Some("environment") => environment(),
        Some("keys") => keys(&rest),
        Some("fork-bomb") => fork_bomb(),
        Some("memory-hog") => memory_hog(),
        Some("fill") => fill(&rest),
        Some("double-fork") => double_fork(),
        Some("tick") => tick(),
        other => say(&format!("BROKE OUT: no such attempt: {other:?}")),
    }
    say("all tried");
    ExitCode::SUCCESS
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).expect("the log is open");
}

fn attempt<T: std::fmt::Debug, E: std::fmt::Display>(name: &str, outcome: Result<T, E>) {
    match outcome {
        Ok(how) => say(&format!("BROKE OUT {name}: {how:?}")),
        Err(why) => say(&format!("refused {name}: {why}")),
    }
}

/// Success is a secret that was read.
fn secret_in(path: &Path) -> Result<String, String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    if text.contains(SECRET) { Ok(text) } else { Err("nothing of it is there".into()) }
}

fn files(paths: &[&str]) {
    for path in paths {
        attempt(&format!("read {path}"), secret_in(Path::new(path)));
        for way in ["/proc/1/root", "/proc/1/cwd", "/proc/self/root/..", "/agent/.."] {
            attempt(&format!("read {path} by {way}"), secret_in(Path::new(&format!("{way}{path}"))));
        }
        let up = format!("/agent/{}{path}", "../".repeat(12));
        attempt(&format!("read {path} from above"), secret_in(Path::new(&up)));
    }
    for path in ["/etc/shadow", "/root", "/sys", "/boot", "/proc/1/environ", "/proc/1/exe", "/proc/1/mem", "/proc/1/fd"]
    {
        let outcome = fs::metadata(path).and_then(|data| {
            if data.is_dir() { fs::read_dir(path).map(|_| ()) } else { fs::File::open(path).map(|_| ()) }
        });
        attempt(&format!("open {path}"), outcome);
    }
    let mut found = Vec::new();
    let mut next = vec![Path::new("/").to_path_buf()];
    while let Some(directory) = next.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            // What the directory says of an entry is what a mount covers, not what it shows.
            let path = entry.path();
            let Ok(kind) = fs::symlink_metadata(&path).map(|data| data.file_type()) else { continue };
            let skipped = ["/proc", "/usr", "/opt/raworc"].iter().any(|skipped| path.starts_with(skipped));
            if kind.is_dir() && !skipped {
                next.push(path);
            } else if kind.is_file() && !skipped && secret_in(&path).is_ok() {
                found.push(path);
            }
        }
    }
    attempt("find a secret anywhere", if found.is_empty() { Err("none") } else { Ok(found) });
    for path in ["/usr/x", "/etc/passwd", "/bin/sh", "/opt/raworc/raworc-agentd", "/x", "/run/x", "/run/raworc/link/x"]
    {
        attempt(&format!("write {path}"), fs::OpenOptions::new().append(true).create(true).open(path));
    }
}

fn processes(host: &[&str]) {
    let host: i32 = host[0].parse().expect("a number");
    let names: Vec<String> = fs::read_dir("/proc")
        .expect("a /proc")
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok())
        .map(|entry| fs::read_to_string(entry.path().join("comm")).unwrap_or_default())
        .collect();
    // Process 1, this one, and nothing else.
    attempt("see other processes", if names.len() > 2 { Ok(names) } else { Err("none") });
    // The target sleeps in a process of its own; the numbers of namespaces may coincide with low ones here.
    if host > 100 {
        attempt("signal a process of the machine", kill(Pid::from_raw(host), Signal::SIGKILL));
    }
    kill(Pid::from_raw(1), Signal::SIGKILL).ok();
    kill(Pid::from_raw(1), Signal::SIGTERM).ok();
    say("refused end process 1: this line was written after it");
}

fn network(addresses: &[&str]) {
    let [tcp, name] = addresses else { return say("BROKE OUT: no addresses") };
    let tcp: SocketAddr = tcp.parse().expect("an address");
    attempt("reach a listener of the machine", TcpStream::connect_timeout(&tcp, Duration::from_secs(2)));
    for address in ["10.0.0.1:80", "169.254.169.254:80", "1.1.1.1:53"] {
        let address = address.parse().expect("an address");
        attempt("reach the network", TcpStream::connect_timeout(&address, Duration::from_secs(2)));
    }
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name).expect("a name");
    attempt("reach an abstract socket", UnixStream::connect_addr(&address));
    let own = std::net::TcpListener::bind("127.0.0.1:0").and_then(|own| TcpStream::connect(own.local_addr()?));
    match own {
        Ok(_) => say("its own loopback works"),
        Err(error) => say(&format!("BROKE OUT of use: {error}")),
    }
}

fn privileges() {
    let none: Option<&std::ffi::CStr> = None;
    attempt("mount", rustix::mount::mount("tmpfs", "/tmp", "tmpfs", MountFlags::empty(), none));
    attempt("mount /proc", rustix::mount::mount("proc", "/tmp", "proc", MountFlags::empty(), none));
    for target in ["/", "/usr", "/proc/sys", "/run/raworc/link"] {
        attempt(&format!("remount {target}"), rustix::mount::mount_remount(target, MountFlags::BIND, ""));
        attempt(&format!("unmount {target}"), rustix::mount::unmount(target, UnmountFlags::DETACH));
    }
    let device = rustix::fs::makedev(1, 1);
    let cwd = rustix::fs::CWD;
    attempt("make a device", rustix::fs::mknodat(cwd, "/agent/mem", FileType::CharacterDevice, Mode::RUSR, device));
    for flags in [
        CloneFlags::CLONE_NEWUSER,
        CloneFlags::CLONE_NEWNS,
        CloneFlags::CLONE_NEWNET,
        CloneFlags::CLONE_NEWPID,
        CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS,
    ] {
        attempt(&format!("unshare {flags:?}"), unshare(flags));
    }
    attempt("become root", setuid(Uid::from_raw(0)));
    attempt("change the root", chroot("/tmp"));
    attempt("rename the computer", nix::unistd::sethostname("mine"));
    attempt("trace process 1", fs::File::options().write(true).open("/proc/1/mem"));
    for (path, text) in [
        ("/proc/sys/kernel/core_pattern", "|/agent/x"),
        ("/proc/sys/kernel/hostname", "mine"),
        ("/proc/sys/vm/drop_caches", "1"),
        ("/proc/sys/user/max_user_namespaces", "100"),
        ("/proc/sys/net/ipv4/ip_forward", "1"),
        ("/proc/1/oom_score_adj", "-1000"),
        ("/proc/self/uid_map", "0 0 4294967295"),
    ] {
        attempt(
            &format!("write {path}"),
            fs::File::options().write(true).open(path).and_then(|mut f| f.write_all(text.as_bytes())),
        );
    }
    for device in ["/dev/mem", "/dev/kmsg", "/dev/vda", "/dev/sda", "/dev/kvm", "/dev/fuse"] {
        attempt(&format!("open {device}"), fs::File::open(device));
    }
    let program = Command::new(format!("/agent/{SET_USER_ID}")).arg("-u").output().expect("it runs");
    let user = String::from_utf8_lossy(&program.stdout).trim().to_owned();
    let own = user == nix::unistd::geteuid().to_string();
    attempt("become another by a set-user-id program", if own { Err("it runs as who began it") } else { Ok(user) });
    let status = fs::read_to_string("/proc/self/status").expect("a status");
    let has = |line: &str| status.lines().any(|found| found == line);
    for line in ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"] {
        attempt("keep privileges", if has(line) { Err(line.to_owned()) } else { Ok(status.clone()) });
    }
}

fn environment() {
    let known = ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG"];
    let foreign: Vec<_> = std::env::vars().filter(|(key, _)| !known.contains(&key.as_str())).collect();
    attempt("inherit the server's environment", if foreign.is_empty() { Err("it is not there") } else { Ok(foreign) });
    let mut read = Vec::new();
    for entry in fs::read_dir("/proc").expect("a /proc").flatten() {
        let mut text = Vec::new();
        if let Ok(mut file) = fs::File::open(entry.path().join("environ")) {
            file.read_to_end(&mut text).ok();
        }
        if String::from_utf8_lossy(&text).contains(SECRET) {
            read.push(entry.file_name());
        }
    }
    attempt("read another's environment", if read.is_empty() { Err("none is shown") } else { Ok(read) });
}

/// The key of the machine is called `name` and has this number.
fn keys(known: &[&str]) {
    use keyutils_raw as kernel;
    let [name, number] = known else { return say("BROKE OUT: no key") };
    let number = number.parse().expect("a number");
    let session = kernel::KEY_SPEC_SESSION_KEYRING;
    attempt("find a key of the machine's session", kernel::keyctl_search(session, "user", name, None));
    attempt("ask for a key of the machine's session", kernel::request_key("user", name, None, None));
    attempt("read a key of the machine's session", kernel::keyctl_read(number, None));
    attempt("keep a key of the machine's session", kernel::keyctl_link(number, session));
    attempt("find a key of another computer", kernel::keyctl_search(session, "user", "left-by-a-computer", None));
    match kernel::add_key("user", "left-by-a-computer", b"x", session) {
        Ok(own) => match kernel::keyctl_read(own, None) {
            Ok(_) => say("its own keys work"),
            Err(error) => say(&format!("BROKE OUT of use: {error}")),
        },
        Err(error) => say(&format!("keys are forbidden here: {error}")),
    }
}

fn fork_bomb() {
    let mut children = Vec::new();
    // The limit is 32; a bomb that meets none ends here and says so.
    for _ in 0..1000 {
        match Command::new("/bin/sleep").arg("1000").spawn() {
            Ok(child) => children.push(child),
            Err(error) => {
                say(&format!("refused one more process: {error} after {}", children.len()));
                break;
            }
        }
    }
    if children.len() >= 1000 {
        say("BROKE OUT: a thousand processes");
    }
    say("bombed");
    loop {
        Command::new("/bin/sleep").arg("1000").spawn().ok();
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn memory_hog() {
    let mut held = Vec::new();
    for _ in 0..64 {
        held.push(vec![1u8; 16 << 20]);
    }
    say(&format!("BROKE OUT: it holds {} MiB", held.len() * 16));
}

fn fill(directories: &[&str]) {
    for directory in directories {
        let mut file = fs::File::create(Path::new(directory).join("full")).expect("writable");
        let chunk = vec![1u8; 1 << 20];
        let filled = (0..512).try_for_each(|_| file.write_all(&chunk));
        attempt(&format!("fill {directory}"), filled);
    }
}

fn double_fork() {
    let forks = "(setsid sh -c 'trap \"\" TERM HUP INT; while :; do sleep 0.05; done' </dev/null >/dev/null 2>&1 &)";
    for _ in 0..3 {
        Command::new("/bin/sh").args(["-c", forks]).status().expect("a shell");
    }
    say("forked");
    loop {
        std::thread::park();
    }
}

fn tick() {
    loop {
        say("tick");
        std::thread::sleep(Duration::from_millis(20));
    }
}
