//! Where the agents' listeners are, and how they are dialled.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// How long dialling may take.
const DIAL_LIMIT: Duration = Duration::from_secs(5);

/// The same where there are others that may answer sooner.
const TURN_LIMIT: Duration = Duration::from_secs(1);

/// How the name of a server's socket ends.
const SOCKET: &str = "sock";

/// An address in the boot line that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the agents' listener cannot be at {url:?}: {reason}")]
pub(crate) struct BadAddress {
    url: String,
    reason: String,
}

/// A connection, whatever it runs over.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Where one listener is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Unix(PathBuf),
    Tls(SocketAddr),
}

/// Where the listeners of an installation's servers are. All of them serve alike.
pub(crate) struct Target {
    places: Vec<Place>,
    /// How certificates are checked, where there are any.
    connector: Option<TlsConnector>,
    /// Where the next connection is made first.
    next: Mutex<Option<Next>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Where the last one was made.
    At(Place),
    /// At the one that comes after this in turn.
    After(Place),
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.places).finish()
    }
}

impl Target {
    /// Reads `unix:/path`, the path of a socket or of a directory of them, or `https://ip:port`, several of them with commas
    /// between.
    pub(crate) fn parse(url: &str, ca: Option<&str>) -> Result<Self, BadAddress> {
        let bad = |reason: String| BadAddress { url: url.to_owned(), reason };
        let place = |url: &str| match (url.strip_prefix("unix:"), url.strip_prefix("https://")) {
            (Some(path), _) => Ok(Place::Unix(path.into())),
            (None, Some(address)) => {
                let address = address.trim_end_matches('/').parse();
                address.map(Place::Tls).map_err(|_| bad("no names are resolved here; write https://ip:port".into()))
            }
            (None, None) => Err(bad("write unix:/path or https://ip:port".into())),
        };
        // A path may hold a comma.
        let places = if url.starts_with("unix:") {
            vec![place(url)?]
        } else {
            url.split(',').map(place).collect::<Result<Vec<_>, _>>()?
        };
        let secured = places.iter().any(|place| matches!(place, Place::Tls(_)));
        let connector = if secured { Some(connector(ca).map_err(bad)?) } else { None };
        Ok(Self { places, connector, next: Mutex::default() })
    }

    /// Makes a connection: to the listener that was the last to answer, else to another one.
    pub(crate) async fn dial(&self) -> io::Result<Box<dyn Stream>> {
        let places = self.in_turn().await?;
        // Where all are slow, as they are when one that died has left its programs to the others, each is given its time.
        let limits: &[Duration] = if places.len() > 1 { &[TURN_LIMIT, DIAL_LIMIT] } else { &[DIAL_LIMIT] };
        let mut last = None;
        for limit in limits {
            for place in &places {
                let dialled = tokio::time::timeout(*limit, self.dial_at(place)).await;
                match dialled.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                    Ok(stream) => {
                        *self.next() = Some(Next::At(place.clone()));
                        return Ok(stream);
                    }
                    Err(error) => last = Some(error),
                }
            }
        }
        Err(last.unwrap_or_else(|| io::ErrorKind::NotFound.into()))
    }

    fn next(&self) -> MutexGuard<'_, Option<Next>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The listener that was the last to answer does not serve: the next connection is made at another first.
    pub(crate) fn turn(&self) {
        let mut next = self.next();
        *next = match next.take() {
            Some(Next::At(place) | Next::After(place)) => Some(Next::After(place)),
            None => None,
        };
    }

    /// Every listener that there is now, from the one that was the last to answer on; where none was yet, from any of them:
    /// programs spread over the servers by that.
    async fn in_turn(&self) -> io::Result<Vec<Place>> {
        let mut places = Vec::new();
        for place in &self.places {
            match place {
                Place::Unix(path) if tokio::fs::metadata(path).await?.is_dir() => {
                    places.extend(sockets_in(path).await?);
                }
                place => places.push(place.clone()),
            }
        }
        let position = |place: &Place| places.iter().position(|other| other == place);
        let first = match &*self.next() {
            Some(Next::At(place)) => position(place),
            Some(Next::After(place)) => position(place).map(|position| (position + 1) % places.len()),
            None => None,
        };
        let first = match first {
            Some(first) => first,
            None if places.len() > 1 => RandomState::new().hash_one(0) as usize % places.len(),
            None => 0,
        };
        places.rotate_left(first);
        Ok(places)
    }

    async fn dial_at(&self, place: &Place) -> io::Result<Box<dyn Stream>> {
        match (place, &self.connector) {
            (Place::Unix(path), _) => Ok(Box::new(UnixStream::connect(path).await?)),
            (Place::Tls(address), Some(connector)) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let name = ServerName::IpAddress(address.ip().into());
                Ok(Box::new(connector.connect(name, stream).await?))
            }
            // There is one wherever there is such an address.
            (Place::Tls(_), None) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

async fn sockets_in(directory: &Path) -> io::Result<Vec<Place>> {
    let (mut entries, mut sockets) = (tokio::fs::read_dir(directory).await?, Vec::new());
    while let Some(entry) = entries.next_entry().await? {
        let path = entry.path();
        if path.extension().is_some_and(|ending| ending == SOCKET) {
            sockets.push(path);
        }
    }
    sockets.sort_unstable();
    Ok(sockets.into_iter().map(Place::Unix).collect())
}

fn connector(ca: Option<&str>) -> Result<TlsConnector, String> {
    let ca = ca.ok_or("the authority of its certificate is missing in the boot line")?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        let certificate = certificate.map_err(|error| format!("its authority is no PEM: {error}"))?;
        roots.add(certificate).map_err(|error| format!("its authority is no certificate: {error}"))?;
    }
    if roots.is_empty() {
        return Err("its authority is empty".into());
    }
    // Named, for the process may hold other providers.
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::net::UnixListener;

    use super::*;

    #[test]
    fn names_and_plain_http_are_refused_with_the_way_out() {
        for (url, says) in [
            ("https://raworc.example:9001", "no names are resolved"),
            ("http://127.0.0.1:9001", "unix:/path or https://ip:port"),
            ("https://127.0.0.1:9001", "authority of its certificate is missing"),
        ] {
            let error = Target::parse(url, None).expect_err(url);
            assert!(error.to_string().contains(says), "{error}");
        }
        let error = Target::parse("https://127.0.0.1:1", Some("nonsense")).expect_err("no certificate");
        assert!(error.to_string().contains("authority is empty"), "{error}");
    }

    /// Accepts one connection after another, and counts them.
    fn answering(path: &Path) -> Arc<AtomicUsize> {
        let (listener, count) = (UnixListener::bind(path).expect("a socket"), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&count);
        tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        count
    }

    #[tokio::test]
    async fn a_program_stays_with_its_server_and_goes_to_another_once_that_is_gone() {
        let directory = tempfile::tempdir().expect("a directory");
        let target = Target::parse(&format!("unix:{}", directory.path().display()), None).expect("an address");
        let Err(error) = target.dial().await else { panic!("nobody listens") };
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        // What a server that was killed left behind, and what is no socket's.
        drop(UnixListener::bind(directory.path().join("0.sock")).expect("a socket"));
        std::fs::write(directory.path().join("notes"), "").expect("written");
        let first = answering(&directory.path().join("1.sock"));
        for _ in 0..3 {
            target.dial().await.map(drop).expect("it answers");
        }
        let second = answering(&directory.path().join("2.sock"));
        target.dial().await.map(drop).expect("it answers");
        assert_eq!(*target.next(), Some(Next::At(Place::Unix(directory.path().join("1.sock")))));
        std::fs::remove_file(directory.path().join("1.sock")).expect("removed");
        target.dial().await.map(drop).expect("the other answers");
        assert_eq!(*target.next(), Some(Next::At(Place::Unix(directory.path().join("2.sock")))));
        let accepted = || first.load(Ordering::Relaxed) + second.load(Ordering::Relaxed);
        while accepted() < 5 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn programs_spread_over_servers() {
        let directory = tempfile::tempdir().expect("a directory");
        let servers = ["a.sock", "b.sock"].map(|name| answering(&directory.path().join(name)));
        for _ in 0..200 {
            let target = Target::parse(&format!("unix:{}", directory.path().display()), None).expect("an address");
            target.dial().await.map(drop).expect("one answers");
            if servers.iter().all(|server| server.load(Ordering::Relaxed) > 0) {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("one server has all: {servers:?}");
    }
}
