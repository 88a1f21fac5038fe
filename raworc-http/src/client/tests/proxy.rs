//! A connection that can be cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Passes bytes to a server and back, until it is told to cut what is open.
pub(super) struct Proxy {
    address: SocketAddr,
    cut: tokio::sync::broadcast::Sender<()>,
    lose: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    _stop: DropGuard,
}

impl Proxy {
    pub(super) async fn start(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (cut, _) = tokio::sync::broadcast::channel(1);
        let (lose, connections, stop) = (Arc::<AtomicUsize>::default(), Arc::default(), CancellationToken::new());
        let proxy = Self {
            address,
            cut: cut.clone(),
            lose: Arc::clone(&lose),
            connections: Arc::clone(&connections),
            _stop: stop.clone().drop_guard(),
        };
        tokio::spawn(async move {
            while let Some(Ok((inner, _))) = stop.run_until_cancelled(listener.accept()).await {
                connections.fetch_add(1, Ordering::SeqCst);
                let (server, mut cut, lose) = (server.clone(), cut.subscribe(), Arc::clone(&lose));
                tokio::spawn(async move {
                    tokio::select! {
                        () = pass(inner, server, lose) => {}
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
        self.lose.store(count, Ordering::SeqCst);
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn pass(mut inner: TcpStream, server: String, lose: Arc<AtomicUsize>) {
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
                    if lose.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                        return;
                    }
                    if inner.write_all(&back[..count]).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
        }
    }
}
