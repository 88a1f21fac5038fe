//! `/archive`: a whole tree as tar, one way or the other.
//!
//! A directory's entries stand in the archive below `.`, a single file under its own name.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use futures::stream;
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use rustix::fs::{FsWord, PROC_SUPER_MAGIC};
use tokio::sync::mpsc;

use super::reply::{self, Body, LinkError};

/// The type of `/sys` as a file system, in linux/magic.h.
const SYSFS_MAGIC: FsWord = 0x6265_6572;

/// Bytes of one piece.
const PIECE: usize = 64 << 10;

/// Pieces that wait between the disk and the link.
const WAITING: usize = 4;

/// The tree at `path`. Links in it stay links.
pub(super) async fn pack(path: PathBuf) -> Result<Response<Body>, LinkError> {
    let failed = |error: io::Error| LinkError::io(path.display(), &error);
    let metadata = tokio::fs::metadata(&path).await.map_err(failed)?;
    if !metadata.is_dir() && !metadata.is_file() {
        return Err(LinkError::conflict(format!("{} is neither a file nor a directory", path.display())));
    }
    // A file that may not be read is refused before the answer has begun, which could only be cut off.
    let file = if metadata.is_file() { Some(File::open(&path).map_err(failed)?) } else { None };
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::task::spawn_blocking(move || {
        let outlet = Outlet { sender: sender.clone(), piece: Vec::with_capacity(PIECE) };
        if let Err(error) = write_tree(&path, file, outlet) {
            // Without a reader there is nobody to tell.
            let _ = sender.blocking_send(Err(error));
        }
    });
    let pieces = stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
    let mut response = reply::bytes(pieces);
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/x-tar"));
    Ok(response)
}

pub(super) fn write_tree(path: &Path, file: Option<File>, outlet: impl Write) -> io::Result<()> {
    let mut builder = tar::Builder::new(outlet);
    builder.follow_symlinks(false);
    match file {
        None => add_directory(&mut builder, path, &fs::metadata(path)?, Path::new("."))?,
        Some(mut file) => add_file(&mut builder, &mut file, Path::new(path.file_name().unwrap_or_default()))?,
    }
    builder.into_inner()?.flush()
}

/// Sockets, pipes and devices cannot travel, nor can what the kernel shows of itself, and what is gone or may not be read
/// is left out.
fn add_directory(
    builder: &mut tar::Builder<impl Write>,
    path: &Path,
    metadata: &Metadata,
    name: &Path,
) -> io::Result<()> {
    builder.append_data(&mut header(metadata), name, io::empty())?;
    if is_of_the_kernel(path) {
        return Ok(());
    }
    let Ok(entries) = fs::read_dir(path) else { return Ok(()) };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), name.join(entry.file_name()));
        // Not the entry's own type: a device may be mounted over what its directory calls a file.
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.is_dir() {
            add_directory(builder, &path, &metadata, &name)?;
        } else if metadata.is_symlink()
            && let Ok(target) = fs::read_link(&path)
        {
            builder.append_link(&mut header(&metadata), &name, target)?;
        } else if metadata.is_file()
            && let Ok(mut file) = File::open(&path)
        {
            add_file(builder, &mut file, &name)?;
        }
    }
    Ok(())
}

/// Whether it shows processes or devices: files there have no size of their own, or one beyond every disk.
fn is_of_the_kernel(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|system| [PROC_SUPER_MAGIC, SYSFS_MAGIC].contains(&system.f_type))
}

fn header(metadata: &Metadata) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_metadata(metadata);
    header
}

/// A file that grows or shrinks meanwhile stands in the archive with the size that it had at first. Holes are written
/// as zeros: not everyone who unpacks knows of holes.
fn add_file(builder: &mut tar::Builder<impl Write>, file: &mut File, name: &Path) -> io::Result<()> {
    let metadata = file.metadata()?;
    let padded = file.take(metadata.len()).chain(io::repeat(0)).take(metadata.len());
    builder.append_data(&mut header(&metadata), name, padded)
}

/// Unpacks into the directory `path`, which is made where it is not there. Nothing is written outside of it.
pub(super) async fn unpack(path: PathBuf, mut body: Incoming) -> Result<Response<Body>, LinkError> {
    let (sender, receiver) = mpsc::channel(WAITING);
    let target = path.clone();
    let unpacked = tokio::task::spawn_blocking(move || read_tree(&target, Inlet { receiver, piece: Bytes::new() }));
    while let Some(frame) = body.frame().await {
        let piece = frame.map_err(|error| io::Error::new(io::ErrorKind::UnexpectedEof, error));
        let piece = piece.map(|frame| frame.into_data().unwrap_or_default());
        let broken = piece.is_err();
        if sender.send(piece).await.is_err() || broken {
            break;
        }
    }
    drop(sender);
    let unpacked = unpacked.await.map_err(|error| LinkError::conflict(error.to_string()))?;
    unpacked.map(|()| reply::done()).map_err(|error| error.of(&path))
}

#[derive(Debug)]
pub(super) enum Unpacked {
    Unsafe(String),
    Broken(io::Error),
}

impl Unpacked {
    fn of(self, path: &Path) -> LinkError {
        match self {
            Self::Unsafe(what) => LinkError::new(StatusCode::BAD_REQUEST, "unsafe_path", what),
            Self::Broken(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                LinkError::invalid("the archive broke off")
            }
            Self::Broken(error) if error.kind() == io::ErrorKind::Other => {
                // The tar reader wraps what the disk said.
                let inner =
                    error.get_ref().and_then(|inner| inner.source()).and_then(|e| e.downcast_ref::<io::Error>());
                let kind = inner.map_or(io::ErrorKind::InvalidInput, io::Error::kind);
                LinkError::io(path.display(), &io::Error::new(kind, error.to_string()))
            }
            Self::Broken(error) => LinkError::io(path.display(), &error),
        }
    }
}

impl From<io::Error> for Unpacked {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

pub(super) fn read_tree(target: &Path, inlet: impl Read) -> Result<(), Unpacked> {
    fs::create_dir_all(target)?;
    let target = target.canonicalize()?;
    let mut archive = tar::Archive::new(inlet);
    archive.set_overwrite(true);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.into_owned();
        let refuse = |why: &str| Unpacked::Unsafe(format!("{}: {why}", name.display()));
        if name.components().any(|part| matches!(part, Component::ParentDir)) || name.is_absolute() {
            return Err(refuse("names in an archive stay below its directory"));
        }
        let kind = entry.header().entry_type();
        if kind.is_block_special() || kind.is_character_special() || kind.is_fifo() {
            return Err(refuse("devices and pipes are not unpacked"));
        }
        // This looks through links in the way, and says no where they lead outside.
        if !entry.unpack_in(&target)? {
            return Err(refuse("names in an archive stay below its directory"));
        }
    }
    Ok(())
}

/// Sends what is written, in pieces, and waits while nobody takes them.
struct Outlet {
    sender: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        if piece.is_empty() {
            return Ok(());
        }
        self.sender.blocking_send(Ok(piece.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Reads what is received.
struct Inlet {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Read for Inlet {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.piece.len());
        buffer[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}
