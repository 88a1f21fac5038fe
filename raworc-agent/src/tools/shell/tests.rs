use super::*;

struct Fixture {
    home: tempfile::TempDir,
    shell: Shell,
    env: BTreeMap<String, String>,
    cancel: CancellationToken,
}

impl Fixture {
    fn new() -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let shell = Shell::new(home.path());
        Self { home, shell, env: BTreeMap::new(), cancel: CancellationToken::new() }
    }

    async fn run_within(&mut self, command: &str, limit: Duration) -> Ran {
        self.shell.run(command, &self.env, limit, &self.cancel).await.expect("a shell")
    }

    async fn run(&mut self, command: &str) -> Ran {
        self.run_within(command, Duration::from_secs(60)).await
    }

    /// Cancels as soon as the command touches this file, which is a pipe; tells when that was.
    fn cancel_once(&self, file: &str) -> tokio::task::JoinHandle<Instant> {
        let (cancel, marker) = (self.cancel.clone(), self.home.path().join(file));
        rustix::fs::mkfifoat(rustix::fs::CWD, &marker, rustix::fs::Mode::RWXU).expect("a pipe");
        let touched = tokio::net::unix::pipe::OpenOptions::new().open_receiver(&marker).expect("a pipe");
        tokio::spawn(async move {
            touched.readable().await.expect("touched");
            cancel.cancel();
            Instant::now()
        })
    }

    async fn output(&mut self, command: &str) -> String {
        self.run(command).await.output
    }
}

#[tokio::test]
async fn output_and_exit_code_of_a_command_come_back() {
    let mut f = Fixture::new();
    let ran = f.run("echo out; echo err >&2; false").await;
    assert_eq!((ran.output.as_str(), ran.exit), ("out\nerr\n", Exit::Code(1)));
    let ran = f.run("(exit 42)").await;
    assert_eq!((ran.exit, ran.remark), (Exit::Code(42), None));
}

#[tokio::test]
async fn directory_variables_and_functions_stay_between_calls() {
    let mut f = Fixture::new();
    f.run("mkdir d; cd d; X=1; export Y=2; f() { echo \"f $X\"; }").await;
    assert_eq!(f.output("pwd; f; sh -c 'echo $Y'").await, format!("{}/d\nf 1\n2\n", f.home.path().display()));
    assert_eq!(f.shell.cwd(), f.home.path().join("d"));
}

#[tokio::test]
async fn a_command_cannot_read_what_is_meant_for_the_shell() {
    let mut f = Fixture::new();
    assert_eq!(f.output("cat; read x; echo \"[$x]\"").await, "[]\n");
}

#[tokio::test]
async fn a_command_runs_on_a_terminal_that_is_wide_enough_and_paints_nothing() {
    let mut f = Fixture::new();
    assert_eq!(f.output("test -t 0 && test -t 1 && test -t 2 && echo yes").await, "yes\n");
    assert!(f.output("tty").await.starts_with("/dev/pts/"));
    assert_eq!(f.output("stty size; echo $TERM $NO_COLOR").await, "50 200\ndumb 1\n");
    assert_eq!(f.output("mkdir d; ls --color=auto; echo d | grep --color=auto d").await, "d\nd\n");
    f.env.insert("TERM".into(), "xterm".into());
    assert_eq!(f.output("echo $TERM").await, "xterm\n");
}

#[tokio::test]
async fn what_waits_for_somebody_to_type_ends_by_its_time_at_the_latest() {
    let mut f = Fixture::new();
    // A program that asks the terminal for a key takes its input where others find none.
    let asks = "stty -icanon min 1; echo asking; head -c 1; echo answered";
    // The shell's own start is none of the command's time.
    f.run("true").await;
    let ran = f.run_within(asks, Duration::from_secs(3)).await;
    assert_eq!((ran.output.as_str(), ran.exit), ("asking\n", Exit::TimedOut));
    assert_eq!(f.output("cat; echo over").await, "over\n", "the next command finds no input again");
    let ran = f.run("cat </dev/tty").await;
    assert!(matches!(ran.exit, Exit::Code(code) if code != 0), "there is no controlling terminal: {ran:?}");
}

#[tokio::test]
async fn what_a_command_makes_of_its_terminal_hurts_neither_marks_nor_the_next_command() {
    let mut f = Fixture::new();
    f.run("export A='1\n2'; mkdir d; cd d; stty sane; stty echo").await;
    assert_eq!(f.shell.cwd(), f.home.path().join("d"));
    assert_eq!(f.output("echo \"$A\"; cat").await, "1\n2\n");
    assert_eq!(f.run("stty sane; exit 3").await.exit, Exit::Code(3));
    assert_eq!(f.output("basename $PWD; echo \"$A\"").await, "d\n1\n2\n");
}

#[tokio::test]
async fn an_interrupted_command_may_clear_up() {
    let mut f = Fixture::new();
    // Longer than a busy machine needs for that.
    f.shell.grace = Duration::from_secs(60);
    // What runs these tests in the background may have made them ignore it, and with them what they start.
    let _interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt()).expect("a signal");
    let cancelled = f.cancel_once("begun");
    let clears = "sh -c 'trap \"echo cleared; exit 0\" INT; touch begun; while :; do sleep 0.01; done'";
    let ran = f.run(clears).await;
    assert_eq!((ran.output.as_str(), ran.exit), ("cleared\n", Exit::Cancelled));
    cancelled.await.expect("cancelled");
}

#[tokio::test]
async fn what_follows_an_interrupted_program_is_not_begun() {
    for _ in 0..20 {
        let mut f = Fixture::new();
        let cancelled = f.cancel_once("begun");
        let ran = f.run("sh -c 'bash -c \"touch begun; sleep 60; touch inner\"; touch middle'; touch outer").await;
        assert_eq!(ran.exit, Exit::Cancelled);
        cancelled.await.expect("cancelled");
        let left: Vec<_> =
            ["inner", "middle", "outer"].into_iter().filter(|name| f.home.path().join(name).exists()).collect();
        assert!(left.is_empty(), "went on with {left:?}");
    }
}

#[tokio::test]
async fn what_a_command_writes_is_never_taken_for_its_end() {
    let mut f = Fixture::new();
    assert_eq!(f.output("printf '\\036abc 0\\036'; echo here").await, "\u{1e}abc 0\u{1e}here\n");
    assert!(f.output("set -x; echo traced").await.ends_with("+ echo traced\ntraced\n"));
}

#[tokio::test]
async fn broken_syntax_is_an_error_of_the_command_alone() {
    let mut f = Fixture::new();
    let ran = f.run("if then 'quote").await;
    assert!(matches!(ran.exit, Exit::Code(code) if code != 0), "{ran:?}");
    assert_eq!(f.output("echo 'it'\"'\"'s' fine").await, "it's fine\n");
}

#[tokio::test]
async fn a_redirected_shell_prints_the_next_command_again() {
    let mut f = Fixture::new();
    f.run("exec >/dev/null 2>&1").await;
    assert_eq!(f.output("echo seen").await, "seen\n");
}

#[tokio::test]
async fn a_shell_that_was_ended_begins_anew_where_it_was() {
    let mut f = Fixture::new();
    f.run("mkdir d; cd d; export Y=\"a'b\"").await;
    let ran = f.run("echo bye; exit 3").await;
    assert_eq!((ran.output.as_str(), ran.exit), ("bye\n", Exit::Code(3)));
    assert!(ran.remark.expect("a remark").contains("ended the shell"));
    assert_eq!(f.output("basename $PWD; echo $Y").await, "d\na'b\n");
}

#[tokio::test]
async fn a_command_over_its_time_is_ended_with_all_its_children() {
    let mut f = Fixture::new();
    f.run("true").await;
    let before = Instant::now();
    let ran = f
        .run_within("echo begun; (sleep 1000 & echo $! >pid; wait) ; timeout 900 sleep 800", Duration::from_secs(3))
        .await;
    assert_eq!((ran.output.as_str(), ran.exit), ("begun\n", Exit::TimedOut));
    assert!(before.elapsed() < Duration::from_secs(30), "{:?}", before.elapsed());
    let pid: i32 = f.output("cat pid").await.trim().parse().expect("a pid");
    assert!(!processes::all().iter().any(|p| p.pid == pid && p.state != 'Z'), "sleep lives on");
}

#[tokio::test]
async fn a_cancelled_command_ends_within_seconds_and_earlier_jobs_live_on() {
    let mut f = Fixture::new();
    let pid: i32 = f.output("sleep 1000 & echo $!").await.trim().parse().expect("a pid");
    let cancelled = f.cancel_once("begun");
    let ran = f.run("touch begun; sleep 1000; touch later; while true; do sleep 0.01; done").await;
    assert_eq!(ran.exit, Exit::Cancelled);
    let took = cancelled.await.expect("cancelled").elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(!f.home.path().join("later").exists(), "what came after the cancelled command was run");
    assert!(processes::all().iter().any(|p| p.pid == pid), "the earlier job was ended too");
    f.cancel = CancellationToken::new();
    assert_eq!(f.output(&format!("kill {pid}; echo gone")).await, "gone\n");
}

#[tokio::test]
async fn a_background_job_does_not_hold_its_command_and_its_output_comes_later() {
    let mut f = Fixture::new();
    let ran = f.run("(while [ ! -e go ]; do sleep 0.01; done; echo late) & echo now").await;
    assert_eq!(ran.output, "now\n");
    assert_eq!(f.output("touch go; wait").await, "late\n");
}

#[tokio::test]
async fn very_much_output_is_cut_in_a_bounded_space() {
    let mut f = Fixture::new();
    let ran = f.run("echo first; head -c 1000000000 /dev/zero | tr '\\0' x; echo; echo last").await;
    assert!(ran.output.len() < OUTPUT_LIMIT + 100, "{}", ran.output.len());
    assert!(ran.output.starts_with("first\n") && ran.output.ends_with("\nlast\n"));
    assert!(ran.output.contains("bytes are cut here"));
}

#[tokio::test]
async fn a_changed_environment_reaches_the_next_command() {
    let mut f = Fixture::new();
    f.run("export KEEP=1").await;
    f.env.insert("TOKEN".into(), "new".into());
    let ran = f.run("echo $TOKEN $KEEP").await;
    assert_eq!(ran.output, "new 1\n");
    assert!(ran.remark.expect("a remark").contains("environment has changed"));
}

#[tokio::test]
async fn a_command_that_forks_without_end_is_ended_whole() {
    let mut f = Fixture::new();
    let leader: i32 = f.output("echo $$").await.trim().parse().expect("a pid");
    let ran = f.run_within("while :; do (sleep 1000 &); done", Duration::from_millis(300)).await;
    assert_eq!(ran.exit, Exit::TimedOut);
    let left = processes::family(leader).into_iter().filter(|p| p.state != 'Z').count();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_shell_that_was_killed_between_two_commands_is_replaced_before_the_next() {
    let mut f = Fixture::new();
    let pid: i32 = f.output("echo $$").await.trim().parse().expect("a pid");
    processes::kill_group(pid);
    while processes::all().iter().any(|p| p.pid == pid && p.state != 'Z') {
        tokio::task::yield_now().await;
    }
    let ran = f.run("echo alive").await;
    assert_eq!((ran.output.as_str(), ran.exit), ("alive\n", Exit::Code(0)));
    assert!(ran.remark.expect("a remark").contains("has been ended since"));
}

/// Whether this is an ordinary user. Rights are nothing to root, which has one run the test of this name instead.
fn is_ordinary(test: &str) -> bool {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 65534;
    if !rustix::process::geteuid().is_root() {
        return true;
    }
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).expect("opened");
    // The binary may lie where others cannot go. Whatever another thread begins meanwhile would hold a copy that this
    // process makes open for writing, and nobody runs such a file.
    let binary = directory.path().join("tests");
    let mut copy = std::process::Command::new("cp");
    copy.arg("-p").arg(std::env::current_exe().expect("this binary")).arg(&binary);
    assert!(copy.status().expect("cp runs").success(), "{} is copied", binary.display());
    let mut command = std::process::Command::new(&binary);
    let output = command.args(["--exact", test]).current_dir("/").uid(NOBODY).gid(NOBODY).output().expect("started");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
    false
}

#[tokio::test]
async fn a_directory_that_cannot_be_entered_any_more_is_left_for_the_home() {
    if !is_ordinary("tools::shell::tests::a_directory_that_cannot_be_entered_any_more_is_left_for_the_home") {
        return;
    }
    let mut f = Fixture::new();
    for (shut, why) in [("chmod 0 .", "Permission denied"), ("rmdir $PWD", "No such file")] {
        f.run("mkdir d; cd d; export KEEP=1").await;
        assert_eq!(f.run(&format!("{shut}; exit 3")).await.exit, Exit::Code(3));
        let ran = f.run("pwd; echo $KEEP").await;
        assert_eq!(ran.output, format!("{}\n1\n", f.home.path().display()));
        let remark = ran.remark.expect("a remark");
        assert!(remark.contains("/d") && remark.contains(why) && remark.contains("begins in"), "{remark}");
        assert_eq!(f.run("rm -rf d").await.remark, None);
    }
}
