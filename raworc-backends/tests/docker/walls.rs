//! What a program tries, and must not be able to do.

use std::os::unix::fs::MetadataExt;
use std::process::Stdio;

use libtest_mimic::Trial;
use raworc_core::agent::Resources;
use raworc_core::entropy::{Clock, SystemClock};
use raworc_core::quantity::{Bytes, Cpu};
use raworc_core::runtime::{ComputerSpec, Phase, Runtime};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::dockerd::{self, Dockerd, MAPPED_ROOT};
use crate::machine::{IMAGE, Image, Machine, container, host, name, spec, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_closed_computer_has_nothing_but_loopback", a_closed_computer_has_nothing_but_loopback),
        trial("an_agents_program_has_no_capabilities_and_gets_none", an_agents_program_has_no_capabilities),
        trial("root_inside_has_a_short_list_of_capabilities", root_inside_has_a_short_list_of_capabilities),
        trial(
            "root_inside_is_an_unprivileged_user_outside_where_the_engine_maps_it_and_said_to_be_root_where_not",
            root_outside,
        ),
        trial("neither_agent_nor_root_mounts_or_makes_devices_or_writes_to_the_kernel", nobody_reaches_the_kernel),
        trial("neither_agent_nor_root_writes_to_the_links_mount_or_makes_it_writable", nobody_writes_to_the_link),
        trial("root_inside_does_not_trace_another_users_process", another_users_process_is_not_traced),
        trial("the_boot_line_is_nowhere_but_on_standard_input", the_boot_line_is_nowhere_else),
        trial("limits_are_the_containers_own", limits_are_the_containers_own),
        trial("a_fork_bomb_meets_its_limit", a_fork_bomb_meets_its_limit),
        trial("what_spins_has_its_share_of_a_processor_and_no_more", a_spin_has_its_share),
        trial("a_memory_hog_ends_out_of_memory", a_memory_hog_ends_out_of_memory),
        trial("what_loses_its_parent_is_reaped", what_loses_its_parent_is_reaped),
        trial("more_processors_than_the_machine_has_are_no_limit", more_processors_than_there_are),
        trial("neighbours_with_an_open_network_do_not_reach_each_other", neighbours_do_not_reach_each_other),
        trial("a_program_owns_its_home_and_no_other_part", a_program_owns_its_home),
        trial("an_image_that_says_whose_its_home_is_is_believed", an_image_with_a_home),
    ]
}

/// Says what came of a command that must not succeed. One that is not there would be refused in every computer.
const TRY: &str = "try() { command -v \"$1\" >/dev/null || echo MISSING: \"$1\"; \
    if \"$@\" >/dev/null 2>&1; then echo BROKE OUT: \"$@\"; else echo refused; fi; }; ";

async fn told(script: &str, spec: ComputerSpec) -> String {
    let machine = Machine::new(script);
    let log = machine.run(&spec).await;
    machine.close(&[spec]).await;
    log
}

async fn a_closed_computer_has_nothing_but_loopback() {
    let script = "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '; (echo > /dev/tcp/1.1.1.1/80) 2>&1; echo end";
    let log = told(&format!("exec bash -c '{}'", script.replace('\'', "'\\''")), spec()).await;
    let interfaces: Vec<_> = log.lines().take_while(|line| !line.contains(' ') && *line != "end").collect();
    assert_eq!(interfaces, ["lo"], "{log}");
    assert!(log.contains("Network is unreachable") && log.ends_with("end\n"), "{log}");
}

async fn an_agents_program_has_no_capabilities() {
    let log = told("id -u; id -g; grep -E 'Cap|NoNewPrivs|Seccomp:' /proc/self/status; su -c id 2>&1", spec()).await;
    assert!(log.starts_with("1000\n1000\n"), "{log}");
    for (name, value) in
        [("CapEff", "0000000000000000"), ("CapPrm", "0000000000000000"), ("CapBnd", "0000000000000000")]
    {
        assert!(log.contains(&format!("{name}:\t{value}\n")), "{name}: {log}");
    }
    assert!(log.contains("NoNewPrivs:\t1\n") && log.contains("Seccomp:\t2\n"), "{log}");
    assert!(!log.contains("uid=0"), "{log}");
}

async fn root_inside_has_a_short_list_of_capabilities() {
    let root = ComputerSpec { root: true, ..spec() };
    let log = told("id -u; grep CapEff /proc/self/status; touch /usr/kept && ls /usr/kept", root).await;
    // chown, dac_override, fowner, fsetid, kill, setgid, setuid, net_bind_service.
    assert!(log.contains("0\nCapEff:\t00000000000004fb\n"), "{log}");
    assert!(log.contains("/usr/kept\n"), "root changes its own system: {log}");
}

/// Shows which user of this machine writes to a computer's volume, and what whoever makes it is told.
async fn root_outside() {
    let map = |log: &str| log.split_whitespace().nth(1).expect("a map").parse::<u32>().expect("a number");
    for root in [true, false] {
        let machine = Machine::new("cat /proc/self/uid_map");
        let spec = ComputerSpec { root, ..spec() };
        let ensured = machine.runtime.ensure(&spec).await.expect("made");
        let log = machine.run(&spec).await;
        assert_eq!(ensured.root_unmapped.is_some(), root && map(&log) == 0, "{ensured:?}: {log}");
        machine.close(&[spec]).await;
    }
    if dockerd::is_untested("an engine that maps users", dockerd::obstacle()) {
        return;
    }
    let engine = Dockerd::start_mapped().expect("an engine");
    for (root, user) in [(true, 0), (false, 1000)] {
        let machine = Machine::with("cat /proc/self/uid_map; touch /agent/mine; id -u", |mut options| {
            options.host = engine.host();
            options
        });
        let spec = ComputerSpec { root, ..spec() };
        let ensured = machine.runtime.ensure(&spec).await.expect("made");
        assert_eq!(ensured.root_unmapped, None);
        machine.start(&spec).await;
        let log = machine.said(spec.id, &format!("{user}\n")).await;
        assert_eq!(map(&log), MAPPED_ROOT, "{log}");
        let volume = format!("{MAPPED_ROOT}.{MAPPED_ROOT}/volumes/raworc-{}/_data/mine", spec.volume);
        let written = std::fs::metadata(engine.data().join(volume)).expect("written");
        assert_eq!(written.uid(), MAPPED_ROOT + user, "{log}");
        machine.runtime.remove(spec.id).await.expect("removed");
        machine.runtime.remove_volume(spec.volume).await.expect("removed");
    }
}

async fn nobody_reaches_the_kernel() {
    let script = "try mount -t tmpfs none /mnt; try mknod /tmp/disk b 8 0; try unshare -m true; try unshare -U true; \
        try sh -c ': >> /proc/sys/kernel/panic'; try sh -c ': >> /proc/sysrq-trigger'; \
        try sh -c ': >> /sys/kernel/mm/ksm/run'; try sh -c 'head -c 1 /proc/kcore | od | grep -q 7'; try ls /var/run/docker.sock; \
        try dmesg; try chroot / true; echo all tried";
    for root in [false, true] {
        let log = told(&format!("{TRY}{script}"), ComputerSpec { root, ..spec() }).await;
        assert_eq!(log, format!("{}all tried\n", "refused\n".repeat(11)), "root {root}");
    }
}

/// The mount is shown read-only, and is the machine's own directory.
async fn nobody_writes_to_the_link() {
    let link = tempfile::tempdir().expect("a directory");
    std::fs::write(link.path().join("there"), "as it was").expect("written");
    let script = "cat /run/raworc/link/there; echo; try touch /run/raworc/link/new; try rm /run/raworc/link/there; \
        try sh -c 'echo changed > /run/raworc/link/there'; try mount -o remount,rw,bind /run/raworc/link; \
        try umount /run/raworc/link; try mv /run/raworc/link /run/raworc/away; try touch /run/raworc/link/new; echo all tried";
    for root in [false, true] {
        let machine = Machine::with(&format!("{TRY}{script}"), |options| options.with_link_dir(link.path()));
        let spec = ComputerSpec { root, ..spec() };
        let log = machine.run(&spec).await;
        assert_eq!(log, format!("as it was\n{}all tried\n", "refused\n".repeat(7)), "root {root}");
        machine.close(&[spec]).await;
    }
    let names: Vec<_> =
        std::fs::read_dir(link.path()).expect("read").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names, ["there"]);
    assert_eq!(std::fs::read_to_string(link.path().join("there")).expect("read"), "as it was");
}

/// Root inside has no right to other users' processes either. What is refused for another reason than that has another word.
async fn another_users_process_is_not_traced() {
    let (attach, number) = (16, if cfg!(target_arch = "aarch64") { 117 } else { 101 });
    let script = format!(
        "exec perl -e 'my $other = fork // die; if (!$other) {{ $( = $) = 1000; $< = $> = 1000; exec qw(sleep 1000) }} \
         for (1..500) {{ last if (stat qq(/proc/$other))[4] == 1000; select undef, undef, undef, 0.01 }} \
         print syscall({number}, {attach}, $other, 0, 0) == 0 ? qq(attached\n) : qq($!\n); \
         print open(my $memory, q(<), qq(/proc/$other/mem)) ? qq(opened\n) : qq($!\n)'"
    );
    let log = told(&script, ComputerSpec { root: true, ..spec() }).await;
    assert_eq!(log, "Operation not permitted\nPermission denied\n");
}

async fn the_boot_line_is_nowhere_else() {
    let machine = Machine::new("env; cat /proc/1/cmdline | tr '\\0' ' '; echo all shown; sleep 1000");
    let made = machine.made().await;
    machine.start(&made).await;
    let docker = crate::machine::docker();
    let container = docker.inspect_container(&crate::machine::container(made.id), None).await.expect("there");
    let shown = serde_json::to_string(&container).expect("serialises");
    assert!(!shown.contains("one-time-key"), "{shown}");
    assert!(!machine.said(made.id, "all shown\n").await.contains("one-time-key"));
    machine.close(&[made]).await;
}

async fn limits_are_the_containers_own() {
    let resources = Resources {
        cpu: Some(Cpu::from_millis(500)),
        memory: Some(Bytes::new(128 << 20)),
        pids: Some(64),
        ..Resources::default()
    };
    let script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; \
        cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null; \
        cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max 2>/dev/null; \
        head -c 300m /dev/zero | tail -c 250m | wc -c; echo still here";
    let log = told(script, ComputerSpec { resources, ..spec() }).await;
    let mut lines = log.lines();
    assert_eq!(lines.next(), Some("134217728"), "{log}");
    assert_eq!(lines.next(), Some("64"), "{log}");
    assert!(lines.next().is_some_and(|quota| quota.starts_with("50000")), "{log}");
    // What the shell says of it on standard error may come before or after.
    assert!(log.contains("still here\n") && !log.contains("262144000"), "{log}");
}

async fn a_fork_bomb_meets_its_limit() {
    let resources = Resources { pids: Some(64), ..Resources::default() };
    let script = "perl -e 'my $made = 0; for (1..500) { my $p = fork; if (!defined $p) { print qq(refused: $!\n); last } \
        if (!$p) { sleep 1000; exit } $made++ } print qq($made\n)'; echo still here";
    let log = told(script, ComputerSpec { resources, ..spec() }).await;
    let mut lines = log.lines();
    assert_eq!(lines.next(), Some("refused: Resource temporarily unavailable"), "{log}");
    let made: u32 = lines.next().and_then(|line| line.parse().ok()).expect("a number");
    assert!((50..64).contains(&made) && lines.next() == Some("still here"), "{log}");
}

/// Two that spin have half a processor between them.
async fn a_spin_has_its_share() {
    let resources = Resources { cpu: Some(Cpu::from_millis(500)), ..Resources::default() };
    let script = r#"exec bash -c 'spin() { timeout 2 sh -c "while :; do :; done"; }; TIMEFORMAT="%R %U %S"
        time { spin & spin & wait; }'"#;
    let log = told(script, ComputerSpec { resources, ..spec() }).await;
    let times: Vec<f64> = log.split_whitespace().map(|time| time.parse().expect("a time")).collect();
    let [real, user, system] = times[..] else { panic!("{log}") };
    let used = (user + system) / real;
    assert!(used > 0.1 && used < 0.6, "it used {used} of a processor: {log}");
}

async fn a_memory_hog_ends_out_of_memory() {
    let resources = Resources { memory: Some(Bytes::new(64 << 20)), ..Resources::default() };
    let machine = Machine::new("exec perl -e 'my $much = q(x) x (300 << 20); print qq(it has it\n)'");
    let spec = ComputerSpec { resources, ..spec() };
    assert_eq!(machine.run(&spec).await, "");
    let seen = machine.runtime.observe(spec.id).await.expect("observed").expect("there");
    assert_eq!(seen.phase, Phase::Stopped { reason: Some("out of memory".into()) });
    assert!(seen.reached.memory, "{seen:?}");
    machine.close(&[spec]).await;
}

async fn more_processors_than_there_are() {
    let resources = Resources { cpu: Some(Cpu::from_millis(900_000)), ..Resources::default() };
    let log = told("echo it runs", ComputerSpec { resources, ..spec() }).await;
    assert_eq!(log, "it runs\n");
}

/// One serves on all of its addresses, which it reaches itself.
async fn neighbours_do_not_reach_each_other() {
    let connect = "use IO::Socket::INET; my $s = IO::Socket::INET->new(PeerAddr => $ARGV[0], PeerPort => 7000, Timeout => 3); \
        print $s ? qq(reached\\n) : qq(not reached\\n);";
    let serve = "use IO::Socket::INET; my $l = IO::Socket::INET->new(LocalPort => 7000, Listen => 5) or die; \
        while (my $c = $l->accept) { close $c }";
    let script = format!(
        "a=$(hostname -I | tr -d ' '); if [ -e /agent/other ]; then perl -e '{connect}' $(cat /agent/other); else perl -e '{serve}' & \
         until perl -e '{connect}' $a | grep -qx reached; do sleep 0.1; done; echo serves at $a; wait; fi"
    );
    let machine = Machine::new(&script);
    let open = || {
        let mut spec = spec();
        spec.network.mode = raworc_core::agent::NetworkMode::Open;
        spec
    };
    let (one, other) = (open(), open());
    for spec in [&one, &other] {
        let ensured = machine.runtime.ensure(spec).await.expect("made");
        assert!(ensured.network_unproved.is_some(), "what is not shown is said");
    }
    machine.start(&one).await;
    let log = machine.said(one.id, "serves at ").await;
    let (_, address) = log.trim_end().rsplit_once(' ').expect("an address");
    crate::machine::write(&other, "other", address).await;
    let log = machine.run(&other).await;
    assert_eq!(log, "not reached\n", "{address}");
    machine.close(&[one, other]).await;

    // On a network that keeps nobody apart the same is reached.
    let (network, server) = (name(), name());
    let by_hand = |args: &[&str]| {
        let output = std::process::Command::new("docker").args(["--host", &host()]).args(args).output();
        let output = output.expect("the docker command");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
    };
    by_hand(&["network", "create", &network]);
    by_hand(&["run", "--detach", "--init", "--name", &server, "--network", &network, IMAGE, "perl", "-e", serve]);
    let address =
        by_hand(&["inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", &server]);
    let ask =
        format!("for try in $(seq 300); do perl -e '{connect}' {address} | grep -x reached && break; sleep 0.1; done");
    let told = by_hand(&["run", "--rm", "--network", &network, IMAGE, "sh", "-c", &ask]);
    by_hand(&["rm", "--force", &server]);
    by_hand(&["network", "rm", &network]);
    assert_eq!(told, "reached");
}

/// The program itself reaps what it has begun, and nothing else.
async fn what_loses_its_parent_is_reaped() {
    let script = "exec perl -e 'for (1..20) { my $p = fork; if (!$p) { if (!fork) { select undef, undef, undef, 0.05 } exit } \
        waitpid $p, 0 } my $left; for (1..200) { $left = 0; for (glob q(/proc/[0-9]*/stat)) { open my $f, q(<), $_ or next; \
        my $s = <$f>; $left++ if $s =~ /\\(perl\\) / && $s !~ /^$$ / } last if !$left; select undef, undef, undef, 0.02 } \
        print qq(left $left\\n)'";
    let log = told(script, spec()).await;
    assert_eq!(log, "left 0\n");
}

async fn a_program_owns_its_home() {
    let script = "stat -c '%u %g %a' /agent; pwd; touch kept && echo wrote; touch /usr/x 2>&1; \
        touch /run/raworc/x && echo scratch; stat -f -c %T /run/raworc";
    let log = told(script, spec()).await;
    assert!(log.starts_with("1000 1000 700\n/agent\nwrote\n"), "{log}");
    assert!(log.contains("Permission denied") && log.ends_with("scratch\ntmpfs\n"), "{log}");
}

/// What an image has at `/agent` a new volume begins with, so that nobody has to give it to the agent.
async fn an_image_with_a_home() {
    let image = Image(format!("localhost/{}:1", name()));
    let dockerfile =
        format!("FROM {IMAGE}\nRUN mkdir -m 0700 /agent && chown 1000:1000 /agent\nLABEL raworc.home=1000\n");
    for (own, given) in [(IMAGE, true), (image.0.as_str(), false)] {
        let machine = Machine::new("stat -c '%u %g %a' /agent; touch kept && echo wrote");
        if !given {
            machine.runtime.build_image(own, &dockerfile, &|_| ()).await.expect("built");
        }
        let spec = ComputerSpec { image: Some(own.into()), ..spec() };
        // Of what is past the engine keeps little, and that is everybody's.
        let began = SystemClock.now().as_second().to_string();
        let mut events = Command::new("docker");
        events.args(["--host", &host(), "events", "--since", &began, "--format", "{{.Action}}"]);
        events.args(["--filter", &format!("container={}", container(spec.id))]);
        let mut events = events.stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("the docker command");
        let mut told = BufReader::new(events.stdout.take().expect("its output")).lines();
        assert_eq!(machine.run(&spec).await, "1000 1000 700\nwrote\n");
        let mut actions = Vec::<String>::new();
        while actions.last().is_none_or(|action| action != "die") {
            actions.push(told.next_line().await.expect("read").expect("it goes on"));
        }
        assert_eq!(actions[0], "create", "{actions:?}");
        assert_eq!(actions.iter().any(|action| action == "extract-to-dir"), given, "{own}: {actions:?}");
        machine.close(&[spec]).await;
    }
}
