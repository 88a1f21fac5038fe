//! The control plane inside a program of one's own, with the in-memory store and the simulated runtime.
//!
//! Run it: `cargo run -p raworc-examples --example embed`

use std::time::Duration;

use raworc_core::control::{Call, ControlPlane, CreateAgent, Parts, SendMessage};
use raworc_core::ids::{AgentName, TenantName, UserName};
use raworc_core::operator::{Operator, OperatorSettings};
use raworc_core::principal::Principal;
use raworc_core::runtime::simulated::SimulatedAgent;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let text = ask("how are you?").await?;
    anyhow::ensure!(text == "how are you?", "the echo said {text:?}");
    Ok(())
}

async fn ask(text: &str) -> anyhow::Result<String> {
    let program = SimulatedAgent::echo();
    let parts = Parts::in_memory(&program);
    let runtimes = parts.runtimes.clone();
    let control = ControlPlane::start(parts).await?;
    program.connect(&control);
    let operator = Operator::start(&control, runtimes, OperatorSettings::default()).await?;

    let (tenant, name) = (TenantName::default(), AgentName::new("parrot")?);
    let call = Call::by(Principal::user(UserName::new("ada")?, tenant.clone()));
    control.create_agent(&call, &tenant, CreateAgent::named(name.clone())).await?;
    let answered = control.ask(&call, &tenant, &name, SendMessage::text(text), Duration::from_secs(30)).await?;

    operator.shutdown().await;
    let reply = answered.reply.ok_or_else(|| anyhow::anyhow!("no reply to {:?}", answered.message))?;
    Ok(reply.text())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_readme_shows_this_program() {
        let readme = include_str!("../../README.md");
        let (_, shown) = readme.split_once("```rust\n").expect("a program in the README");
        let (shown, _) = shown.split_once("```").expect("its end");
        let shown = shown.replace("\"hello\"", "text");
        let mut lines = include_str!("embed.rs").lines().map(str::trim);
        for line in shown.lines().map(|line| line.split(" //").next().unwrap_or(line).trim()) {
            assert!(lines.any(|here| here == line), "this program has no line {line:?} there");
        }
    }

    #[tokio::test]
    async fn an_embedded_control_plane_answers() {
        assert_eq!(super::ask("hello").await.expect("an answer"), "hello");
    }
}
