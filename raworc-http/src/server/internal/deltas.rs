//! Models' words that are told to other servers, for those who watch here.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use http::StatusCode;
use http_body_util::BodyExt;
use raworc_core::control::{Delta, Peer};
use raworc_core::ids::AgentId;
use tokio_util::codec::{FramedRead, LinesCodec};
use tokio_util::io::StreamReader;
use tokio_util::task::AbortOnDropHandle;

use super::Peers;
use super::peers::{Away, request};

/// How often it is looked which other servers there are, while somebody watches.
const LOOK: Duration = Duration::from_secs(5);

/// Bytes of a line: a delta has 128 KiB at most, of which each may take six in JSON.
const LINE: usize = 1 << 20;

/// Streams that are read, by whose words and where.
type Streams = BTreeMap<(AgentId, String), AbortOnDropHandle<()>>;

impl Peers {
    /// Reads, for as long as what this returns is held, what other servers are told of the agents that somebody watches here.
    pub fn follow_deltas(&self) -> AbortOnDropHandle<()> {
        AbortOnDropHandle::new(tokio::spawn(follow(self.clone())))
    }
}

async fn follow(peers: Peers) {
    let mut wanted = peers.control().system().feed().deltas().wanted();
    let mut streams = Streams::new();
    loop {
        let agents = wanted.now();
        // Whoever is not watched any more is read no longer; what has ended is begun anew.
        streams.retain(|(agent, _), stream| agents.contains(agent) && !stream.is_finished());
        if agents.is_empty() {
            if !wanted.changed().await {
                return;
            }
            continue;
        }
        match peers.control().system().other_servers().await {
            Ok(servers) => {
                for (agent, server) in
                    agents.iter().flat_map(|agent| servers.iter().map(move |server| (*agent, server)))
                {
                    streams.entry((agent, server.address.clone())).or_insert_with(|| {
                        AbortOnDropHandle::new(tokio::spawn(read(peers.clone(), server.clone(), agent)))
                    });
                }
            }
            Err(error) => tracing::debug!(%error, "the other servers cannot be read"),
        }
        tokio::select! {
            there = wanted.changed() => if !there { return },
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Reads to the end of the stream. They are best effort: what is lost with a connection is not asked for again.
async fn read(peers: Peers, server: Peer, agent: AgentId) {
    let Some(request) = request(&format!("/deltas/{agent}")) else { return };
    let answer: Result<_, Away> = peers.send("deltas", &server, request).await;
    let body = match answer {
        Ok(answer) if answer.status() == StatusCode::OK => answer.into_body().into_data_stream(),
        Ok(_) | Err(_) => return,
    };
    let lines =
        FramedRead::new(StreamReader::new(body.map_err(std::io::Error::other)), LinesCodec::new_with_max_length(LINE));
    let mut lines = std::pin::pin!(lines);
    while let Some(Ok(line)) = lines.next().await {
        match serde_json::from_str::<Delta>(&line) {
            Ok(delta) if delta.agent == agent => peers.control().system().feed().deltas().tell_of_elsewhere(delta),
            Ok(_) | Err(_) => return,
        }
    }
}
