//! The database of one test, and the machine that it stands on: what passes its bytes on can be cut off and frozen.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::network::{DATABASE, Network};
use super::node::ends_with_us;
use crate::databases::Database;

/// The port of the database's machine.
const PORT: u16 = 5432;

/// The way to the database.
#[derive(Debug)]
pub(crate) struct Relay {
    process: tokio::process::Child,
    passing: tokio::task::JoinHandle<io::Result<()>>,
    url: String,
}

impl Relay {
    /// Stands for the database on its machine.
    pub(crate) async fn start(network: &Network, database: &Database, home: &Path) -> Result<Self, String> {
        let url = database.url();
        let (user, rest) = url.rsplit_once('@').ok_or("the address of the database names no user")?;
        let (real, name) = rest.split_once('/').ok_or("the address of the database names none")?;
        let (address, socket) = (network.address(DATABASE, PORT), home.join("database.sock"));
        let listener = UnixListener::bind(&socket).map_err(|error| error.to_string())?;
        let passing = tokio::spawn(pass_on(listener, real.to_owned()));
        let mut command = ends_with_us(network, DATABASE, &std::env::current_exe().map_err(|error| error.to_string())?);
        command.arg("--relay").arg(address.to_string()).arg(&socket);
        let process = command.spawn().map_err(|error| error.to_string())?;
        Ok(Self { process, passing, url: format!("{user}@{address}/{name}") })
    }

    /// The address of the database, for those who are to have it by this way.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.id()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.passing.abort();
    }
}

async fn pass_on(listener: UnixListener, to: String) -> io::Result<()> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        let to = to.clone();
        tokio::spawn(async move {
            let mut database = TcpStream::connect(to).await?;
            database.set_nodelay(true)?;
            tokio::io::copy_bidirectional(&mut stream, &mut database).await
        });
    }
}

/// The process on the database's machine: passes on what comes at `address` to `socket`.
pub(crate) async fn relay(address: SocketAddr, socket: PathBuf) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        let socket = socket.clone();
        tokio::spawn(async move {
            stream.set_nodelay(true)?;
            let mut database = UnixStream::connect(socket).await?;
            tokio::io::copy_bidirectional(&mut stream, &mut database).await
        });
    }
}

/// Ends all connections to the database, as its administrator would.
pub(crate) async fn end_connections(database: &Database) -> Result<(), String> {
    let ended = if database.is_postgres() {
        let own = "datname = current_database() AND pid <> pg_backend_pid()";
        database.run(format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {own}")).await
    } else {
        database.end_connections().await
    };
    ended.map_err(|error| error.to_string())
}
