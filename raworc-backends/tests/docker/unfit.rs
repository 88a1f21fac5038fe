//! Programs that an image cannot run.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Trial;
use raworc_backends::docker::PROGRAM_PATH;
use raworc_core::runtime::Phase;

use crate::machine::{Image, Machine, spec, trial};

/// A program of this machine that is linked dynamically, against the C library alone.
const DYNAMIC: &str = "/bin/true";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("an_image_without_a_c_library_cannot_run_a_dynamic_program_and_says_so", an_image_without_a_c_library),
        trial(
            "an_image_with_an_older_c_library_cannot_run_a_newer_program_and_says_so",
            an_image_with_an_older_c_library,
        ),
        trial("a_file_that_is_no_program_is_told_as_that", a_file_that_is_no_program),
        trial("a_program_that_ends_as_one_that_cannot_begin_has_ended", a_program_that_ends),
        trial(
            "an_images_own_user_entry_point_volumes_and_directory_change_nothing_and_its_path_stays",
            an_images_own_wishes,
        ),
    ]
}

/// How a start of this program ends in a computer of this image.
async fn ends(image: &Path, program: &str) -> (Option<Phase>, String) {
    let image = Image::of(image);
    let machine = Machine::with("", |mut options| {
        options.default_image = image.0.clone();
        options.with_program([PROGRAM_PATH]).with_program_file(program).with_program_made_by("link it statically")
    });
    let spec = spec();
    let log = machine.run(&spec).await;
    let phase = machine.phase(spec.id).await;
    machine.close(&[spec]).await;
    (phase, log)
}

#[track_caller]
fn assert_unfit((phase, log): (Option<Phase>, String), says: &str) {
    let Some(Phase::Unfit { reason }) = phase else { panic!("{phase:?}: {log}") };
    assert!(reason.ends_with(says), "{reason}: {log}");
}

async fn an_image_without_a_c_library() {
    let bare = tempfile::tempdir().expect("a directory");
    assert_unfit(
        ends(bare.path(), DYNAMIC).await,
        "has none of its kind, or is made for another processor: link it statically",
    );
}

/// The loader that programs of this machine ask for.
fn loader() -> PathBuf {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("a map");
    let found = maps.lines().filter_map(|line| Some(Path::new(&line[line.find('/')?..])));
    let mut found =
        found.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ld-linux")));
    found.next().expect("a loader").to_owned()
}

async fn an_image_with_an_older_c_library() {
    let old = tempfile::tempdir().expect("a directory");
    let lib = |name: &str| {
        let path = old.path().join("lib64").join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        path
    };
    let loader = loader();
    let name = loader.file_name().expect("a name").to_string_lossy().into_owned();
    std::fs::copy(&loader, lib(&name)).expect("copied");
    std::os::unix::fs::symlink("lib64", old.path().join("lib")).expect("linked");
    assert_unfit(
        ends(old.path(), DYNAMIC).await,
        "the program needs the library libc.so.6, which the image does not have: link it statically",
    );
    // A C library in which nothing is new.
    std::fs::write(lib("map"), "GLIBC_2.0 { global: *; };\n").expect("written");
    std::fs::write(lib("empty.c"), "int nothing;\n").expect("written");
    let made = Command::new("cc")
        .args([
            "-shared",
            "-nostdlib",
            "-Wl,-soname,libc.so.6",
            "-Wl,--version-script=map",
            "-o",
            "libc.so.6",
            "empty.c",
        ])
        .current_dir(old.path().join("lib64"))
        .status();
    assert!(made.expect("a compiler").success());
    assert_unfit(
        ends(old.path(), DYNAMIC).await,
        "the program needs a newer C library than the image has: link it statically",
    );
}

async fn a_file_that_is_no_program() {
    let (bare, shown) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let file = shown.path().join("program");
    let path = file.to_str().expect("UTF-8");
    std::fs::write(&file, "").expect("written");
    assert_unfit(ends(bare.path(), path).await, "the program cannot be executed: permission denied");
    // As one of another kind of processor.
    std::fs::write(&file, b"\x7fELF\x02\x01\x01").expect("written");
    std::fs::set_permissions(&file, Permissions::from_mode(0o755)).expect("set");
    assert_unfit(ends(bare.path(), path).await, "or is made for another processor: link it statically");
}

async fn a_program_that_ends() {
    for code in [1, 126, 127] {
        let machine = Machine::new(&format!("echo /bin/sh: not found; exit {code}"));
        let spec = spec();
        machine.run(&spec).await;
        let ended = Phase::Stopped { reason: Some(format!("exit code {code}")) };
        assert_eq!(machine.phase(spec.id).await, Some(ended));
        machine.close(&[spec]).await;
    }
}

/// What an image says of itself is about its own program.
async fn an_images_own_wishes() {
    let wishes = "FROM debian:bookworm-slim\nUSER daemon\nENTRYPOINT [\"/bin/false\"]\nCMD [\"never\"]\nVOLUME /data\n\
        VOLUME /agent\nENV PATH=/own/bin:/usr/bin:/bin\nWORKDIR /data\n";
    let name = format!("localhost/{}:1", crate::machine::name());
    let script = "id -u; pwd; echo $PATH; echo kept > kept; ls /agent; ls -d /data";
    let machine = Machine::with(script, |mut options| {
        options.default_image.clone_from(&name);
        options
    });
    machine.runtime.build_image(&name, wishes, &|_| ()).await.expect("built");
    let image = Image(name);
    let spec = spec();
    let log = machine.run(&spec).await;
    assert_eq!(log, "1000\n/agent\n/own/bin:/usr/bin:/bin\nkept\n/data\n");
    let docker = crate::machine::docker();
    let made = docker.inspect_container(&crate::machine::container(spec.id), None).await.expect("there");
    let volumes: Vec<_> = made.mounts.into_iter().flatten().filter_map(|mount| mount.name).collect();
    assert_eq!(volumes.len(), 2, "the agent's and one that the image asks for: {volumes:?}");
    machine.close(&[spec]).await;
    for volume in volumes {
        assert!(docker.inspect_volume(&volume).await.is_err(), "{volume} is left behind");
    }
    drop(image);
}
