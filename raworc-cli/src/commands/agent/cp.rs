//! `raworc agent cp`.

use std::path::{Component, Path, PathBuf};

use anyhow::Context as _;
use futures::TryStreamExt;
use raworc_core::ids::AgentName;
use raworc_http::client::{Body, Found};
use tokio_util::io::{StreamReader, SyncIoBridge};

use crate::args::CpArgs;
use crate::commands::context::Context;
use crate::exit::{Exit, Failure};

/// Bytes that are packed ahead of what is sent.
const AHEAD: usize = 256 << 10;

/// One end of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Stdio,
    Here(PathBuf),
    There(AgentName, String),
}

pub(super) async fn run(context: &Context, args: CpArgs) -> anyhow::Result<()> {
    let ends = (place(&args.from)?, place(&args.to)?);
    let progress = context.console.progress(format!("copying {} to {}", args.from, args.to));
    let done = match ends {
        (Place::There(name, path), Place::Stdio) => print(context, &name, &path).await,
        (Place::There(name, path), Place::Here(to)) => fetch(context, &name, &path, &to).await,
        (Place::Stdio, Place::There(name, path)) => {
            let body = Body::read(tokio::io::stdin());
            context.client.write_file(&name, &path, None, body).await.map_err(Into::into)
        }
        (Place::Here(from), Place::There(name, path)) => bring(context, &from, &name, &path).await,
        _ => Err(Failure::new(Exit::Usage, "one end has to be in an agent's computer, and the other one here")
            .hint("write the one in the computer as NAME:PATH, such as ada:/agent/report.pdf")
            .into()),
    };
    drop(progress);
    done
}

fn place(text: &str) -> Result<Place, Failure> {
    if text == "-" {
        return Ok(Place::Stdio);
    }
    match text.split_once(':') {
        // `./a:b` and `/a:b` are files of this machine.
        Some((name, path)) if !name.contains('/') && !name.is_empty() => {
            let name = AgentName::new(name).map_err(|error| {
                Failure::new(Exit::Usage, error.to_string())
                    .hint(format!("a file of this machine with ':' in its name is written ./{text}"))
            })?;
            let path = if path.is_empty() { "/agent" } else { path };
            Ok(Place::There(name, path.to_owned()))
        }
        _ => Ok(Place::Here(PathBuf::from(text))),
    }
}

async fn print(context: &Context, name: &AgentName, path: &str) -> anyhow::Result<()> {
    let mut bytes = match context.client.read_file(name, path).await? {
        Found::File { bytes, .. } => bytes,
        Found::Directory(_) => {
            let packed = format!("raworc agent exec {name} -- tar c -C {path} . > FILE.tar");
            return Err(Failure::new(
                Exit::Usage,
                format!("{name}:{path} is a directory, and standard output takes a file"),
            )
            .hint(format!("copy it to a directory here: raworc agent cp {name}:{path} DIRECTORY"))
            .hint(format!("or have it packed: {packed}"))
            .into());
        }
    };
    while let Some(bytes) = bytes.try_next().await? {
        context.console.write(&bytes)?;
    }
    Ok(())
}

/// Brings a file or a tree here: into a directory that is there, else under the name that was given.
async fn fetch(context: &Context, name: &AgentName, path: &str, to: &Path) -> anyhow::Result<()> {
    let archive = context.client.read_archive(name, path).await?.map_err(std::io::Error::other);
    let base = Path::new(path.trim_end_matches('/')).file_name().map(PathBuf::from).unwrap_or_default();
    let (directory, top) = match to.file_name() {
        Some(last) if !to.is_dir() => (to.parent().map(Path::to_owned).unwrap_or_default(), PathBuf::from(last)),
        _ => (to.to_owned(), base.clone()),
    };
    let reader = SyncIoBridge::new(StreamReader::new(archive));
    let unpacked = tokio::task::spawn_blocking(move || unpack(reader, &directory, &base, &top));
    unpacked.await?.with_context(|| format!("cannot write {}", to.display()))
}

/// Unpacks a tree, whose entries are named from `base` on or relative to it, as `top` in `directory`.
pub(crate) fn unpack(reader: impl std::io::Read, directory: &Path, base: &Path, top: &Path) -> std::io::Result<()> {
    let mut archive = tar::Archive::new(reader);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let named = entry.path()?.into_owned();
        let below = named.strip_prefix(".").unwrap_or(&named);
        let below = below.strip_prefix(base).unwrap_or(below);
        // Joining nothing would make a file's name end in a slash.
        let path = if below.as_os_str().is_empty() { top.to_owned() } else { top.join(below) };
        if !stays_inside(directory, &path) {
            return Err(std::io::Error::other(format!("the archive would write outside of it: {}", named.display())));
        }
        let kind = entry.header().entry_type();
        if !(kind.is_file() || kind.is_dir() || kind.is_symlink()) {
            // Sparse files too: a few bytes of an archive could fill this disk with their holes.
            let what = format!("{} is neither a file nor a directory nor a symbolic link", named.display());
            return Err(std::io::Error::other(what));
        }
        let target = directory.join(&path);
        if let Some(parent) = target.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent)?;
        }
        entry.unpack(&target)?;
    }
    Ok(())
}

/// Whether nothing outside of the directory is written to, by name or through a link: an agent's archive is not to be
/// trusted.
fn stays_inside(directory: &Path, path: &Path) -> bool {
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    let mut above = path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty());
    plain && !above.any(|above| directory.join(above).is_symlink())
}

/// Takes a file or a tree there. A path that ends in `/` is a directory to put it into.
async fn bring(context: &Context, from: &Path, name: &AgentName, path: &str) -> anyhow::Result<()> {
    let found = std::fs::metadata(from)
        .map_err(|error| Failure::new(Exit::NotFound, format!("cannot read {}", from.display())).because(error))?;
    let from = std::fs::canonicalize(from)?;
    let base = from.file_name().map(|base| base.to_string_lossy().into_owned()).unwrap_or_default();
    let target = if path.ends_with('/') { format!("{path}{base}") } else { path.to_owned() };
    if found.is_file() {
        let body = Body::read(tokio::fs::File::open(&from).await?);
        return Ok(context.client.write_file(name, &target, None, body).await?);
    }
    let (read, write) = tokio::io::duplex(AHEAD);
    let packer = tokio::task::spawn_blocking(move || {
        let mut archive = tar::Builder::new(SyncIoBridge::new(write));
        archive.follow_symlinks(false);
        archive.append_dir_all(".", &from)?;
        archive.into_inner()?.shutdown()
    });
    context.client.write_archive(name, &target, Body::read(read)).await?;
    packer.await?.context("cannot pack the directory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_apart() {
        let there = |path: &str| Place::There(AgentName::new("ada").expect("valid"), path.to_owned());
        assert_eq!(place("ada:/x").expect("valid"), there("/x"));
        assert_eq!(place("ada:").expect("valid"), there("/agent"));
        assert_eq!(place("./a:b").expect("valid"), Place::Here("./a:b".into()));
        assert_eq!(place("plain").expect("valid"), Place::Here("plain".into()));
        assert_eq!(place("-").expect("valid"), Place::Stdio);
        assert!(place("Ada:/x").is_err());
    }

    fn packed(path: &str, link: Option<&str>) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        match link {
            Some(target) => {
                header.set_size(0);
                header.set_entry_type(tar::EntryType::Symlink);
                archive.append_link(&mut header, path, target).expect("packed");
            }
            None => {
                header.set_size(1);
                // The library refuses such names, and a hostile program does not.
                header.as_gnu_mut().expect("gnu").name[..path.len()].copy_from_slice(path.as_bytes());
                header.set_cksum();
                archive.append(&header, b"x".as_slice()).expect("packed");
            }
        }
        archive.into_inner().expect("whole")
    }

    #[test]
    fn a_tree_arrives_under_the_name_that_was_asked_for() {
        let dir = tempfile::tempdir().expect("temp dir");
        for named in ["out/a/b", "./a/b", "a/b"] {
            unpack(packed(named, None).as_slice(), dir.path(), Path::new("out"), Path::new("mine")).expect(named);
            assert_eq!(std::fs::read_to_string(dir.path().join("mine/a/b")).expect("there"), "x", "{named}");
            std::fs::remove_dir_all(dir.path().join("mine")).expect("removed");
        }
        unpack(packed("log.txt", None).as_slice(), dir.path(), Path::new("log.txt"), Path::new("mine.txt"))
            .expect("file");
        assert_eq!(std::fs::read_to_string(dir.path().join("mine.txt")).expect("there"), "x");
    }

    #[test]
    fn an_archive_that_would_write_outside_is_refused() {
        let dir = tempfile::tempdir().expect("temp dir");
        let inside = dir.path().join("in");
        std::fs::create_dir(&inside).expect("made");
        let unpack = |bytes: Vec<u8>| unpack(bytes.as_slice(), &inside, Path::new("a"), Path::new("a"));
        for hostile in ["../out", "../../out", "/tmp/raworc-out", "b/../../../out"] {
            assert!(unpack(packed(hostile, None)).is_err(), "{hostile}");
        }
        unpack(packed("link", Some("../.."))).expect("a link alone does nothing");
        assert!(unpack(packed("link/out", None)).is_err());
        assert!(!dir.path().join("out").exists());
    }

    #[test]
    fn an_entry_that_cannot_be_written_here_is_an_error_and_is_not_left_out() {
        let dir = tempfile::tempdir().expect("temp dir");
        for kind in [tar::EntryType::GNUSparse, tar::EntryType::Link, tar::EntryType::Fifo, tar::EntryType::Char] {
            let mut archive = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(0);
            header.as_gnu_mut().expect("gnu").set_real_size(0);
            archive.append_data(&mut header, "odd", std::io::empty()).expect("packed");
            let bytes = archive.into_inner().expect("whole");
            let error = unpack(bytes.as_slice(), dir.path(), Path::new("a"), Path::new("a")).expect_err("refused");
            assert!(error.to_string().contains("odd"), "{kind:?}: {error}");
            assert_eq!(std::fs::read_dir(dir.path()).expect("readable").count(), 0, "{kind:?}");
        }
    }
}
