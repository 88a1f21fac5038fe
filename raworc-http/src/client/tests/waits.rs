//! Waits that are longer than a server waits, and reading much.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use http::StatusCode;
use raworc_core::entropy::{Clock, EntropyExt, SystemClock, SystemEntropy};
use raworc_core::message::Part;
use raworc_core::program::EndReport;
use raworc_core::runtime::simulated::{Act, SimulatedAgent};
use raworc_core::store::Ending;
use tokio::time::Instant;
use tower::ServiceExt;

use super::*;
use crate::api::{IDEMPOTENCY_KEY, Wait};
use crate::server::agents::testing::{World, until};
use crate::server::testing::{Setting, user};
use crate::server::{Options, Tokens, router};

/// A request as it arrived: its method, how long it has the server wait, and its key.
type Seen = (http::Method, Duration, Option<String>);

/// Ada at a server that is asked to wait a twentieth of a second at a time, and what it is asked.
async fn impatient(api: &Api) -> (Client, Arc<Mutex<Vec<Seen>>>) {
    let seen = Arc::<Mutex<Vec<Seen>>>::default();
    let notes = Arc::clone(&seen);
    let router = api.router.clone().layer(from_fn(move |request: Request, next: Next| {
        let wait = request.uri().query().unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("wait="));
        let wait = wait.map(|text| text.parse::<Wait>().expect("a wait").0).unwrap_or_default();
        let key = request.headers().get(IDEMPOTENCY_KEY).map(|key| key.to_str().expect("text").to_owned());
        notes.lock().expect("not poisoned").push((request.method().clone(), wait, key));
        next.run(request)
    }));
    let mut client = answering(router).await.with_token(api.token("ada"));
    client.wait_limit = Duration::from_millis(50);
    (client, seen)
}

fn taken(seen: &Mutex<Vec<Seen>>) -> Vec<Seen> {
    std::mem::take(&mut *seen.lock().expect("not poisoned"))
}

#[tokio::test]
async fn a_wait_beyond_the_servers_limit_is_asked_for_again_under_the_same_key() {
    // Nothing becomes of agents there.
    let api = Api::start().await;
    let (client, seen) = impatient(&api).await;
    let (began, wait) = (Instant::now(), Duration::from_millis(600));
    let made = client.create_agent(&new("one"), Ask::new().with_key("k").wait(wait)).await.expect("made");
    assert_eq!(made.status.state(), State::Init);
    assert!(began.elapsed() >= wait, "{:?}", began.elapsed());
    let asked = taken(&seen);
    assert!(asked.len() > 1, "{asked:?}");
    assert!(asked.iter().all(|(_, wait, key)| *wait <= client.wait_limit && key.as_deref() == Some("k")), "{asked:?}");
    assert_eq!(client.all_agents(None, &Default::default()).await.expect("read").len(), 1);
}

#[tokio::test]
async fn a_wait_that_a_closing_server_ends_goes_on_at_the_next_one_and_over_the_time_between_them() {
    // Nothing becomes of agents there.
    let api = Api::start().await;
    let closing = Options::default();
    closing.closing.cancel();
    let closing = router(api.control.clone(), closing);
    let (next, asked) = (api.router.clone(), Arc::new(AtomicUsize::default()));
    let count = Arc::clone(&asked);
    let balanced = axum::Router::new().fallback(move |request: Request| {
        let (closing, next) = (closing.clone(), next.clone());
        let turn = count.fetch_add(1, Ordering::SeqCst);
        async move {
            match turn {
                0 => closing.oneshot(request).await,
                // None is there, for longer than one call is sent again.
                1..=6 => Ok((StatusCode::BAD_GATEWAY, "<html>").into_response()),
                _ => next.oneshot(request).await,
            }
        }
    });
    let client = answering(balanced).await.with_token(api.token("ada"));
    let direct = answering(api.router.clone()).await.with_token(api.token("ada"));
    direct.create_agent(&new("one"), Ask::new()).await.expect("made");
    let (one, said) = (name("one"), SendMessage::text("hello"));
    let sending = client.send(&one, &said, Ask::new().wait_secs(600));
    let cancelling = async {
        until("the next server is asked", || std::future::ready(asked.load(Ordering::SeqCst) > 7)).await;
        let sent = direct.newest_messages(&one, 2).await.expect("read");
        direct.cancel_message(&one, sent[0].id, Ask::new()).await.expect("cancelled");
        sent.len()
    };
    let (sent, messages) = tokio::join!(sending, cancelling);
    assert_eq!(sent.expect("sent").state, MessageState::Cancelled, "it was waited for until something came of it");
    assert_eq!(messages, 1);
}

#[tokio::test]
async fn what_was_done_is_no_error_where_the_token_ends_while_it_is_waited_for() {
    // Nothing becomes of agents there.
    let api = Api::start().await;
    let tokens = Tokens::new(&api.control);
    let token = tokens.issue(&user("ada"), Duration::from_secs(3)).expect("issued").token;
    let client = answering(api.router.clone()).await.with_token(token);
    let (one, said) = (new("one"), SendMessage::text("hello"));
    client.create_agent(&one, Ask::new()).await.expect("made");
    let two = new("two");
    let making = client.create_agent(&two, Ask::new().wait_secs(600));
    let sending = client.send(&one.name, &said, Ask::new().wait_secs(600));
    let (made, sent) = tokio::join!(making, sending);
    assert_eq!(made.expect("made").status.state(), State::Init);
    let sent = sent.expect("it is accepted");
    assert_eq!(sent.state, MessageState::Queued);
    let read = client.message(&one.name, sent.id, Some(Duration::from_secs(600))).await;
    assert_eq!(read.expect_err("the token has ended").code, "unauthenticated");
}

#[tokio::test]
async fn what_was_accepted_and_cannot_be_waited_for_is_no_error() {
    let api = Api::start().await;
    let (inner, forgets) = (api.router.clone(), Arc::new(AtomicUsize::default()));
    let router = axum::Router::new().fallback(move |request: Request| {
        let (inner, turn) = (inner.clone(), forgets.fetch_add(1, Ordering::SeqCst));
        async move {
            match turn {
                0 | 1 => inner.oneshot(request).await,
                _ => Ok(StatusCode::NOT_FOUND.into_response()),
            }
        }
    });
    let mut client = answering(router).await.with_token(api.token("ada"));
    client.wait_limit = Duration::from_millis(50);
    client.create_agent(&new("one"), Ask::new()).await.expect("made");
    let sent = client.send(&name("one"), &SendMessage::text("hello"), Ask::new().wait_secs(60)).await;
    assert_eq!(sent.expect("it is accepted").state, MessageState::Queued);
}

#[tokio::test]
async fn what_has_come_is_not_waited_for_any_longer() {
    let api = Api::working().await;
    let (mut client, seen) = impatient(&api).await;
    client.wait_limit = Duration::from_secs(60);
    let hour = Duration::from_secs(3600);
    client.create_agent(&new("one"), Ask::new().wait(hour)).await.expect("made");
    let done = client.send(&name("one"), &SendMessage::text("hello"), Ask::new().wait(hour)).await.expect("accepted");
    assert_eq!(done.state, MessageState::Done);
    client.sleep(&name("one"), false, Ask::new().wait(hour)).await.expect("sleeps");
    assert_eq!(taken(&seen).len(), 3);
}

#[tokio::test]
async fn a_message_that_takes_longer_is_waited_for_without_being_sent_again() {
    let agents = SimulatedAgent::new(|_| Act::Hang);
    let api = Api::with(Setting { agents: Some(agents), ..Setting::default() }).await;
    let (client, seen) = impatient(&api).await;
    client.create_agent(&new("one"), Ask::new()).await.expect("made");
    taken(&seen);
    let ask = Ask::new().wait(Duration::from_millis(600));
    let sent = client.send(&name("one"), &SendMessage::text("hello"), ask).await.expect("accepted");
    assert!(!sent.state.is_ended());
    let asked = taken(&seen);
    assert_eq!(asked.iter().filter(|(method, ..)| method == http::Method::POST).count(), 1, "{asked:?}");
    assert!(asked.len() > 1, "{asked:?}");
}

#[tokio::test]
async fn all_of_what_needs_several_pages_is_read() {
    const MANY: usize = 501;
    let api = Api::start().await;
    let client = answering(api.router.clone()).await.with_token(api.token("ada"));
    let one = name("one");
    client.create_agent(&new("one"), Ask::new()).await.expect("made");
    let call = raworc_core::control::Call::by(user("ada"));
    for n in 0..MANY {
        let said = SendMessage::text(n.to_string());
        api.control.send(&call, user("ada").tenant(), &one, said).await.expect("accepted");
    }
    let texts = |messages: Vec<raworc_core::message::Message>| messages.iter().map(|m| m.text()).collect::<Vec<_>>();
    let all = texts(client.newest_messages(&one, usize::MAX).await.expect("read"));
    assert_eq!(all, (0..MANY).map(|n| n.to_string()).collect::<Vec<_>>());
    let newest = texts(client.newest_messages(&one, 2).await.expect("read"));
    assert_eq!(newest, all[MANY - 2..]);
    assert!(client.newest_messages(&one, 0).await.expect("read").is_empty());
}

#[tokio::test]
async fn what_an_agent_did_is_read_from_any_step_on() {
    let agents = SimulatedAgent::new(|message| Act::Work(Duration::ZERO, message.text()));
    let api = Api::with(Setting { agents: Some(agents), ..Setting::default() }).await;
    let client = answering(api.router.clone()).await.with_token(api.token("ada"));
    let one = name("one");
    client.create_agent(&new("one"), Ask::new().wait_secs(30)).await.expect("made");
    for _ in 0..2 {
        client.send(&one, &SendMessage::text("hello"), Ask::new().wait_secs(30)).await.expect("accepted");
    }
    let all = client.all_steps(&one, None, 0).await.expect("read");
    assert!(all.len() > 1 && all.windows(2).all(|two| two[0].seq < two[1].seq), "{all:?}");
    assert_eq!(client.all_steps(&one, None, all[0].seq).await.expect("read"), all[1..]);
}

#[tokio::test]
async fn what_a_failed_message_was_answered_is_found_as_well() {
    let world = World::new().await;
    let program = world.up("a").await;
    let client = answering(router(world.control.clone(), Options::default())).await.with_token(world.api_token().await);
    let ids = [world.send("a", "one").await, world.send("a", "two").await];
    for (id, reply) in ids.into_iter().zip([None, Some("as far as it went")]) {
        let (status, lease) = program.call(http::Method::POST, "lease?wait=20", &()).await;
        assert_eq!(status, http::StatusCode::OK, "{lease}");
        let report = EndReport {
            commit: SystemEntropy.commit_id(SystemClock.now()),
            message: id,
            ending: Ending::Failed { reason: "out of steps".into() },
            reply: reply.map(|text| vec![Part::text(text)]),
            steps: Vec::new(),
        };
        assert_eq!(program.call(http::Method::POST, "end", &report).await.0, http::StatusCode::NO_CONTENT);
        let failed = client.message(&name("a"), id, Some(Duration::from_secs(20))).await.expect("read");
        let found = client.reply_to(&name("a"), &failed).await.expect("read");
        assert_eq!(found.map(|reply| reply.text()).as_deref(), reply);
    }
}
