//! The Unix socket: its directory, its permissions, and what another process left behind.

use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

use super::ListenError;

/// Bytes of a socket's path, without the closing NUL, on Linux.
const PATH_LIMIT: usize = 107;

/// Computers' users may look for the servers' sockets in the directory, and pass through it to them.
const DIRECTORY_MODE: u32 = 0o755;

/// Whoever reaches the socket may connect: the token decides, and only computers are given the directory.
const SOCKET_MODE: u32 = 0o666;

/// The socket's file, taken away at the end unless another process has put its own there.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is still there, and nobody else's.
    pub(super) fn is_there(&self) -> bool {
        std::fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.identity)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_there()
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::debug!(path = %self.path.display(), %error, "the agents' socket could not be removed");
        }
    }
}

pub(super) async fn bind(path: &Path) -> Result<(UnixListener, SocketFile), ListenError> {
    if path.as_os_str().len() > PATH_LIMIT {
        return Err(ListenError::PathTooLong(path.to_owned()));
    }
    let io = |source: io::Error| ListenError::Io { address: path.display().to_string(), source };
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        make_directory(directory).map_err(io)?;
    }
    clear(path).await?;
    let listener = UnixListener::bind(path).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse(path.to_owned()),
        _ => io(error),
    })?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE)).map_err(io)?;
    let made = std::fs::symlink_metadata(path).map_err(io)?;
    Ok((listener, SocketFile { path: path.to_owned(), identity: (made.dev(), made.ino()) }))
}

/// Makes the directory, or sees to it that one which is ours alone lets computers' users pass.
pub(super) fn make_directory(directory: &Path) -> io::Result<()> {
    match std::fs::metadata(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            std::fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory)?;
        }
        Ok(found) if found.mode() & 0o055 == 0o055 => return Ok(()),
        Ok(_) => {}
        Err(error) => return Err(error),
    }
    // The umask may have taken bits away.
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(DIRECTORY_MODE))
}

/// Takes away a socket on which nobody listens any more.
async fn clear(path: &Path) -> Result<(), ListenError> {
    let io = |source: io::Error| ListenError::Io { address: path.display().to_string(), source };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(ListenError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path).map_err(io),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // It answers, or its queue is full: somebody is there.
        Ok(_) | Err(_) => Err(ListenError::InUse(path.to_owned())),
    }
}
