//! What the token of one program is worth to anybody else.

use futures::FutureExt;
use raworc_core::control::Call;
use raworc_core::principal::Principal;

use super::*;

fn principal(program: &Program) -> Principal {
    Principal::Agent {
        tenant: TenantName::default(),
        agent: program.agent.id,
        computer: program.agent.status.computer.unwrap(),
        incarnation: program.agent.status.incarnation,
    }
}

/// What programs change of an agent.
fn told(agent: &raworc_core::agent::Agent) -> (u64, raworc_core::agent::Inbox, Option<raworc_core::agent::Run>) {
    (agent.status.version, agent.inbox, agent.status.run.clone())
}

/// An agent that holds a message of its own, and the message.
async fn busy(world: &World, name: &str) -> (Program, raworc_core::ids::MessageId) {
    let program = world.up(name).await;
    let id = world.send(name, "the secret of a").await;
    let (status, lease) = program.call(Method::POST, "lease?wait=5", &()).await;
    assert_eq!(status, StatusCode::OK, "{lease}");
    (program, id)
}

#[tokio::test]
async fn a_program_reaches_no_message_of_another_agent() {
    let world = World::new().await;
    let (a, id) = busy(&world, "a").await;
    let b = world.up("b").await;
    let name = AgentName::new("a").unwrap();
    let tenant = TenantName::default();
    let before = told(&world.agent("a").await);

    let (status, lease) = b.call(Method::POST, "lease?wait=0", &()).await;
    assert_eq!((status, lease), (StatusCode::NO_CONTENT, Value::Null));
    let end = EndReport { commit: commit(), message: id, ending: Ending::Done, reply: None, steps: Vec::new() };
    let (status, body) = b.call(Method::POST, "end", &end).await;
    assert_eq!((status, code(&body)), (StatusCode::CONFLICT, "not_held"), "{body}");
    let step = json!([{ "kind": "log", "text": "forged" }]);
    for (path, body) in [
        ("steps", json!({ "commit": commit(), "message": id, "steps": step })),
        (
            "end",
            json!({ "commit": commit(), "message": id, "ending": "done", "reply": [{ "type": "text", "text": "forged" }],
                    "steps": step }),
        ),
    ] {
        let (status, answer) = b.call(Method::POST, path, &body).await;
        assert_eq!((status, code(&answer)), (StatusCode::NOT_FOUND, "not_found"), "{path}: {answer}");
        assert!(!answer.to_string().contains("secret"), "{answer}");
    }
    // Its words are its own, whatever message it names: nobody who follows the other agent is told them.
    let deltas = world.control.system().feed().deltas();
    let (mut of_a, mut of_b) = (deltas.of(a.agent.id), deltas.of(b.agent.id));
    let delta = DeltaReport { message: id, text: "forged".into() };
    assert_eq!(b.call(Method::POST, "deltas", &delta).await.0, StatusCode::NO_CONTENT);
    assert_eq!(soon("a delta", of_b.next()).await.agent, b.agent.id);
    assert!(of_a.next().now_or_never().is_none());

    let message = world.control.get_message(&world.admin(), &tenant, &name, id).await.unwrap();
    assert_eq!((message.state, message.attempt), (MessageState::Leased, 1));
    let steps = world.control.steps(&world.admin(), &tenant, &name, None, 0, None).await.unwrap();
    assert_eq!(steps.items, []);
    assert_eq!(told(&world.agent("a").await), before);
    let own = EndReport { commit: commit(), ..end };
    assert_eq!(a.call(Method::POST, "end", &own).await.0, StatusCode::NO_CONTENT, "its own program ends it");
}

#[tokio::test]
async fn a_program_neither_boots_nor_speaks_for_another_agent() {
    let world = World::new().await;
    let a = world.place("a").await;
    let placed = world.place("b").await;
    let b = Program::boot(&world, &placed).await;
    let before = told(&world.agent("a").await);

    // Its own key, used or not, opens no other computer; nor does its token stand for a key.
    for key in [placed.key.clone(), b.token.clone(), String::new()] {
        let mut boot = boot_request(&a);
        boot.key = key;
        let (status, body) = b.call(Method::POST, "boot", &boot).await;
        assert_eq!((status, code(&body)), (StatusCode::UNAUTHORIZED, "unauthenticated"));
    }
    assert_eq!(world.agent("b").await.status.state(), State::Idle, "it is up itself");
    b.call(Method::POST, "heartbeat", &()).await;
    b.link(named("b")).await;
    until("its link", || async { world.state.links.is_linked(&b.agent) }).await;
    assert!(!world.state.links.is_linked(&a.agent), "and is linked as nobody else");
    assert_eq!(told(&world.agent("a").await), before);
    Program::boot(&world, &a).await;
}

#[tokio::test]
async fn a_token_that_has_expired_or_was_revoked_is_refused_everywhere() {
    let world = World::new().await;
    let program = world.up("a").await;
    let principal = principal(&program);
    let issue = |ttl| world.state.tokens.issue(&principal, ttl).unwrap();
    let expired = issue(Duration::ZERO);
    let revoked = issue(Duration::from_secs(60));
    let other = Program { token: revoked.token.clone(), ..program.clone() };
    assert_eq!(other.call(Method::POST, "heartbeat", &()).await.0, StatusCode::OK, "it is good before");
    world.control.revoke(&Call::by(principal.clone()).with_token(revoked.record)).await.unwrap();
    for token in [expired.token, revoked.token] {
        let stranger = Program { token, ..program.clone() };
        for path in [
            "token",
            "setup",
            "lease",
            "steps",
            "deltas",
            "end",
            "heartbeat",
            "link",
            "gateway/api/chat",
            "gateway/v1/chat/completions",
        ] {
            let (status, body) = stranger.call(Method::POST, path, &json!({})).await;
            assert_eq!((status, code(&body)), (StatusCode::UNAUTHORIZED, "unauthenticated"), "{path}");
        }
    }
    assert_eq!(program.call(Method::POST, "heartbeat", &()).await.0, StatusCode::OK, "its other tokens are good");
}
