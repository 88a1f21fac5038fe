//! A stream through the proxy of a closed computer, beside one through a proxy of a few lines on this machine's loopback.
//!
//! Both have the same client, a shell that counts bytes or makes them, and the same end, so that what differs is the
//! way: the program in the computer and the server, instead of one process.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use raworc_core::agent::{AgentSpec, EgressRule, Network};
use raworc_core::control::CreateAgent;
use raworc_core::ids::AgentName;
use raworc_core::program::ExecRequest;
use raworc_http::client::{Ask, Client};
use secrecy::SecretString;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy_bidirectional_with_sizes};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::figures::{Bound, Figure};
use super::process::Process;
use crate::args::BenchArgs;
use crate::output::Console;

/// Bytes of one stream.
const SIZE: u64 = 1 << 30;

/// How long one stream may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// Where the end of the streams is: on this machine, by an address that no program takes for its own computer's.
const PLACE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Bytes that are under way in each direction through the floor's proxy, as many as through ours.
const BUFFER: usize = 64 << 10;

/// Tells a proxy where to go. `$1` is the proxy, `$2` the end.
const CONNECT: &str = r#"exec 3<>"/dev/tcp/${1%:*}/${1#*:}"; printf 'CONNECT %s HTTP/1.1\r\nhost: %s\r\n\r\n' "$2" "$2" >&3
while read -r line <&3 && [ "$line" != $'\r' ]; do case $line in HTTP*) set -- "$1" "$2" "$line" "$4";; esac; done
case $3 in *" 200 "*) ;; *) echo "$3" >&2; exit 1;; esac
"#;

/// Says that it reads, and counts what comes.
const DOWN: &str = "printf d >&3; wc -c <&3";

/// Says that it writes, and passes on what the end says of it.
const UP: &str = "printf u >&3; head -c \"$4\" /dev/zero >&3; read -r count <&3; echo \"$count\"";

#[derive(Default)]
struct Rates {
    down: Vec<(f64, f64)>,
    up: Vec<(f64, f64)>,
}

pub(super) async fn measure(console: &Console, args: &BenchArgs, dir: &Path) -> anyhow::Result<Vec<Figure>> {
    let progress = console.progress("starting");
    let mut serving = JoinSet::new();
    let end = listen(&mut serving, (PLACE, 0).into(), end).await?;
    let floor = listen(&mut serving, (Ipv4Addr::LOCALHOST, 0).into(), proxy).await?;
    let (data, config) = (dir.join("egress"), dir.join("egress.toml"));
    std::fs::write(&config, format!("[[egress.private]]\nhost = \"{PLACE}\"\nranges = [\"{PLACE}/32\"]\n"))?;
    let server = Process::up(&data, Some(&config)).await?;
    let client = server.client()?;
    let password = std::fs::read_to_string(data.join("admin-password")).context("the admin has no password")?;
    let token = client.login("admin", &SecretString::from(password.trim())).await?.token;
    let ours = Ours::prepare(client.with_token(token), end).await?;
    let mut rates = Rates::default();
    for round in 1..=args.rounds {
        progress.say(format!("round {round} of {}", args.rounds));
        for (script, rates) in [(DOWN, &mut rates.down), (UP, &mut rates.up)] {
            let script = format!("{CONNECT}{script}");
            let beside = rate(here(&script, floor, end)).await?;
            rates.push((rate(ours.run(&script)).await?, beside));
        }
    }
    drop(progress);
    server.end().await?;
    let bound = Bound::AtLeast { floors: 0.5 };
    Ok(vec![
        Figure::beside("egress, one stream of 1 GiB in", "MiB/s", &rates.down, bound),
        Figure::beside("egress, one stream of 1 GiB out", "MiB/s", &rates.up, bound),
    ])
}

/// The rate at which something moves a stream, which tells how many bytes it counted.
async fn rate(stream: impl Future<Output = anyhow::Result<String>>) -> anyhow::Result<f64> {
    let began = Instant::now();
    let counted = stream.await?;
    anyhow::ensure!(counted.trim() == SIZE.to_string(), "{counted:?} bytes came through, not {SIZE}");
    Ok(SIZE as f64 / f64::from(1 << 20) / began.elapsed().as_secs_f64())
}

fn words(script: &str, proxy: &str, end: SocketAddr) -> [String; 8] {
    ["bash", "-c", script, "stream", proxy, &end.to_string(), "", &SIZE.to_string()].map(str::to_owned)
}

/// Runs the client on this machine.
async fn here(script: &str, proxy: SocketAddr, end: SocketAddr) -> anyhow::Result<String> {
    let [program, arguments @ ..] = words(script, &proxy.to_string(), end);
    let output = tokio::time::timeout(PATIENCE, Command::new(program).args(arguments).output()).await??;
    anyhow::ensure!(output.status.success(), "the client failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// The client in a closed computer.
struct Ours {
    client: Client,
    agent: AgentName,
    end: SocketAddr,
    proxy: String,
}

impl Ours {
    async fn prepare(client: Client, end: SocketAddr) -> anyhow::Result<Self> {
        let rule = EgressRule { host: PLACE.to_string(), ports: vec![end.port()] };
        let network = Network { egress: vec![rule], ..Network::default() };
        let agent = AgentName::new("egress")?;
        let new = CreateAgent { name: agent.clone(), spec: AgentSpec { network, ..AgentSpec::default() } };
        client.create_agent(&new, Ask::new().wait_secs(60)).await?;
        let mut ours = Self { client, agent, end, proxy: String::new() };
        let told = ours.exec(["sh", "-c", "echo ${http_proxy#http://}"].map(str::to_owned).to_vec()).await?;
        told.trim().clone_into(&mut ours.proxy);
        Ok(ours)
    }

    async fn run(&self, script: &str) -> anyhow::Result<String> {
        self.exec(words(script, &self.proxy, self.end).to_vec()).await
    }

    async fn exec(&self, command: Vec<String>) -> anyhow::Result<String> {
        let request = ExecRequest { command, ..ExecRequest::default() };
        let ran = self.client.run(&self.agent, &request, PATIENCE).await?;
        anyhow::ensure!(ran.exit_code == Some(0), "the client in the computer failed: {}", ran.stderr);
        Ok(ran.stdout)
    }
}

/// Serves whoever comes, until the set is dropped.
async fn listen<F: Future<Output = io::Result<()>> + Send + 'static>(
    serving: &mut JoinSet<()>,
    address: SocketAddr,
    serve: fn(TcpStream) -> F,
) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    serving.spawn(async move {
        let mut streams = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            // A client that leaves early is told by what it counted.
            streams.spawn(serve(stream));
        }
    });
    Ok(address)
}

/// The end of a stream: it writes one, or reads one and says how long it was.
async fn end(mut stream: TcpStream) -> io::Result<()> {
    let mut piece = vec![0; 256 << 10];
    if stream.read_u8().await? == b'd' {
        for _ in 0..SIZE / piece.len() as u64 {
            stream.write_all(&piece).await?;
        }
        return stream.shutdown().await;
    }
    let mut left = SIZE;
    while left > 0 {
        let read = stream.read(&mut piece).await?;
        if read == 0 {
            return Ok(());
        }
        left = left.saturating_sub(read as u64);
    }
    stream.write_all(format!("{SIZE}\n").as_bytes()).await
}

/// The floor: the least that a proxy does.
async fn proxy(stream: TcpStream) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let end = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut onward = TcpStream::connect(end).await?;
    onward.set_nodelay(true)?;
    let mut stream = stream.into_inner();
    stream.set_nodelay(true)?;
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    copy_bidirectional_with_sizes(&mut stream, &mut onward, BUFFER, BUFFER).await.map(drop)
}
