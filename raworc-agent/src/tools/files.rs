//! The files tool: view, create, replace, search.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use super::OUTPUT_LIMIT;
use crate::home::resolve_in;
use crate::truncate::{Collector, beginning, cut};
use crate::whole;

/// Bytes of a file that can be edited.
const EDIT_LIMIT: u64 = 8 << 20;

/// Lines that one search finds.
const MATCHES_LIMIT: usize = 200;

/// Files that one search reads.
const SEARCHED_LIMIT: usize = 20_000;

/// What to do with which file.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) enum FileAction {
    /// Show it.
    View { path: String, from: Option<u64>, to: Option<u64> },
    /// Write it whole.
    Create { path: String, text: String },
    /// Change the one place where `old` stands.
    Replace { path: String, old: String, new: String },
    /// Find lines in what lies below.
    Search { path: String, text: String },
}

impl FileAction {
    /// Does it, in `directory`. Errors are words for the model.
    pub(super) async fn run(
        self,
        home: PathBuf,
        directory: PathBuf,
        cancel: &CancellationToken,
    ) -> Result<String, String> {
        let stop = cancel.clone();
        let work = tokio::task::spawn_blocking(move || self.run_here(&home, &directory, &stop));
        tokio::select! {
            done = work => done.map_err(|error| error.to_string())?,
            () = cancel.cancelled() => Err("cancelled".into()),
        }
    }

    fn run_here(self, home: &Path, directory: &Path, stop: &CancellationToken) -> Result<String, String> {
        let at = |path: String| resolve_in(home, directory, &path);
        match self {
            Self::View { path, from, to } => view(&at(path), from.unwrap_or(1), to.unwrap_or(u64::MAX)),
            Self::Create { path, text } => create(&at(path), &text),
            Self::Replace { path, old, new } => replace(&at(path), &old, &new),
            Self::Search { path, text } => search(&at(path), &text, stop),
        }
    }
}

fn named(path: &Path) -> impl Fn(std::io::Error) -> String {
    move |error| format!("{}: {error}", path.display())
}

/// Opens only what cannot block: no pipes, no devices.
fn open(path: &Path) -> Result<File, String> {
    let metadata = fs::metadata(path).map_err(named(path))?;
    if !metadata.is_file() {
        return Err(format!("{} is no ordinary file", path.display()));
    }
    File::open(path).map_err(named(path))
}

fn view(path: &Path, from: u64, to: u64) -> Result<String, String> {
    if fs::metadata(path).map_err(named(path))?.is_dir() {
        return list(path);
    }
    let mut reader = BufReader::new(open(path)?);
    let mut shown = Collector::new(OUTPUT_LIMIT);
    let mut line = Vec::new();
    let mut number = 0;
    while number < to {
        line.clear();
        // A line without end is read in pieces, each shown as a line of its own.
        let read = reader.by_ref().take(OUTPUT_LIMIT as u64).read_until(b'\n', &mut line).map_err(named(path))?;
        if read == 0 {
            break;
        }
        number += 1;
        if number == 1 && line.contains(&0) {
            return Err(format!("{} is no text file", path.display()));
        }
        if number >= from {
            shown.push(format!("{number:6}\t").as_bytes());
            shown.push(&line);
        }
    }
    if shown.is_empty() && from > 1 {
        return Err(format!("{} has only {number} lines", path.display()));
    }
    Ok(if shown.is_empty() { "(the file is empty)".into() } else { shown.into_text() })
}

fn list(path: &Path) -> Result<String, String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(named(path))? {
        let entry = entry.map_err(named(path))?;
        let mut name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            name.push('/');
        }
        names.push(name);
    }
    names.sort();
    Ok(if names.is_empty() { "(the directory is empty)".into() } else { cut(&names.join("\n"), OUTPUT_LIMIT) })
}

fn create(path: &Path, text: &str) -> Result<String, String> {
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(format!("{} is there and is no ordinary file", path.display()));
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(named(parent))?;
    }
    whole::write(path, text.as_bytes()).map_err(named(path))?;
    Ok(format!("{} is written, {} bytes", path.display(), text.len()))
}

fn replace(path: &Path, old: &str, new: &str) -> Result<String, String> {
    if old.is_empty() {
        return Err("`old` is empty; to write a whole file use create".into());
    }
    let file = open(path)?;
    if file.metadata().map_err(named(path))?.len() > EDIT_LIMIT {
        return Err(format!("{} has more than {EDIT_LIMIT} bytes; change it with a command", path.display()));
    }
    let text = fs::read_to_string(path).map_err(named(path))?;
    // Overlapping places count too: which one was meant would be a guess.
    let places = text.char_indices().filter(|&(at, _)| text[at..].starts_with(old)).take(100).count();
    match places {
        1 => {
            whole::write(path, text.replacen(old, new, 1).as_bytes()).map_err(named(path))?;
            Ok(format!("{} is changed", path.display()))
        }
        0 => Err(format!("`old` does not stand in {}; view it and copy the text exactly", path.display())),
        n => Err(format!("`old` stands {n} times in {}; give more of the lines around it", path.display())),
    }
}

fn search(root: &Path, text: &str, stop: &CancellationToken) -> Result<String, String> {
    if text.is_empty() {
        return Err("`text` is empty".into());
    }
    fs::metadata(root).map_err(named(root))?;
    let mut found = Vec::new();
    let mut todo = vec![root.to_owned()];
    let mut searched = 0;
    while let Some(path) = todo.pop() {
        if stop.is_cancelled() {
            return Err("cancelled".into());
        }
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.is_dir() || path == root && path.is_dir() {
            let Ok(entries) = fs::read_dir(&path) else { continue };
            let mut entries: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
            entries.retain(|entry| entry.file_name().is_none_or(|name| name != ".git"));
            entries.sort();
            todo.extend(entries.into_iter().rev());
        } else if metadata.is_file() || path == root {
            searched += 1;
            search_file(&path, text, stop, &mut found);
        }
        if found.len() >= MATCHES_LIMIT || searched >= SEARCHED_LIMIT {
            found.push("[there may be more; search a smaller directory or for a longer text]".into());
            break;
        }
    }
    Ok(if found.is_empty() { format!("{text:?} was not found") } else { cut(&found.join("\n"), OUTPUT_LIMIT) })
}

fn search_file(path: &Path, text: &str, stop: &CancellationToken, found: &mut Vec<String>) {
    let Ok(file) = open(path) else { return };
    let mut reader = BufReader::new(file);
    let finder = memchr::memmem::Finder::new(text.as_bytes());
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let read = reader.by_ref().take(1 << 20).read_until(b'\n', &mut line);
        if !read.is_ok_and(|read| read > 0) || stop.is_cancelled() || found.len() >= MATCHES_LIMIT {
            return;
        }
        if number == 1 && line.contains(&0) {
            return;
        }
        if finder.find(&line).is_some() {
            let shown = String::from_utf8_lossy(&line);
            found.push(format!("{}:{number}: {}", path.display(), beginning(shown.trim(), 300)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(directory: &Path, action: FileAction) -> Result<String, String> {
        action.run(directory.to_owned(), directory.to_owned(), &CancellationToken::new()).await
    }

    fn create(path: &str, text: &str) -> FileAction {
        FileAction::Create { path: path.into(), text: text.into() }
    }

    fn view(path: &str, from: Option<u64>, to: Option<u64>) -> FileAction {
        FileAction::View { path: path.into(), from, to }
    }

    #[tokio::test]
    async fn a_file_is_created_viewed_in_part_and_listed() {
        let home = tempfile::tempdir().expect("a directory");
        run(home.path(), create("a/b.txt", "one\ntwo\nthree\n")).await.expect("created");
        assert_eq!(run(home.path(), view("a/b.txt", Some(2), Some(2))).await, Ok("     2\ttwo\n".into()));
        assert_eq!(run(home.path(), view(".", None, None)).await, Ok("a/".into()));
        let error = run(home.path(), view("a/b.txt", Some(9), None)).await.expect_err("no such line");
        assert!(error.contains("only 3 lines"), "{error}");
    }

    #[tokio::test]
    async fn a_path_below_agent_is_the_homes_wherever_the_shell_is() {
        let home = tempfile::tempdir().expect("a directory");
        let elsewhere = tempfile::tempdir().expect("a directory");
        let cancel = CancellationToken::new();
        let at = |action: FileAction| action.run(home.path().to_owned(), elsewhere.path().to_owned(), &cancel);
        at(create("/agent/d/note", "kept")).await.expect("created");
        assert_eq!(fs::read_to_string(home.path().join("d/note")).expect("there"), "kept");
        assert_eq!(at(view("/agent/d/note", None, None)).await, Ok("     1\tkept".into()));
        let replace = FileAction::Replace { path: "/agent/d/note".into(), old: "kept".into(), new: "new".into() };
        at(replace).await.expect("changed");
        let search = FileAction::Search { path: "/agent".into(), text: "new".into() };
        assert!(at(search).await.expect("searched").ends_with("d/note:1: new"));
        at(create("here", "")).await.expect("created");
        assert!(elsewhere.path().join("here").exists(), "a relative path begins where the shell is");
    }

    #[tokio::test]
    async fn only_a_text_that_stands_once_is_replaced() {
        let home = tempfile::tempdir().expect("a directory");
        run(home.path(), create("a", "xaay zaa")).await.expect("created");
        let replace = |old: &str| FileAction::Replace { path: "a".into(), old: old.into(), new: "b".into() };
        assert!(run(home.path(), replace("aa")).await.expect_err("twice").contains("2 times"));
        assert!(run(home.path(), replace("q")).await.expect_err("never").contains("does not stand"));
        run(home.path(), replace("aay")).await.expect("once");
        assert_eq!(fs::read_to_string(home.path().join("a")).expect("there"), "xb zaa");
    }

    #[tokio::test]
    async fn a_file_is_replaced_as_a_whole_and_keeps_its_rights_and_the_links_to_it() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let home = tempfile::tempdir().expect("a directory");
        let (file, link) = (home.path().join("a"), home.path().join("b"));
        run(home.path(), create("a", "one")).await.expect("created");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o750)).and_then(|()| symlink("a", &link)).expect("set");
        let replace = FileAction::Replace { path: "b".into(), old: "one".into(), new: "two".into() };
        for (action, old, new) in [(replace, "one", "two"), (create("b", "three"), "two", "three")] {
            let mut before = File::open(&file).expect("there");
            run(home.path(), action).await.expect("written");
            let mut seen = String::new();
            before.read_to_string(&mut seen).expect("read");
            assert_eq!(seen, old, "who reads it meanwhile has it as it was");
            assert_eq!(fs::read_to_string(&file).expect("there"), new);
            assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o750);
            assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
        }
        assert_eq!(fs::read_dir(home.path()).expect("a list").count(), 2, "nothing else is left");
    }

    #[tokio::test]
    async fn a_search_names_file_and_line_and_passes_over_binaries() {
        let home = tempfile::tempdir().expect("a directory");
        run(home.path(), create("d/a", "x\nneedle here\n")).await.expect("created");
        run(home.path(), create("d/b", "\0needle")).await.expect("created");
        let found = run(home.path(), FileAction::Search { path: "d".into(), text: "needle".into() }).await;
        assert_eq!(found, Ok(format!("{}:2: needle here", home.path().join("d/a").display())));
    }

    #[tokio::test]
    async fn what_could_block_is_not_opened() {
        let home = tempfile::tempdir().expect("a directory");
        let error = run(home.path(), view("/dev/zero", None, None)).await.expect_err("a device");
        assert!(error.contains("no ordinary file"), "{error}");
    }
}
