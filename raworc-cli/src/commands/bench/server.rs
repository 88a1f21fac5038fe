//! The installation that is measured: SQLite, the operator and the API as `raworc up` has them, on a simulated engine
//! that starts a computer in 20 ms and stops one in 5 ms, with programs that answer at once.

use std::sync::Arc;
use std::time::Duration;

use raworc_backends::sqlite::{SqliteOptions, SqliteStore};
use raworc_core::control::{ControlPlane, Parts};
use raworc_core::entropy::{EntropyExt, SystemEntropy};
use raworc_core::ids::UserName;
use raworc_core::operator::{Operator, OperatorSettings};
use raworc_core::runtime::Runtimes;
use raworc_core::runtime::simulated::{Act, Latency, Profile, SimulatedAgent, SimulatedOptions, SimulatedRuntime};
use raworc_core::seal::MasterKey;
use raworc_http::server::{Options, Tokens, router};
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::BenchServerArgs;

/// What the engine takes to start a computer.
pub(super) const START: Duration = Duration::from_millis(20);

/// What the engine takes to stop a computer.
pub(super) const STOP: Duration = Duration::from_millis(5);

/// An agent that is told this works until it is cancelled, so that what comes after it only waits.
pub(super) const HOLD: &str = "hold";

/// Serves until it is told to end, or whoever started it is gone.
///
/// # Errors
/// Where the data directory cannot be used.
pub async fn serve(args: BenchServerArgs) -> anyhow::Result<()> {
    let store = Arc::new(SqliteStore::open(SqliteOptions::new(&args.data)).await?);
    let program = SimulatedAgent::new(|message| match message.text() {
        text if text == HOLD => Act::Hang,
        text => Act::Answer(text),
    });
    let latency = Latency::default().with_start(START).with_stop(STOP);
    let options = SimulatedOptions::new(Profile::Container).with_latency(latency).with_program(program.clone());
    let runtimes = Runtimes::new().with(Arc::new(SimulatedRuntime::new(options)), "http://agents.invalid", None);
    let key = MasterKey::generate(&SystemEntropy);
    let control = ControlPlane::start(Parts::new(store.clone(), runtimes.clone(), key)).await?;
    program.connect(&control);
    let operator = Operator::start(&control, runtimes, OperatorSettings::default()).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    announce(&control, &listener).await?;
    let options = Options::default();
    let closing = options.closing.clone();
    let api =
        tokio::spawn(raworc_http::server::serve(listener, router(control, options), closing.clone().cancelled_owned()));
    asked_to_end().await?;
    closing.cancel();
    api.await??;
    operator.shutdown().await;
    store.close().await;
    Ok(())
}

/// Says where it serves, and with which token, on one line.
#[expect(clippy::print_stdout, reason = "the line is read by the process that measures")]
async fn announce(control: &ControlPlane, listener: &TcpListener) -> anyhow::Result<()> {
    let admin = UserName::new("admin")?;
    let password: [u8; 16] = SystemEntropy.bytes();
    control.system().ensure_first_admin(&admin, SecretString::from(format!("{password:?}"))).await?;
    let principal = control.system().user_principal(&admin).await?;
    let token = Tokens::new(control).issue(&principal, Duration::from_secs(24 * 3600))?.token;
    let server = format!("http://{}", listener.local_addr()?);
    println!("{}", serde_json::json!({ "server": server, "token": token }));
    Ok(())
}

async fn asked_to_end() -> anyhow::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = term.recv() => {}
        // Standard input is a pipe from the process that measures, which never writes.
        () = input_ended() => {}
    }
    Ok(())
}

async fn input_ended() {
    let mut nothing = [0; 1];
    let _ = tokio::io::AsyncReadExt::read(&mut tokio::io::stdin(), &mut nothing).await;
}
