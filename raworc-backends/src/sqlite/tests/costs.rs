//! What a message costs in durable commits.

use std::sync::Arc;
use std::time::Duration;

use raworc_core::agent::{Agent, State};
use raworc_core::control::{Call, ControlPlane, CreateAgent, Parts, SendMessage};
use raworc_core::entropy::SystemEntropy;
use raworc_core::ids::{AgentName, TenantName, UserName};
use raworc_core::operator::{Operator, OperatorSettings};
use raworc_core::principal::Principal;
use raworc_core::runtime::Runtimes;
use raworc_core::runtime::simulated::{Profile, SimulatedAgent, SimulatedOptions, SimulatedRuntime};
use raworc_core::seal::MasterKey;

use super::{SqliteStore, directory, open};

async fn commits(store: &SqliteStore) -> i64 {
    sqlx::query_scalar("SELECT commits FROM head").fetch_one(&store.shared.readers).await.expect("answers")
}

#[tokio::test]
async fn a_message_to_an_idle_agent_is_three_commits_accept_lease_and_end() {
    let directory = directory();
    let store = Arc::new(open(&directory).await);
    let program = SimulatedAgent::echo();
    let runtime = SimulatedRuntime::new(SimulatedOptions::new(Profile::Container).with_program(program.clone()));
    let runtimes = Runtimes::new().with(Arc::new(runtime), "unix:/nowhere", None);
    let parts = Parts::new(store.clone(), runtimes.clone(), MasterKey::generate(&SystemEntropy));
    let control = ControlPlane::start(parts).await.expect("a control plane");
    program.connect(&control);
    let operator = Operator::start(&control, runtimes, OperatorSettings::default()).await.expect("an operator");

    let (tenant, name) = (TenantName::default(), AgentName::new("parrot").expect("a name"));
    let call = Call::by(Principal::user(UserName::new("ada").expect("a name"), tenant.clone()));
    let agent = control.create_agent(&call, &tenant, CreateAgent::named(name.clone())).await.expect("is made");
    let started = |agent: &Agent| {
        let known = agent.status.run.as_ref().is_some_and(|run| run.start_id.is_some());
        agent.status.state() == State::Idle && known
    };
    let agent = control.wait_for_agent(&call, &agent, Duration::from_mins(1), started).await.expect("answers");
    assert!(started(&agent), "it starts: {agent:?}");

    let before = commits(&store).await;
    for n in 0..10 {
        let message = SendMessage::text(n.to_string());
        let answered = control.ask(&call, &tenant, &name, message, Duration::from_mins(1)).await.expect("is taken");
        assert_eq!(answered.reply.map(|reply| reply.text()), Some(n.to_string()));
    }
    assert_eq!(commits(&store).await - before, 30, "of ten messages");
    operator.shutdown().await;
    store.close().await;
}
