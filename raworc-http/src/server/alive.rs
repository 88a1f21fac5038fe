//! Whether somebody is still at the other end of a connection: a machine that lost its power says no good-bye.
//!
//! Only a silent connection is asked. One with bytes under way to it is given up by the kernel, after a quarter of an hour
//! or so. `TCP_USER_TIMEOUT` would do so sooner, but ends a reader who is there and pauses, too.

use std::io;
use std::time::Duration;

use rustix::net::sockopt::{set_socket_keepalive, set_tcp_keepcnt, set_tcp_keepidle, set_tcp_keepintvl};
use tokio::net::TcpStream;

/// After so long a silence it is asked.
pub(super) const SILENCE: Duration = Duration::from_secs(30);

/// And again, where no answer comes.
const AGAIN: Duration = Duration::from_secs(10);

/// After so many questions without an answer nobody is there.
const QUESTIONS: u32 = 3;

/// Has the kernel ask.
pub(super) fn ask(stream: &TcpStream) -> io::Result<()> {
    set_tcp_keepidle(stream, SILENCE)?;
    set_tcp_keepintvl(stream, AGAIN)?;
    set_tcp_keepcnt(stream, QUESTIONS)?;
    Ok(set_socket_keepalive(stream, true)?)
}

#[cfg(test)]
mod tests {
    use rustix::net::sockopt::{socket_keepalive, tcp_keepcnt, tcp_keepidle, tcp_keepintvl};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_kernel_is_told_to_ask_a_silent_peer_and_to_give_it_up_within_a_minute() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (_near, (far, _)) = (near.expect("a connection"), far.expect("a connection"));
        assert!(!socket_keepalive(&far).expect("read"));
        ask(&far).expect("set");
        assert!(socket_keepalive(&far).expect("read"));
        let (idle, again) = (tcp_keepidle(&far).expect("read"), tcp_keepintvl(&far).expect("read"));
        assert!(idle + again * tcp_keepcnt(&far).expect("read") <= Duration::from_secs(60));
    }
}
