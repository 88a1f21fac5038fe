//! The installation that is measured: all of `raworc up`, on a simulated engine that starts a computer in 20 ms and stops
//! one in 5 ms, with programs that answer at once.

use std::sync::Arc;
use std::time::Duration;

use raworc_core::control::ControlPlane;
use raworc_core::entropy::{EntropyExt, SystemEntropy};
use raworc_core::ids::UserName;
use raworc_core::runtime::Runtimes;
use raworc_core::runtime::simulated::{Act, Latency, Profile, SimulatedAgent, SimulatedOptions, SimulatedRuntime};
use raworc_http::server::Tokens;
use secrecy::SecretString;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{AssemblyArgs, BenchServerArgs, ConfigArgs};
use crate::installation::Installation;
use crate::settings::Settings;

/// What the engine takes to start a computer.
pub(super) const START: Duration = Duration::from_millis(20);

/// What the engine takes to stop a computer.
pub(super) const STOP: Duration = Duration::from_millis(5);

/// An agent that is told this works until it is cancelled, so that what comes after it only waits.
pub(super) const HOLD: &str = "hold";

/// Serves until it is told to end, or whoever started it is gone.
///
/// # Errors
/// Where the configuration cannot be used.
pub async fn serve(args: BenchServerArgs) -> anyhow::Result<()> {
    let args = AssemblyArgs {
        config: ConfigArgs { config: Some(args.config) },
        data: Some(args.data),
        ..AssemblyArgs::default()
    };
    let program = SimulatedAgent::new(|message| match message.text() {
        text if text == HOLD => Act::Hang,
        text => Act::Answer(text),
    });
    let latency = Latency::default().with_start(START).with_stop(STOP);
    let options = SimulatedOptions::new(Profile::Container).with_latency(latency).with_program(program.clone());
    let runtimes = Runtimes::new().with(Arc::new(SimulatedRuntime::new(options)), "http://agents.invalid", None);
    let mut installation = Installation::start_on(Settings::load(&args)?, runtimes).await?;
    // No agent is there yet that could start before.
    program.connect(installation.control());
    announce(&installation).await?;
    tokio::select! {
        ended = installation.ended() => ended?,
        asked = asked_to_end() => asked?,
    }
    installation.shutdown().await;
    Ok(())
}

/// Says where it serves, and with which token, on one line.
#[expect(clippy::print_stdout, reason = "the line is read by the process that measures")]
async fn announce(installation: &Installation) -> anyhow::Result<()> {
    let control = installation.control();
    let token = token(control).await?;
    println!("{}", serde_json::json!({ "server": installation.url(), "token": token }));
    Ok(())
}

async fn token(control: &ControlPlane) -> anyhow::Result<String> {
    let admin = UserName::new("admin")?;
    let password: [u8; 16] = SystemEntropy.bytes();
    control.system().ensure_first_admin(&admin, SecretString::from(format!("{password:?}"))).await?;
    let principal = control.system().user_principal(&admin).await?;
    Ok(Tokens::new(control).issue(&principal, Duration::from_secs(24 * 3600))?.token)
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
