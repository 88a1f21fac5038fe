//! What stands between processes and their database, and can be slow or stand still.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// How what comes is passed on.
#[derive(Debug, Clone, Copy)]
enum Pace {
    /// Each piece after so long.
    After(Duration),
    /// Not at all, and nobody is told.
    Never,
}

/// Passes on what comes.
pub(crate) struct Relay {
    pace: watch::Sender<Pace>,
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
        let pace = watch::Sender::new(Pace::After(Duration::ZERO));
        runtime.spawn(pass_on(listener, to.to_owned(), pace.subscribe()));
        Self { pace, url, _runtime: runtime }
    }

    /// The address of the database by this way.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn stand_still(&self) {
        self.pace.send_replace(Pace::Never);
    }

    /// Passes on what was held back too, and each piece from now on after so long.
    pub(crate) fn go_on_after(&self, delay: Duration) {
        self.pace.send_replace(Pace::After(delay));
    }
}

async fn pass_on(listener: TcpListener, to: String, pace: watch::Receiver<Pace>) -> io::Result<()> {
    loop {
        let (client, _) = listener.accept().await?;
        let (to, pace) = (to.clone(), pace.clone());
        tokio::spawn(async move {
            let server = TcpStream::connect(to).await?;
            for stream in [&client, &server] {
                stream.set_nodelay(true)?;
            }
            let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
            tokio::select! {
                ended = copy(from_client, to_server, pace.clone()) => ended,
                ended = copy(from_server, to_client, pace) => ended,
            }
        });
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut pace: watch::Receiver<Pace>) -> io::Result<()> {
    let mut bytes = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut bytes).await?;
        if read == 0 {
            return Ok(());
        }
        let delay = match pace.wait_for(|pace| !matches!(pace, Pace::Never)).await.map(|pace| *pace) {
            Ok(Pace::After(delay)) => delay,
            Ok(Pace::Never) | Err(_) => return Ok(()),
        };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        to.write_all(&bytes[..read]).await?;
    }
}
