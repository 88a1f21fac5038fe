//! What stands between processes and their database, and can stand still.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// Passes on what comes, unless it is to stand still: then nothing is answered, and nobody is told.
pub(crate) struct Relay {
    still: watch::Sender<bool>,
    url: String,
    _runtime: Runtime,
}

impl Relay {
    /// One before the database at this address.
    pub(crate) fn before(url: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let (user, rest) = url.rsplit_once('@').expect("a user");
        let (to, name) = rest.split_once('/').expect("a database");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let url = format!("{user}@{}/{name}", listener.local_addr().expect("its address"));
        let still = watch::Sender::new(false);
        runtime.spawn(pass_on(listener, to.to_owned(), still.subscribe()));
        Self { still, url, _runtime: runtime }
    }

    /// The address of the database by this way.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn stand_still(&self, still: bool) {
        self.still.send_replace(still);
    }
}

async fn pass_on(listener: TcpListener, to: String, still: watch::Receiver<bool>) -> io::Result<()> {
    loop {
        let (client, _) = listener.accept().await?;
        let (to, still) = (to.clone(), still.clone());
        tokio::spawn(async move {
            let server = TcpStream::connect(to).await?;
            for stream in [&client, &server] {
                stream.set_nodelay(true)?;
            }
            let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
            tokio::select! {
                ended = copy(from_client, to_server, still.clone()) => ended,
                ended = copy(from_server, to_client, still) => ended,
            }
        });
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut still: watch::Receiver<bool>) -> io::Result<()> {
    let mut bytes = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut bytes).await?;
        if read == 0 || still.wait_for(|still| !still).await.is_err() {
            return Ok(());
        }
        to.write_all(&bytes[..read]).await?;
    }
}
