//! What a commit costs beside the floor: a durable insert of a row of the same size, alone and in batches.
//!
//! `cargo bench -p raworc-backends --features sqlite --bench sqlite` runs five interleaved rounds of each. Times are in
//! milliseconds, rates in rows or commits a second, CPU in microseconds an operation, of this whole process.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use raworc_backends::sqlite::{SqliteOptions, SqliteStore};
use raworc_core::agent::AgentSpec;
use raworc_core::entropy::{Clock, EntropyExt, SystemClock, SystemEntropy};
use raworc_core::ids::{AgentId, AgentName, TenantName, UserName};
use raworc_core::message::{Part, Role};
use raworc_core::store::{AgentChange, AgentOp, Check, Commit, NewAgent, NewMessage, Store};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tokio::time::Instant;

const ROUNDS: usize = 5;
const AGENTS: usize = 100;
const TEXT: &str =
    "Please look at the report of last week, and tell me in three sentences what has changed since then. ";

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut floor = floor(&directory).await?;
    let store = Arc::new(SqliteStore::open(SqliteOptions::new(directory.path().join("store"))).await?);
    let agents: Arc<[AgentId]> = make_agents(&store).await?.into();
    println!("{:<34}{:>9}{:>9}{:>9}{:>11}{:>9}", "", "p50 ms", "p99 ms", "max ms", "per s", "CPU us");
    for round in 1..=ROUNDS {
        println!("round {round}");
        measure("  floor: insert, one at a time", || single_inserts(&mut floor, 500)).await?;
        measure("  floor: insert, 64 a transaction", || batched_inserts(&mut floor, 300)).await?;
        measure("  accept, one at a time", || accepts(&store, &agents, 1, 500)).await?;
        measure("  accept, 200 a second offered", || offered(&store, &agents, 400)).await?;
        measure("  accept, 64 callers", || accepts(&store, &agents, 64, 10_000)).await?;
        measure("  accept, 256 callers", || accepts(&store, &agents, 256, 20_000)).await?;
    }
    store.close().await;
    Ok(())
}

/// Times of operations, and how many rows each stands for.
struct Sample {
    times: Vec<Duration>,
    rows: usize,
}

async fn measure<F: Future<Output = Result<Sample>>>(name: &str, run: impl FnOnce() -> F) -> Result<()> {
    // Words after `--` choose among the measurements.
    let mut words = std::env::args().skip(1).filter(|word| !word.starts_with('-')).peekable();
    if words.peek().is_some() && !words.any(|word| name.contains(&word)) {
        return Ok(());
    }
    let (began, cpu) = (Instant::now(), cpu()?);
    let Sample { mut times, rows } = run().await?;
    let (took, cpu) = (began.elapsed(), self::cpu()?.saturating_sub(cpu));
    times.sort_unstable();
    let ms = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    let (rate, cpu) = (rows as f64 / took.as_secs_f64(), cpu.as_secs_f64() * 1e6 / rows as f64);
    println!("{name:<34}{:>9.2}{:>9.2}{:>9.2}{rate:>11.0}{cpu:>9.0}", ms(0.5), ms(0.99), ms(1.0));
    Ok(())
}

/// Time that this process has had on processors, in hundredths of a second.
fn cpu() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    Ok(Duration::from_millis(10 * ticks.sum::<std::result::Result<u64, _>>()?))
}

async fn floor(directory: &tempfile::TempDir) -> Result<SqliteConnection> {
    let options = SqliteConnectOptions::new()
        .filename(directory.path().join("floor.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .disable_statement_logging();
    let mut conn = SqliteConnection::connect_with(&options).await?;
    sqlx::query("CREATE TABLE t (id INTEGER PRIMARY KEY, doc TEXT NOT NULL)").execute(&mut conn).await?;
    Ok(conn)
}

async fn insert(conn: &mut SqliteConnection) -> Result<()> {
    // As long as the document of a message of the same text.
    sqlx::query("INSERT INTO t (doc) VALUES (?)").bind(TEXT.repeat(5)).execute(conn).await?;
    Ok(())
}

async fn single_inserts(conn: &mut SqliteConnection, count: usize) -> Result<Sample> {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let began = Instant::now();
        insert(conn).await?;
        times.push(began.elapsed());
    }
    Ok(Sample { times, rows: count })
}

async fn batched_inserts(conn: &mut SqliteConnection, batches: usize) -> Result<Sample> {
    let mut times = Vec::with_capacity(batches);
    for _ in 0..batches {
        let began = Instant::now();
        sqlx::query("BEGIN IMMEDIATE").execute(&mut *conn).await?;
        for _ in 0..64 {
            insert(conn).await?;
        }
        sqlx::query("COMMIT").execute(&mut *conn).await?;
        times.push(began.elapsed());
    }
    Ok(Sample { times, rows: 64 * batches })
}

fn commit(agent: AgentId, when: Check, op: AgentOp) -> Commit {
    Commit::of(SystemEntropy.commit_id(SystemClock.now()), AgentChange { agent, when: vec![when], ops: vec![op] })
}

async fn make_agents(store: &SqliteStore) -> Result<Vec<AgentId>> {
    let mut agents = Vec::new();
    for n in 0..AGENTS {
        let agent = SystemEntropy.agent_id(SystemClock.now());
        let new = NewAgent {
            tenant: TenantName::default_tenant(),
            name: AgentName::new(format!("agent-{n}"))?,
            owner: UserName::new("ada")?,
            spec: AgentSpec::default(),
        };
        store.commit(commit(agent, Check::Absent, AgentOp::Create(Box::new(new)))).await?;
        agents.push(agent);
    }
    Ok(agents)
}

async fn accept(store: &SqliteStore, agent: AgentId) -> Result<Duration> {
    let new = NewMessage {
        id: SystemEntropy.message_id(SystemClock.now()),
        role: Role::User,
        author: "user:ada".into(),
        parts: vec![Part::text(TEXT)],
        traceparent: None,
    };
    let began = Instant::now();
    store.commit(commit(agent, Check::Alive, AgentOp::Accept(new))).await?;
    Ok(began.elapsed())
}

/// So many callers, each with one message at a time.
async fn accepts(store: &Arc<SqliteStore>, agents: &Arc<[AgentId]>, callers: usize, count: usize) -> Result<Sample> {
    let next = Arc::new(AtomicUsize::new(0));
    let tasks = (0..callers).map(|_| {
        let (store, agents, next) = (Arc::clone(store), Arc::clone(agents), Arc::clone(&next));
        tokio::spawn(async move {
            let mut times = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= count {
                    return Ok::<_, Box<dyn std::error::Error + Send + Sync>>(times);
                }
                times.push(accept(&store, agents[n % agents.len()]).await?);
            }
        })
    });
    let mut times = Vec::with_capacity(count);
    for task in tasks.collect::<Vec<_>>() {
        times.extend(task.await??);
    }
    Ok(Sample { times, rows: count })
}

/// One message every five milliseconds, whether or not those before it are done.
async fn offered(store: &Arc<SqliteStore>, agents: &Arc<[AgentId]>, count: usize) -> Result<Sample> {
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    let mut tasks = Vec::with_capacity(count);
    for n in 0..count {
        tick.tick().await;
        let (store, agent) = (Arc::clone(store), agents[n % agents.len()]);
        tasks.push(tokio::spawn(async move { accept(&store, agent).await }));
    }
    let mut times = Vec::with_capacity(count);
    for task in tasks {
        times.push(task.await??);
    }
    Ok(Sample { times, rows: count })
}
