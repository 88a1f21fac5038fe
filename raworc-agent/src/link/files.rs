//! `/files`: one file or directory, as the agent's user may see and change it.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use futures::stream;
use http::{Response, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use raworc_core::program::FileEntry;
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Take};

use super::reply::{self, Body, LinkError};
use crate::whole::Draft;

/// Bytes of one piece.
const PIECE: usize = 64 << 10;

/// Names of one directory that are told.
const ENTRIES: usize = 50_000;

/// The bytes of a file, or the entries of a directory.
pub(super) async fn read(path: PathBuf) -> Result<Response<Body>, LinkError> {
    let failed = |error: io::Error| LinkError::io(path.display(), &error);
    let metadata = tokio::fs::metadata(&path).await.map_err(failed)?;
    if metadata.is_dir() {
        let directory = path.clone();
        let entries = tokio::task::spawn_blocking(move || list(&directory)).await;
        let entries = entries.map_err(|error| failed(io::Error::other(error)))?.map_err(failed)?;
        return reply::respond_json(&entries);
    }
    let mut options = OpenOptions::new();
    // A pipe that nobody writes must not hold the request.
    options.read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    let file = options.open(&path).await.map_err(failed)?;
    // Files of the kernel tell no size, and what grows meanwhile is given as it was.
    let size = if metadata.is_file() { metadata.len() } else { 0 };
    let mut response = reply::bytes(contents(file.take(if size > 0 { size } else { u64::MAX })));
    if size > 0 {
        response.headers_mut().insert(header::CONTENT_LENGTH, size.into());
    }
    response.headers_mut().insert("x-raworc-mode", (metadata.permissions().mode() & 0o777).into());
    response.headers_mut().insert(header::CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    Ok(response)
}

fn contents(file: Take<File>) -> impl futures::Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::unfold(Some(file), |file| async move {
        let mut file = file?;
        let mut buffer = BytesMut::with_capacity(PIECE);
        match file.read_buf(&mut buffer).await {
            Ok(0) => None,
            Ok(_) => Some((Ok(buffer.freeze()), Some(file))),
            Err(error) => Some((Err(error), None)),
        }
    })
}

fn list(directory: &Path) -> io::Result<Vec<FileEntry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(directory)?.take(ENTRIES) {
        let entry = entry?;
        // One that was taken away meanwhile is not there.
        if let Ok(metadata) = entry.metadata() {
            entries.push(describe(entry.file_name().to_string_lossy().into_owned(), &metadata));
        }
    }
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(entries)
}

fn describe(name: String, metadata: &Metadata) -> FileEntry {
    let kind = match metadata.file_type() {
        kind if kind.is_file() => "file",
        kind if kind.is_dir() => "directory",
        kind if kind.is_symlink() => "symlink",
        _ => "other",
    };
    let modified_at = metadata.modified().ok().and_then(|time| jiff::Timestamp::try_from(time).ok());
    let mode = metadata.permissions().mode() & 0o7777;
    FileEntry { name, kind: kind.into(), size: metadata.len(), mode, modified_at }
}

/// Writes a file: whole, or not at all. What is no ordinary file is written in place.
pub(super) async fn write(path: PathBuf, mode: Option<u32>, body: Incoming) -> Result<Response<Body>, LinkError> {
    let failed = |error: &io::Error| LinkError::io(path.display(), error);
    let before = tokio::fs::metadata(&path).await.ok();
    if before.as_ref().is_some_and(Metadata::is_dir) {
        return Err(failed(&io::ErrorKind::IsADirectory.into()));
    }
    if before.as_ref().is_some_and(|before| !before.is_file()) {
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
        let file = options.open(&path).await.map_err(|error| failed(&error))?;
        receive(file, body).await.map_err(|error| error.of(&path))?;
        return Ok(reply::done());
    }
    if path.file_name().is_none() {
        return Err(LinkError::invalid("the path names no file"));
    }
    let draft = tokio::task::spawn_blocking({
        let path = path.clone();
        // Where the request is given up meanwhile, what is made is dropped with the result.
        move || Draft::begin(&path, mode)
    });
    let draft = draft.await.map_err(io::Error::other).flatten().map_err(|error| failed(&error))?;
    let file = draft.file().try_clone().map_err(|error| failed(&error))?;
    receive(File::from_std(file), body).await.map_err(|error| error.of(&path))?;
    let done = tokio::task::spawn_blocking(move || draft.finish()).await;
    done.map_err(io::Error::other).flatten().map_err(|error| failed(&error))?;
    Ok(reply::done())
}

enum Broken {
    Disk(io::Error),
    Request(String),
}

impl Broken {
    fn of(self, path: &Path) -> LinkError {
        match self {
            Self::Disk(error) => LinkError::io(path.display(), &error),
            Self::Request(error) => LinkError::invalid(format!("the content broke off: {error}")),
        }
    }
}

async fn receive(mut file: File, mut body: Incoming) -> Result<(), Broken> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Broken::Request(error.to_string()))?;
        if let Some(data) = frame.data_ref() {
            file.write_all(data).await.map_err(Broken::Disk)?;
        }
    }
    file.flush().await.map_err(Broken::Disk)
}

/// Takes a file, a link or a directory away.
pub(super) async fn remove(path: PathBuf, recursive: bool) -> Result<Response<Body>, LinkError> {
    let removed = async {
        let metadata = tokio::fs::symlink_metadata(&path).await?;
        match (metadata.is_dir(), recursive) {
            (true, true) => tokio::fs::remove_dir_all(&path).await,
            (true, false) => tokio::fs::remove_dir(&path).await,
            (false, _) => tokio::fs::remove_file(&path).await,
        }
    };
    removed.await.map_err(|error: io::Error| LinkError::io(path.display(), &error))?;
    Ok(reply::done())
}
