//! Has what is written to a database's server leave at once.
//!
//! The driver leaves it to the kernel to hold a small packet back until the one before it is acknowledged, for which the other end
//! waits 40 ms (sqlx 0.9.0; mended there since, in no release yet: <https://github.com/transact-rs/sqlx/issues/4335>). Over TLS,
//! where what is larger than 16 KiB is written in pieces, most commits would take that long. The driver gives nobody its
//! sockets, so they are found among those of this process. Once a release sets the option itself, this file goes.

use std::fs::read_dir;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, RawFd};

use rustix::net::getpeername;
use rustix::net::sockopt::set_tcp_nodelay;

/// Sets `TCP_NODELAY` on this process's connections to a port. Where there is no `/proc`, nothing is done.
pub(super) fn send_at_once(port: u16) {
    for socket in sockets(port) {
        // It may have been closed meanwhile.
        let _ = set_tcp_nodelay(socket, true);
    }
}

/// This process's connections to a port.
fn sockets(port: u16) -> impl Iterator<Item = BorrowedFd<'static>> {
    let files = read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let files = files.filter_map(|file| file.file_name().to_str()?.parse::<RawFd>().ok());
    // SAFETY: the number was that of an open file a moment ago. Where it is closed by now the calls fail, and where it is another
    // connection's by now that one is asked for its peer too; nothing but this option is ever set.
    #[expect(unsafe_code, reason = "nothing else makes a socket of the driver's usable here")]
    let files = files.map(|file| unsafe { BorrowedFd::borrow_raw(file) });
    files.filter(move |file| {
        let peer = getpeername(file).ok().flatten().and_then(|peer| SocketAddr::try_from(peer).ok());
        peer.is_some_and(|peer| peer.port() == port)
    })
}

/// How many of this process's connections to a port have it set.
#[cfg(test)]
pub(super) fn how_many_send_at_once(port: u16) -> usize {
    sockets(port).filter(|socket| rustix::net::sockopt::tcp_nodelay(socket).is_ok_and(|is_set| is_set)).count()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn connections_to_a_port_are_found_and_no_others() {
        let [listener, other] = [(), ()].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
        let [to, beside] = [&listener, &other].map(|listener| {
            let address = listener.local_addr().expect("an address");
            TcpStream::connect(address).expect("connects")
        });
        send_at_once(to.peer_addr().expect("an address").port());
        assert!(to.nodelay().expect("is told"));
        assert!(!beside.nodelay().expect("is told"), "another port's is left alone");
    }
}
