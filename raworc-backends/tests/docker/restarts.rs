//! An engine that is ended and begun again, with its containers: one of the test's own.

use std::process::Stdio;
use std::time::Duration;

use futures::StreamExt;
use libtest_mimic::Trial;
use raworc_core::runtime::{ComputerSpec, Phase, Runtime, RuntimeError, RuntimeEvent};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use crate::dockerd::{self, Dockerd, IMAGE};
use crate::machine::{Machine, spec, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("what_ran_on_an_engine_that_was_ended_or_killed_is_seen_stopped_and_starts_again", an_engine_restarts),
        trial("a_volume_that_its_engine_did_not_come_to_the_end_of_making_is_made_anew", half_made_volumes),
        trial("the_end_of_an_engine_of_a_test_leaves_what_others_are_starting_alone", an_engines_end),
    ]
}

async fn an_engine_restarts() {
    if dockerd::is_untested("an engine that restarts", dockerd::obstacle()) {
        return;
    }
    let engine = Dockerd::start().expect("an engine");
    // What it says is waited for, so it writes before.
    let machine = Machine::with("cat kept 2>/dev/null; echo here > kept; echo runs; sleep 1000", |mut options| {
        options.host = engine.host();
        options
    });
    let made = machine.made().await;
    let mut before = machine.start(&made).await;
    machine.said(made.id, "runs\n").await;
    for is_killed in [false, true] {
        let mut events = machine.runtime.watch().await.expect("followed");
        // The request goes out when it is first asked.
        let (told, ()) = tokio::join!(events.by_ref().collect::<Vec<_>>(), async {
            let asked = machine.runtime.list().await;
            assert_eq!(asked.expect("listed").len(), 1);
            match is_killed {
                true => assert!(engine.kill(), "it ran"),
                false => engine.stop().expect("it ends"),
            }
        });
        drop(told);
        let observed = machine.runtime.observe(made.id).await;
        assert!(matches!(observed, Err(RuntimeError::Unavailable(_))), "nobody takes it for gone: {observed:?}");
        engine.resume().expect("it starts");
        let phase = machine.phase(made.id).await;
        assert!(matches!(phase, Some(Phase::Stopped { .. })), "killed: {is_killed}: {phase:?}");
        machine.runtime.stop(made.id, &before, Duration::ZERO).await.expect("nothing to stop");
        let mut events = machine.runtime.watch().await.expect("followed again");
        machine.runtime.ensure(&made).await.expect("still there");
        let start = machine.start(&made).await;
        assert_ne!(start, before);
        assert_eq!(events.next().await, Some(RuntimeEvent::Changed(made.id)));
        assert_eq!(machine.said(made.id, "here\nruns\n").await, "here\nruns\n", "its files are there");
        before = start;
    }
    machine.runtime.remove(made.id).await.expect("removed");
    machine.runtime.remove_volume(made.volume).await.expect("removed");
    assert_eq!(machine.runtime.list().await.expect("listed"), vec![]);
}

async fn half_made_volumes() {
    if dockerd::is_untested("an engine that is killed while it makes a volume", dockerd::obstacle()) {
        return;
    }
    let engine = Dockerd::start().expect("an engine");
    let machine = Machine::with("ls; echo runs; sleep 1000", |mut options| {
        options.host = engine.host();
        options
    });
    let [used, looked_at, removed, filled] = [(); 4].map(|()| spec());
    let image = "localhost/raworc-test:home".to_owned();
    let home = "RUN mkdir /agent && touch /agent/of-the-image && chown -R 1000:1000 /agent\nLABEL raworc.home=1000";
    machine.runtime.build_image(&image, &format!("FROM {IMAGE}\n{home}\n"), &|_| ()).await.expect("built");
    let used = ComputerSpec { image: Some(image), ..used };
    engine.stop().expect("it ends");
    let name = |spec: &ComputerSpec| format!("raworc-{}", spec.volume);
    let directory = |spec: &ComputerSpec| engine.data().join("volumes").join(name(spec)).join("_data");
    for spec in [&used, &looked_at, &removed, &filled] {
        // An engine makes the directory first, and then it writes down whose it is.
        std::fs::create_dir_all(directory(spec)).expect("made");
    }
    std::fs::write(directory(&filled).join("theirs"), "").expect("written");
    engine.resume().expect("it starts");
    let listed = || engine.docker(["volume", "ls", "--format", "{{.Name}}"]).expect("listed");
    assert!([&used, &looked_at, &removed, &filled].iter().all(|spec| listed().contains(&name(spec))), "{}", listed());

    machine.runtime.ensure(&used).await.expect("made anew");
    machine.start(&used).await;
    assert_eq!(machine.said(used.id, "runs\n").await, "of-the-image\nruns\n", "it begins as any new one does");
    let label = format!("raworc.installation={}", machine.installation);
    assert!(engine.labelled(&label).expect("listed").contains(&format!("volume {}", name(&used))));
    assert!(!machine.runtime.has_volume(looked_at.volume).await.expect("looked at"), "there is none yet");
    assert!(listed().contains(&name(&looked_at)), "who asks takes nothing away");
    machine.runtime.remove_volume(removed.volume).await.expect("removed");
    assert!(!listed().contains(&name(&removed)), "{}", listed());

    let made = machine.runtime.ensure(&filled).await;
    assert!(matches!(&made, Err(RuntimeError::Refused { reason, .. }) if reason.contains(&name(&filled))), "{made:?}");
    machine.runtime.remove_volume(filled.volume).await.expect("nothing of ours");
    assert!(directory(&filled).join("theirs").exists(), "it was left alone");

    machine.runtime.remove(used.id).await.expect("removed");
    machine.runtime.remove_volume(used.volume).await.expect("removed");
    let left = engine.labelled(&label).expect("listed");
    assert!(left.is_empty(), "{left:?}");
}

async fn an_engines_end() {
    if dockerd::is_untested("what the end of an engine takes with it", dockerd::obstacle()) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("data");
    std::fs::create_dir(&data).expect("made");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&data).status().await.expect("run");
    assert!(mounted.success());
    // As what an engine starts is at first: with a copy of the machine's mounts.
    let mut other = Command::new("unshare");
    let other = other.args(["--mount", "sh", "-c", "echo begun; read -r line; echo $line"]);
    let mut other = other.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("begun");
    let mut says = BufReader::new(other.stdout.take().expect("its output")).lines();
    assert_eq!(says.next_line().await.expect("read").as_deref(), Some("begun"));
    dockerd::sweep(directory.path());
    // It may have been killed.
    let _ = other.stdin.take().expect("its input").write_all(b"goes on\n").await;
    assert_eq!(says.next_line().await.expect("read").as_deref(), Some("goes on"));
    let mounts = tokio::fs::read_to_string("/proc/self/mountinfo").await.expect("read");
    assert!(!mounts.contains(&*data.to_string_lossy()), "its own mount is gone");
}
