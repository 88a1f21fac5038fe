//! What stands before several servers, with one address for all of them.

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use crate::up::Up;

/// Leads each connection to the first server that takes it.
pub(crate) struct Balancer {
    url: String,
    _runtime: Runtime,
}

impl Balancer {
    pub(crate) fn before(servers: &[Up]) -> Self {
        let address = |server: &Up| server.url.strip_prefix("http://").expect("an address").to_owned();
        let servers: Vec<_> = servers.iter().map(address).collect();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass_on(client, servers.clone()));
            }
        });
        Self { url, _runtime: runtime }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

async fn pass_on(mut client: TcpStream, servers: Vec<String>) {
    for server in servers {
        if let Ok(mut server) = TcpStream::connect(server).await {
            // Whichever end is gone, the other one hears of it.
            let _ = copy_bidirectional(&mut client, &mut server).await;
            return;
        }
    }
}
