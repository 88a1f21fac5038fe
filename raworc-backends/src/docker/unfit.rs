//! A program that could not even be begun in a container, told apart from one that ended.
//!
//! The engine counts such a container as started: its first process is `docker-init`, which executes the program. What comes
//! of that is an exit code and the first words of the log: those of `docker-init` itself, or of the image's dynamic loader.

use bollard::models::ContainerState;

use super::config::DockerOptions;

/// Whether a program may have ended so because it could not begin. A loader answers 127, and 1 where it misses a version.
pub(super) fn may_be(state: Option<&ContainerState>) -> bool {
    matches!(state.and_then(|state| state.exit_code), Some(1 | 126 | 127))
}

/// What stood in the way of the program, by the first words of a log, with the way out.
pub(super) fn why(log: &str, options: &DockerOptions) -> Option<String> {
    let program = options.program.first()?;
    let line = log.lines().next()?;
    let init = || line.strip_prefix("[FATAL tini (")?.split_once(&format!("exec {program} failed: ")).map(of_init);
    let loader = || line.strip_prefix(&format!("{program}: ")).and_then(of_loader);
    let image = |found: Found| match found {
        Found::InTheImage(what) => {
            let way_out = options.program_is_made.as_deref();
            format!(
                "{what}: {}",
                way_out.unwrap_or("give computers one that is linked statically, or name another image")
            )
        }
        Found::InTheProgram(what) => what,
    };
    init().or_else(loader).map(image)
}

enum Found {
    /// Another program would run in the same image.
    InTheImage(String),
    /// It would run in none.
    InTheProgram(String),
}

fn of_init((_, cause): (&str, &str)) -> Found {
    match cause {
        // It is there, for it is shown inside: it is its loader that is not. One of another processor is said to be the same
        // where there is no shell, to which what cannot be executed is given.
        "No such file or directory" => Found::InTheImage(
            "the program needs a C library of which the image has none of its kind, or is made for another processor"
                .into(),
        ),
        "Exec format error" => Found::InTheProgram("the program is made for another kind of processor".into()),
        cause => Found::InTheProgram(format!("the program cannot be executed: {}", cause.to_lowercase())),
    }
}

fn of_loader(words: &str) -> Option<Found> {
    const MISSING: &str = "error while loading shared libraries: ";
    if words.contains(": version `") && words.contains("' not found") {
        return Some(Found::InTheImage("the program needs a newer C library than the image has".into()));
    }
    if words.contains("Error relocating ") {
        return Some(Found::InTheImage("the program needs another C library than the image has".into()));
    }
    let (library, _) = words.strip_prefix(MISSING)?.split_once(':')?;
    Some(Found::InTheImage(format!("the program needs the library {library}, which the image does not have")))
}

#[cfg(test)]
mod tests {
    use raworc_core::ids::RuntimeName;

    use super::*;

    fn told(log: &str) -> Option<String> {
        let options = DockerOptions::new(RuntimeName::new("docker").expect("a name"), "i", "unix:///s", "image");
        why(log, &options.with_program(["/opt/p", "agentd"]).with_program_made_by("build it with make"))
    }

    #[test]
    fn what_init_and_loaders_say_is_told_with_the_way_out() {
        for (log, says) in [
            (
                "[FATAL tini (7)] exec /opt/p failed: No such file or directory\n",
                "is made for another processor: build it with make",
            ),
            (
                "[FATAL tini (7)] exec /opt/p failed: Exec format error\n",
                "the program is made for another kind of processor",
            ),
            (
                "[FATAL tini (8)] exec /opt/p failed: Permission denied\n",
                "the program cannot be executed: permission denied",
            ),
            (
                "/opt/p: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.38' not found (required by /opt/p)\n",
                "a newer C library than the image has: build it with make",
            ),
            (
                "/opt/p: error while loading shared libraries: libgcc_s.so.1: cannot open shared object file: No such file\n",
                "needs the library libgcc_s.so.1, which the image does not have: build it with make",
            ),
        ] {
            let told = told(log).unwrap_or_default();
            assert!(told.ends_with(says), "{log}: {told}");
        }
    }

    #[test]
    fn a_program_that_had_begun_is_not_taken_for_one_that_could_not() {
        for log in [
            "",
            "2026-01-01T00:00:00Z  INFO starting\n[FATAL tini (7)] exec /opt/p failed: No such file or directory\n",
            "2026-01-01T00:00:00Z  INFO starting\n/opt/p: libc.so.6: version `GLIBC_2.38' not found\n",
            "[FATAL tini (7)] exec /bin/other failed: No such file or directory\n",
            "/bin/other: error while loading shared libraries: a: cannot open\n",
            "/opt/p: it said this itself\n",
        ] {
            assert_eq!(told(log), None, "{log}");
        }
    }
}
