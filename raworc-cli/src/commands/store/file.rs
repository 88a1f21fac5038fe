//! Where an export comes from, and where it goes.

use std::io::IsTerminal;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, BufReader};

use super::{cannot_write, is_stream, name};
use crate::exit::{Exit, Failure};
use crate::output::Console;
use crate::terminal::stdin_is_terminal;

/// Bytes that are read at once.
const READ: usize = 256 << 10;

/// Opens an export to read it.
pub(super) async fn input(file: &Path) -> Result<Box<dyn AsyncBufRead + Send + Unpin>, Failure> {
    let from: Box<dyn AsyncRead + Send + Unpin> = if is_stream(file) {
        if stdin_is_terminal() {
            return Err(Failure::new(
                Exit::Usage,
                "an export comes from a file or a pipe, and standard input is a terminal",
            )
            .hint("name the file that `raworc store export` wrote"));
        }
        Box::new(tokio::io::stdin())
    } else {
        let opened = tokio::fs::File::open(file).await;
        Box::new(opened.map_err(|error| {
            let exit = if error.kind() == std::io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Failed };
            Failure::new(exit, format!("cannot read {}", file.display())).because(error)
        })?)
    };
    Ok(Box::new(BufReader::with_capacity(READ, from)))
}

/// Where an export goes: standard output, or a file that has its name only once it is whole.
pub(super) enum Output {
    Stream(tokio::io::Stdout),
    File { file: tokio::fs::File, partial: Partial, path: PathBuf, force: bool },
}

impl Output {
    /// Begins one.
    pub(super) async fn open(console: &Console, path: &Path, force: bool) -> Result<Self, Failure> {
        if is_stream(path) {
            if console.out_is_terminal || std::io::stdout().is_terminal() {
                return Err(Failure::new(
                    Exit::Usage,
                    "an export goes to a file or a pipe, and standard output is a terminal",
                )
                .hint("name a file: raworc store export FILE"));
            }
            return Ok(Self::Stream(tokio::io::stdout()));
        }
        match std::fs::metadata(path) {
            Ok(there) if !there.is_file() => {
                return Err(Failure::new(Exit::Usage, format!("{} is there, and is no file", path.display()))
                    .hint("name a file, or write to a pipe with -"));
            }
            Ok(_) if !force => return Err(is_there(path)),
            Ok(_) | Err(_) => {}
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(format!(".{}.partial", std::process::id()));
        let partial = PathBuf::from(partial);
        let mut options = std::fs::OpenOptions::new();
        // Of one that ended before it could take it away, with the same number; or made by somebody else who wants to read it.
        if let Err(error) = std::fs::remove_file(&partial)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(cannot_write(&name(&partial), error));
        }
        options.write(true).create_new(true).mode(0o600);
        let file = options.open(&partial).map_err(|error| {
            Failure::new(Exit::Failed, format!("cannot write {}", partial.display()))
                .because(error)
                .hint("choose a directory in which you may make files")
        })?;
        let file = tokio::fs::File::from_std(file);
        Ok(Self::File { file, partial: Partial(Some(partial)), path: path.to_owned(), force })
    }

    pub(super) fn writer(&mut self) -> &mut (dyn AsyncWrite + Send + Unpin) {
        match self {
            Self::Stream(out) => out,
            Self::File { file, .. } => file,
        }
    }

    /// Gives a file its name, when it is on the disk.
    pub(super) async fn finish(self) -> Result<(), Failure> {
        let Self::File { file, mut partial, path, force } = self else { return Ok(()) };
        let failed = |error: std::io::Error| cannot_write(&name(&path), error);
        file.sync_all().await.map_err(failed)?;
        drop(file);
        let Some(from) = &partial.0 else { return Ok(()) };
        let flags = if force { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        match renameat_with(CWD, from, CWD, &path, flags) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => return Err(is_there(&path)),
            // Not every file system knows how to keep what is there.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                if !force && path.exists() {
                    return Err(is_there(&path));
                }
                std::fs::rename(from, &path).map_err(failed)?;
            }
            Err(error) => return Err(failed(error.into())),
        }
        partial.0 = None;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // The name is to be on the disk too; where that cannot be had, the file is there all the same.
        drop(std::fs::File::open(directory).and_then(|directory| directory.sync_all()));
        Ok(())
    }
}

fn is_there(path: &Path) -> Failure {
    Failure::new(Exit::Conflict, format!("{} is there already", path.display()))
        .hint("choose another name, or replace it with --force")
}

/// A file that goes when this does, unless it was given its name.
pub(super) struct Partial(Option<PathBuf>);

impl Drop for Partial {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // There is nobody left to tell.
            drop(std::fs::remove_file(path));
        }
    }
}
