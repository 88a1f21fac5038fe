//! What a message costs, and how it is asked.

use super::*;
use crate::message::MessageState;

#[tokio::test(start_paused = true)]
async fn a_message_to_an_idle_agent_is_three_commits_accept_lease_and_end() {
    let world = World::new().await;
    let agent = world.idle("a", AgentSpec::default()).await;
    let started = |agent: &Agent| agent.status.run.as_ref().is_some_and(|run| run.start_id.is_some());
    world.until(&agent, "recorded as started", started).await;
    for n in 0..5 {
        let before = world.store.commits();
        let message = world.send(&agent, &n.to_string()).await;
        assert_eq!(world.ended(&agent, &message).await.state, MessageState::Done);
        // Whatever the operator or the program would do about it has been done by then.
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(world.store.commits() - before, 3, "of message {n}");
    }
}

#[tokio::test(start_paused = true)]
async fn asking_gives_the_answer_also_behind_a_long_queue() {
    let world = World::new().await;
    let agent = world.idle("a", AgentSpec::default()).await;
    let ask = async |text: String| {
        let (minute, message) = (Duration::from_secs(60), SendMessage::text(text));
        world.control.ask(&world.call, &world.tenant, &agent.name, message, minute).await.expect("accepted")
    };
    let slow = ask("work 30".into());
    let crowd = futures::future::join_all((0..crate::store::MAX_PAGE + 10).map(|n| ask(n.to_string())));
    let (slow, crowd) = tokio::join!(slow, crowd);
    assert_eq!(slow.reply.map(|reply| reply.text()).as_deref(), Some("worked"));
    for (n, answered) in crowd.into_iter().enumerate() {
        assert_eq!(answered.reply.map(|reply| reply.text()), Some(n.to_string()));
    }
    let late = ask("work 600".into()).await;
    assert_eq!((late.message.state, late.reply), (MessageState::Leased, None));
}

#[tokio::test(start_paused = true)]
async fn a_look_at_all_computers_of_an_engine_reads_none_of_those_that_sleep_by_itself() {
    use crate::runtime::simulated::Method;
    let world = World::new().await;
    for n in 0..30 {
        let agent = world.idle(&format!("a{n}"), AgentSpec::default()).await;
        let mode = crate::control::SleepMode::Now;
        world.control.sleep(&world.call, &world.tenant, &agent.name, mode).await.expect("asked");
        world.until(&agent, "stopped", |a| a.status.state() == State::Slept && a.status.run.is_none()).await;
    }
    let awake = world.idle("awake", AgentSpec::default()).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let (reads, lists, looks) =
        (world.store.computers_read(), world.engine.calls(Method::List), world.engine.calls(Method::Observe));
    world.engine.cut_events();
    while world.engine.calls(Method::List) == lists || world.engine.calls(Method::Observe) == looks {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.store.computers_read(), reads);
    assert_eq!(world.agent(&awake).await.status.incarnation, awake.status.incarnation);
}
