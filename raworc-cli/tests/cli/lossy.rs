//! A way to a server that loses answers.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Passes requests on, and cuts the connection instead of the answer to the next one that changes something.
pub(crate) struct Lossy {
    address: SocketAddr,
    armed: Arc<AtomicBool>,
    lost: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
}

impl Lossy {
    pub(crate) fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let lossy = Self { address, armed: Arc::default(), lost: Arc::default(), over: Arc::default() };
        let server = server.trim_start_matches("http://").to_owned();
        let (armed, lost, over) = (Arc::clone(&lossy.armed), Arc::clone(&lossy.lost), Arc::clone(&lossy.over));
        std::thread::spawn(move || {
            for near in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let (near, far) = (near.expect("a connection"), TcpStream::connect(&server).expect("the server is up"));
                connect(near, far, Arc::clone(&armed), Arc::clone(&lost));
            }
        });
        lossy
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Loses the answer to the next request that changes something.
    pub(crate) fn lose_next(&self) {
        self.armed.store(true, Ordering::SeqCst);
    }

    /// How many were lost.
    pub(crate) fn lost(&self) -> usize {
        self.lost.load(Ordering::SeqCst)
    }
}

impl Drop for Lossy {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // Whoever accepts sees it with the next connection.
        let _ = TcpStream::connect(self.address);
    }
}

fn connect(near: TcpStream, far: TcpStream, armed: Arc<AtomicBool>, lost: Arc<AtomicUsize>) {
    let doomed = Arc::new(AtomicBool::new(false));
    let there = (near.try_clone().expect("a handle"), far.try_clone().expect("a handle"));
    let doom = Arc::clone(&doomed);
    std::thread::spawn(move || {
        pass(there.0, there.1, |piece| {
            let changes =
                [b"POST ".as_slice(), b"PUT ", b"PATCH ", b"DELETE "].iter().any(|verb| piece.starts_with(verb));
            if changes && armed.swap(false, Ordering::SeqCst) {
                doom.store(true, Ordering::SeqCst);
            }
            true
        });
    });
    std::thread::spawn(move || {
        pass(far, near, |_| {
            let keep = !doomed.load(Ordering::SeqCst);
            lost.fetch_add(usize::from(!keep), Ordering::SeqCst);
            keep
        });
    });
}

/// Passes bytes on for as long as both ends are there and `look` lets them.
fn pass(mut from: TcpStream, mut to: TcpStream, mut look: impl FnMut(&[u8]) -> bool) {
    let mut buffer = [0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if !look(&buffer[..count]) || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    // The other side may be gone already.
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
