//! Calls whose answer is lost, and servers that are away.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::Request;
use axum::response::IntoResponse;
use http::StatusCode;
use tokio::net::TcpSocket;
use tokio::time::Instant;
use tower::ServiceExt;

use super::*;
use crate::client::ClientError;

/// What all waits for a server that is away come to at least.
const WAITED: Duration = Duration::from_millis(1500);

/// A server, a way to it that loses answers, and ada at both.
async fn lossy() -> (Served, Client, Proxy, Client) {
    let served = served().await;
    let proxy = Proxy::start(served.client.server().trim_start_matches("http://").to_owned()).await;
    let through = Client::new(&proxy.url()).expect("an address").with_token(served.api.token("ada"));
    let direct = served.client.clone().with_token(served.api.token("ada"));
    (served, direct, proxy, through)
}

/// The address of a port where nobody listens, and what keeps it so.
fn nobody() -> (TcpSocket, Client) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let client = Client::new(&format!("http://{}", socket.local_addr().expect("an address"))).expect("an address");
    (socket, client)
}

#[tokio::test]
async fn a_create_whose_answer_is_lost_is_sent_again_and_makes_one_agent() {
    let (_served, direct, mut proxy, through) = lossy().await;
    proxy.lose_answers(1);
    let agent = through.create_agent(&new("one"), Ask::new()).await.expect("made");
    assert_eq!(direct.agent(&name("one")).await.expect("there").id, agent.id);
    assert_eq!(proxy.connections(), 2);
}

#[tokio::test]
async fn an_answer_that_breaks_off_before_its_end_is_asked_for_again() {
    let (_served, direct, mut proxy, through) = lossy().await;
    proxy.lose_ends_of_answers(1);
    let agent = through.create_agent(&new("one"), Ask::new()).await.expect("made");
    proxy.lose_ends_of_answers(1);
    assert_eq!(through.agent(&name("one")).await.expect("read"), direct.agent(&name("one")).await.expect("read"));
    assert_eq!(direct.all_agents(None, &Default::default()).await.expect("read").len(), 1);
    assert_eq!(agent.generation, 1);
    assert_eq!(proxy.connections(), 3, "a new one after each loss");
}

#[tokio::test]
async fn every_change_whose_answer_is_lost_has_one_effect() {
    let (_served, direct, mut proxy, through) = lossy().await;
    let one = name("one");
    let made = direct.create_agent(&new("one"), Ask::new().wait_secs(30)).await.expect("made");
    proxy.lose_answers(1);
    let said = through.send(&one, &SendMessage::text("hello"), Ask::new().wait_secs(30)).await.expect("accepted");
    proxy.lose_answers(1);
    let change = serde_json::from_value(serde_json::json!({ "idle_timeout": 60 })).expect("a change");
    let edited = through.edit_agent(&one, change, Some(made.generation), Ask::new()).await.expect("edited");
    assert_eq!((edited.generation, edited.spec.idle_timeout), (made.generation + 1, 60));
    proxy.lose_answers(1);
    let slept = through.sleep(&one, false, Ask::new().wait_secs(30)).await.expect("sleeps");
    assert_eq!(slept.status.state(), State::Slept);
    proxy.lose_answers(1);
    let woken = through.wake(&one, false, Ask::new().wait_secs(30)).await.expect("wakes");
    assert_eq!(woken.status.incarnation, made.status.incarnation.next());
    proxy.lose_answers(1);
    through.keep_awake(&one, Some(Duration::from_secs(60)), Ask::new()).await.expect("kept awake");
    let heard: Vec<_> = direct.newest_messages(&one, usize::MAX).await.expect("read");
    assert_eq!(heard.iter().filter(|message| message.reply_to.is_none()).map(|m| m.id).collect::<Vec<_>>(), [said.id]);
    proxy.lose_answers(1);
    through.delete_agent(&one, Ask::new().wait_secs(30)).await.expect("deleted");
    assert_eq!(direct.agent(&one).await.expect_err("gone").code, "not_found");
}

#[tokio::test]
async fn what_a_balancer_answers_for_a_server_that_is_away_is_not_taken_for_the_servers_word() {
    let api = Api::start().await;
    let (inner, asked) = (api.router.clone(), Arc::new(AtomicUsize::default()));
    let count = Arc::clone(&asked);
    let balanced = axum::Router::new().fallback(move |request: Request| {
        let (inner, turn) = (inner.clone(), count.fetch_add(1, Ordering::SeqCst));
        async move {
            match turn {
                0 => Ok((StatusCode::BAD_GATEWAY, "<html>").into_response()),
                1 => Ok((StatusCode::GATEWAY_TIMEOUT, "<html>").into_response()),
                2 => Ok((StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "1")], "<html>").into_response()),
                _ => inner.oneshot(request).await,
            }
        }
    });
    let client = answering(balanced).await.with_token(api.token("ada"));
    let began = Instant::now();
    client.create_agent(&new("one"), Ask::new()).await.expect("made");
    assert_eq!(asked.load(Ordering::SeqCst), 4);
    assert!(began.elapsed() > Duration::from_secs(1), "a time that is named is waited for");
}

#[tokio::test]
async fn a_logout_whose_answer_is_lost_has_logged_out() {
    let (served, _direct, mut proxy, _through) = lossy().await;
    let login = served.client.login("ada", &PASSWORD.into()).await.expect("logs in");
    let adas = Client::new(&proxy.url()).expect("an address").with_token(login.token);
    proxy.lose_answers(1);
    adas.logout().await.expect("logged out");
    assert_eq!(adas.logout().await.expect_err("it was before").code, "unauthenticated");
}

#[tokio::test]
async fn a_stream_whose_first_answer_is_lost_begins_all_the_same() {
    let (_served, direct, mut proxy, through) = lossy().await;
    direct.create_agent(&new("one"), Ask::new()).await.expect("made");
    proxy.lose_answers(1);
    let mut told = through.follow(None, Some(Revision(0))).await.expect("followed");
    let first = tokio::time::timeout(Duration::from_secs(20), told.next()).await.expect("in time");
    assert!(matches!(first.expect("goes on").expect("no error"), Told::Event(event) if event.revision.0 > 0));
}

#[tokio::test]
async fn a_call_that_may_have_been_done_is_told_as_lost_even_if_nobody_answers_afterwards() {
    let (_served, direct, mut proxy, through) = lossy().await;
    proxy.lose_an_answer_and_vanish();
    let error = through.create_agent(&new("one"), Ask::new()).await.expect_err("lost");
    assert_eq!((error.code.as_str(), error.status, error.is_retryable()), ("connection_lost", None, true));
    direct.agent(&name("one")).await.expect("it was done");
}

/// How long a call takes until it fails.
async fn time_of<T>(call: impl Future<Output = Result<T, ClientError>>) -> (Duration, ClientError) {
    let began = Instant::now();
    let Err(error) = call.await else { panic!("nobody answers") };
    (began.elapsed(), error)
}

#[tokio::test]
async fn a_server_that_was_never_reached_is_not_waited_for_and_one_that_was_is() {
    let (_socket, client) = nobody();
    let (time, error) = time_of(client.version()).await;
    assert_eq!((error.code.as_str(), error.server()), ("unreachable_server", Some(client.server())));
    assert!(time < WAITED, "{time:?}");
    client.reached.store(true, std::sync::atomic::Ordering::Relaxed);
    let (time, error) = time_of(client.clone().version()).await;
    assert_eq!(error.code, "unreachable_server");
    assert!(time >= WAITED, "{time:?}");
}

#[tokio::test]
async fn a_server_that_has_answered_once_was_reached() {
    let served = served().await;
    let other = served.client.clone().with_token("of no use");
    assert!(!other.reached.load(std::sync::atomic::Ordering::Relaxed));
    served.client.who_am_i().await.expect_err("nobody");
    assert!(other.reached.load(std::sync::atomic::Ordering::Relaxed), "clones know of each other's luck");
}
