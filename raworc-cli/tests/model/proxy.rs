//! What stands between the gateway and the model: it passes bytes on as they are, remembers them, and can be cut.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A way to a model.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: Mutex<SocketAddr>,
    connections: Mutex<Vec<Arc<Connection>>>,
    /// Counts the cuts.
    cuts: watch::Sender<u64>,
}

/// One connection of the gateway to the model.
#[derive(Default)]
struct Connection {
    said: Mutex<Said>,
}

#[derive(Default)]
struct Said {
    asked: Vec<u8>,
    answered: Vec<u8>,
    hung_up: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics while holding this")
}

impl Proxy {
    pub(crate) async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared =
            Arc::new(Shared { target: Mutex::new(target), connections: Mutex::default(), cuts: watch::Sender::new(0) });
        tokio::spawn(serve(listener, Arc::clone(&shared)));
        Self { address, shared }
    }

    /// Connections from now on lead to this server.
    pub(crate) fn lead_to(&self, target: SocketAddr) {
        *lock(&self.shared.target) = target;
    }

    /// Cuts what is open.
    pub(crate) fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    fn all<T>(&self, read: impl Fn(&Said) -> T) -> Vec<T> {
        lock(&self.shared.connections).iter().map(|connection| read(&lock(&connection.said))).collect()
    }

    /// Whether the gateway has hung up on an answer that was not at its end.
    pub(crate) fn was_hung_up_on(&self) -> bool {
        // A whole answer ends with an empty chunk.
        self.all(|said| said.hung_up && !said.answered.ends_with(b"\r\n0\r\n\r\n")).contains(&true)
    }

    /// The requests, in the order in which their connections were made.
    pub(crate) fn requests(&self) -> Vec<Value> {
        self.all(|said| bodies(&said.asked)).concat()
    }

    /// Tokens that the model's server says it has read and written, over all answers.
    pub(crate) fn usage(&self) -> (u64, u64) {
        let all = self.all(|said| usages(&String::from_utf8_lossy(&said.answered))).concat();
        all.iter().fold((0, 0), |(read, written), usage| {
            let count = |name: &str| usage[name].as_u64().expect("a count");
            (read + count("prompt_tokens"), written + count("completion_tokens"))
        })
    }
}

/// The bodies of the requests of one connection.
fn bodies(mut asked: &[u8]) -> Vec<Value> {
    let mut bodies = Vec::new();
    while let Some(end) = asked.windows(4).position(|window| window == b"\r\n\r\n") {
        let head = String::from_utf8_lossy(&asked[..end]).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        let whole = end + 4 + length.unwrap_or(0);
        if whole > asked.len() {
            break;
        }
        bodies.push(serde_json::from_slice(&asked[end + 4..whole]).expect("a request is JSON"));
        asked = &asked[whole..];
    }
    bodies
}

fn usages(answered: &str) -> Vec<Value> {
    let after = answered.split("\"usage\":").skip(1);
    let values = after.filter_map(|rest| serde_json::Deserializer::from_str(rest).into_iter().next()?.ok());
    values.filter(Value::is_object).collect()
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let (client, _) = listener.accept().await.expect("a connection");
        let connection = Arc::<Connection>::default();
        lock(&shared.connections).push(Arc::clone(&connection));
        let target = *lock(&shared.target);
        let mut cuts = shared.cuts.subscribe();
        tokio::spawn(async move {
            // Where nobody listens, the gateway finds its connection closed.
            let Ok(server) = TcpStream::connect(target).await else { return };
            tokio::select! {
                () = pass(client, server, &connection) => {}
                _ = cuts.changed() => {}
            }
        });
    }
}

/// Passes both ways on until one side closes.
async fn pass(client: TcpStream, server: TcpStream, connection: &Connection) {
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let up = async {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from_client.read(&mut bytes).await {
            lock(&connection.said).asked.extend_from_slice(&bytes[..read]);
            if to_server.write_all(&bytes[..read]).await.is_err() {
                return;
            }
        }
        lock(&connection.said).hung_up = true;
    };
    let down = async {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from_server.read(&mut bytes).await {
            lock(&connection.said).answered.extend_from_slice(&bytes[..read]);
            if to_client.write_all(&bytes[..read]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}
