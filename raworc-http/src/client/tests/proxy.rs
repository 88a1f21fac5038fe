//! A connection that can be cut.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Passes bytes to a server and back, until it is told to cut what is open.
pub(super) struct Proxy {
    address: SocketAddr,
    cut: tokio::sync::broadcast::Sender<()>,
    losses: Arc<Losses>,
    connections: Arc<AtomicUsize>,
    stop: CancellationToken,
    _guard: DropGuard,
}

/// The answers that are to be lost, and how.
#[derive(Default)]
struct Losses {
    left: AtomicUsize,
    /// Whether most of the answer arrives.
    late: Mutex<bool>,
    /// Who is told of the last one.
    last: Mutex<Option<CancellationToken>>,
}

impl Losses {
    /// How much of an answer's piece passes, where this is one to be lost.
    fn take(&self, piece: &[u8]) -> Option<usize> {
        let lost = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).ok()?;
        if lost == 1
            && let Some(last) = self.last.lock().expect("not poisoned").take()
        {
            last.cancel();
        }
        Some(if *self.late.lock().expect("not poisoned") { piece.len() - 1 } else { 0 })
    }
}

impl Proxy {
    pub(super) async fn start(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (cut, _) = tokio::sync::broadcast::channel(1);
        let (losses, connections, stop) = (Arc::<Losses>::default(), Arc::default(), CancellationToken::new());
        let proxy = Self {
            address,
            cut: cut.clone(),
            losses: Arc::clone(&losses),
            connections: Arc::clone(&connections),
            stop: stop.clone(),
            _guard: stop.clone().drop_guard(),
        };
        tokio::spawn(async move {
            while let Some(Ok((inner, _))) = stop.run_until_cancelled(listener.accept()).await {
                connections.fetch_add(1, Ordering::SeqCst);
                let (server, mut cut, losses) = (server.clone(), cut.subscribe(), Arc::clone(&losses));
                tokio::spawn(async move {
                    tokio::select! {
                        () = pass(inner, server, losses) => {}
                        _ = cut.recv() => {}
                    }
                });
            }
        });
        proxy
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Cuts every connection that is open.
    pub(super) fn cut(&mut self) {
        // Nothing may be open.
        let _ = self.cut.send(());
    }

    /// Cuts as many connections at the first byte of an answer.
    pub(super) fn lose_answers(&mut self, count: usize) {
        self.losses.left.store(count, Ordering::SeqCst);
    }

    /// Cuts as many connections before the last byte of an answer.
    pub(super) fn lose_ends_of_answers(&mut self, count: usize) {
        *self.losses.late.lock().expect("not poisoned") = true;
        self.lose_answers(count);
    }

    /// Cuts a connection at the first byte of an answer, and is gone from then on.
    pub(super) fn lose_an_answer_and_vanish(&mut self) {
        *self.losses.last.lock().expect("not poisoned") = Some(self.stop.clone());
        self.lose_answers(1);
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn pass(mut inner: TcpStream, server: String, losses: Arc<Losses>) {
    let mut outer = TcpStream::connect(server).await.expect("the server is up");
    let (mut there, mut back) = ([0; 16 << 10], [0; 16 << 10]);
    loop {
        tokio::select! {
            read = inner.read(&mut there) => match read {
                Ok(count @ 1..) => outer.write_all(&there[..count]).await.expect("written"),
                _ => return,
            },
            read = outer.read(&mut back) => match read {
                Ok(count @ 1..) => {
                    let lost = losses.take(&back[..count]);
                    if inner.write_all(&back[..lost.unwrap_or(count)]).await.is_err() || lost.is_some() {
                        return;
                    }
                }
                _ => return,
            },
        }
    }
}
