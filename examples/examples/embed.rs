//! The control plane inside a program of one's own, with the in-memory store and the simulated runtime.
//!
//! Run it: `cargo run -p raworc-examples --example embed`

use std::sync::Arc;
use std::time::Duration;

use raworc_core::control::{Call, ControlPlane, CreateAgent, History, Parts, SendMessage};
use raworc_core::entropy::SystemEntropy;
use raworc_core::ids::{AgentName, TenantName, UserName};
use raworc_core::operator::{Operator, OperatorSettings};
use raworc_core::principal::Principal;
use raworc_core::runtime::Runtimes;
use raworc_core::runtime::simulated::{Profile, SimulatedAgent, SimulatedOptions, SimulatedRuntime};
use raworc_core::seal::MasterKey;
use raworc_core::store::MemoryStore;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let text = ask("how are you?").await?;
    anyhow::ensure!(text == "how are you?", "the echo said {text:?}");
    Ok(())
}

async fn ask(text: &str) -> anyhow::Result<String> {
    let program = SimulatedAgent::echo();
    let runtime = SimulatedRuntime::new(SimulatedOptions::new(Profile::Container).with_program(program.clone()));
    let runtimes = Runtimes::new().with(Arc::new(runtime), "unix:/unused", None);
    let master_key = MasterKey::generate(&SystemEntropy);
    let parts = Parts::new(Arc::new(MemoryStore::default()), runtimes.clone(), master_key);
    let control = ControlPlane::start(parts).await?;
    program.connect(&control);
    let operator = Operator::start(&control, runtimes, OperatorSettings::default()).await?;

    let tenant = TenantName::default();
    let ada = Principal::User { name: UserName::new("ada")?, tenant: tenant.clone(), admin: false };
    let (call, name) = (Call::by(ada), AgentName::new("parrot")?);
    control.create_agent(&call, &tenant, CreateAgent { name: name.clone(), spec: Default::default() }).await?;
    let accepted = control.send(&call, &tenant, &name, SendMessage::text(text)).await?;
    control.wait_for_message(&call, &tenant, &name, accepted.message.id, Duration::from_secs(30)).await?;
    let history = control.history(&call, &tenant, &name, History::default()).await?;
    let reply = history.items.iter().find(|message| message.reply_to == Some(accepted.message.id));
    operator.shutdown().await;
    reply.map(|reply| reply.text()).ok_or_else(|| anyhow::anyhow!("no reply"))
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn an_embedded_control_plane_answers() {
        assert_eq!(super::ask("hello").await.expect("an answer"), "hello");
    }
}
