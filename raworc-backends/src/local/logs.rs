//! What programs write: kept in the computer's directory, within bounds.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use raworc_core::runtime::{LogsOptions, RuntimeError};
use tokio::sync::watch;

use super::error::from_io;

/// Half of what is kept: the older file is dropped when the newer one is full.
const HALF: u64 = 8 << 20;

/// How much is given at a time.
const CHUNK: usize = 64 << 10;

/// How far a log has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Progress {
    written: u64,
    closed: bool,
}

/// The log of one start.
#[derive(Debug)]
pub(crate) struct Log {
    files: Mutex<Files>,
    progress: watch::Sender<Progress>,
}

/// Places are counted from the first byte of the start.
#[derive(Debug)]
struct Files {
    directory: PathBuf,
    new: File,
    new_from: u64,
    old: Option<File>,
    old_from: u64,
    written: u64,
    half: u64,
}

impl Log {
    /// Begins the log of a new start.
    pub(crate) fn create(directory: &Path) -> io::Result<Self> {
        Self::create_with(directory, HALF)
    }

    fn create_with(directory: &Path, half: u64) -> io::Result<Self> {
        match fs::remove_file(directory.join("log.old")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let new = begin(directory)?;
        let files = Files { directory: directory.into(), new, new_from: 0, old: None, old_from: 0, written: 0, half };
        Ok(Self::of(files, false))
    }

    /// The log of a start that has ended; empty where there was none.
    pub(crate) fn finished(directory: &Path) -> io::Result<Self> {
        let old = match File::open(directory.join("log.old")) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let new = match File::open(directory.join("log")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => begin(directory)?,
            opened => opened?,
        };
        let new_from = old.as_ref().map(|file| file.metadata().map(|data| data.len())).transpose()?.unwrap_or(0);
        let written = new_from + new.metadata()?.len();
        let files = Files { directory: directory.into(), new, new_from, old, old_from: 0, written, half: HALF };
        Ok(Self::of(files, true))
    }

    fn of(files: Files, closed: bool) -> Self {
        let progress = Progress { written: files.written, closed };
        Self { files: Mutex::new(files), progress: watch::Sender::new(progress) }
    }

    /// Adds what the program wrote.
    pub(crate) fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if files.written - files.new_from >= files.half {
            files.turn()?;
        }
        files.new.write_all(bytes)?;
        files.written += bytes.len() as u64;
        let written = files.written;
        drop(files);
        self.progress.send_modify(|progress| progress.written = written);
        Ok(())
    }

    /// Nothing more comes.
    pub(crate) fn close(&self) {
        self.progress.send_modify(|progress| progress.closed = true);
    }

    /// The bytes that `options` ask for.
    pub(crate) fn read(self: Arc<Self>, options: LogsOptions) -> BoxStream<'static, Result<Bytes, RuntimeError>> {
        let progress = self.progress.subscribe();
        let written = progress.borrow().written;
        let at = options.tail.map_or(0, |tail| written.saturating_sub(tail));
        let end = (!options.follow).then_some(written);
        stream::unfold((self, progress, at), move |(log, mut progress, at)| async move {
            if end.is_some_and(|end| at >= end) {
                return None;
            }
            if end.is_none() {
                let ready = progress.wait_for(|progress| progress.written > at || progress.closed).await;
                if ready.is_ok_and(|progress| progress.written <= at) {
                    return None;
                }
            }
            let read = log.files.lock().unwrap_or_else(PoisonError::into_inner).read(at);
            match read {
                Ok((_, bytes)) if bytes.is_empty() => None,
                Ok((next, bytes)) => Some((Ok(bytes), (log, progress, next))),
                Err(error) => Some((Err(from_io("read the log", "", &error)), (log, progress, u64::MAX))),
            }
        })
        .boxed()
    }
}

impl Files {
    fn turn(&mut self) -> io::Result<()> {
        fs::rename(self.directory.join("log"), self.directory.join("log.old"))?;
        let new = begin(&self.directory)?;
        self.old = Some(std::mem::replace(&mut self.new, new));
        self.old_from = self.new_from;
        self.new_from = self.written;
        Ok(())
    }

    /// The bytes from `at` on, and where the next ones begin. What was dropped already is skipped.
    fn read(&self, at: u64) -> io::Result<(u64, Bytes)> {
        let at = at.max(if self.old.is_some() { self.old_from } else { self.new_from });
        let (file, from, until) = match &self.old {
            Some(old) if at < self.new_from => (old, self.old_from, self.new_from),
            _ => (&self.new, self.new_from, self.written),
        };
        let want = usize::try_from(until.saturating_sub(at)).unwrap_or(CHUNK).min(CHUNK);
        let mut bytes = vec![0; want];
        let got = file.read_at(&mut bytes, at.saturating_sub(from))?;
        bytes.truncate(got);
        Ok((at + got as u64, bytes.into()))
    }
}

fn begin(directory: &Path) -> io::Result<File> {
    let path = directory.join("log");
    File::options().read(true).write(true).create(true).truncate(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(log: &Arc<Log>, options: LogsOptions) -> String {
        let chunks: Vec<_> = Arc::clone(log).read(options).map(|chunk| chunk.expect("read")).collect().await;
        String::from_utf8(chunks.concat()).expect("text")
    }

    #[tokio::test]
    async fn a_log_is_read_whole_by_its_tail_and_after_its_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let log = Arc::new(Log::create(directory.path()).expect("made"));
        log.append(b"one ").expect("written");
        log.append(b"two").expect("written");
        assert_eq!(all(&log, LogsOptions::default()).await, "one two");
        assert_eq!(all(&log, LogsOptions::default().with_tail(3)).await, "two");
        log.close();
        assert_eq!(all(&log, LogsOptions::default().with_follow(true)).await, "one two");
        let finished = Arc::new(Log::finished(directory.path()).expect("opened"));
        assert_eq!(all(&finished, LogsOptions::default().with_tail(5)).await, "e two".trim_start_matches(' '));
    }

    #[tokio::test]
    async fn a_follower_gets_what_is_written_later_and_ends_with_the_log() {
        let directory = tempfile::tempdir().expect("a directory");
        let log = Arc::new(Log::create(directory.path()).expect("made"));
        let mut follower = Arc::clone(&log).read(LogsOptions::default().with_follow(true));
        log.append(b"first").expect("written");
        assert_eq!(follower.next().await.expect("a chunk").expect("read"), "first");
        log.append(b"second").expect("written");
        assert_eq!(follower.next().await.expect("a chunk").expect("read"), "second");
        log.close();
        assert!(follower.next().await.is_none());
    }

    #[tokio::test]
    async fn a_log_without_end_keeps_its_newest_part() {
        let directory = tempfile::tempdir().expect("a directory");
        let log = Arc::new(Log::create_with(directory.path(), 10).expect("made"));
        for number in 0..10 {
            log.append(format!("line {number}\n").as_bytes()).expect("written");
        }
        assert_eq!(all(&log, LogsOptions::default()).await, "line 6\nline 7\nline 8\nline 9\n");
        assert_eq!(all(&log, LogsOptions::default().with_tail(7)).await, "line 9\n");
    }
}
