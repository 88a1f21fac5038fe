//! Logs that are followed.

use raworc_core::runtime::simulated::SimulatedAgent;

use super::*;
use crate::server::testing::{Api as Whole, Setting};

const FOLLOWED: &str = "/api/v0/agents/one/logs?follow=true";

#[tokio::test]
async fn an_engines_log_that_is_followed_takes_a_place_and_ends_with_the_login() {
    // Its program is not linked, so its log comes from the engine.
    let options = Options::default().with_streams_per_principal(1);
    let api = Whole::with(Setting { options, agents: Some(SimulatedAgent::echo()), ..Setting::default() }).await;
    api.agent("ada", "one").await;
    until("its start", || async { api.get("ada", "/agents/one").await.body["status"]["state"] == "idle" }).await;
    let request = api.request("ada", http::Method::GET, FOLLOWED, None);
    let login = request.headers()[header::AUTHORIZATION].clone();
    let log = soon("the log", api.router.clone().oneshot(request)).await.unwrap();
    assert_eq!(log.status(), StatusCode::OK);
    let other = soon("an answer", api.send(api.request("ada", http::Method::GET, FOLLOWED, None))).await;
    assert_eq!((other.status, other.code()), (StatusCode::TOO_MANY_REQUESTS, "too_many_requests"));
    let mut logout = api.request("ada", http::Method::POST, "/api/v0/auth/logout", None);
    logout.headers_mut().insert(header::AUTHORIZATION, login);
    assert!(api.send(logout).await.status.is_success());
    let mut log = log.into_body();
    let end = async { while let Some(Ok(_)) = log.frame().await {} };
    soon("the end with the login", end).await;
    let again = api.router.clone().oneshot(api.request("ada", http::Method::GET, FOLLOWED, None));
    assert_eq!(soon("the log", again).await.unwrap().status(), StatusCode::OK);
}

/// The log of a program that goes away while it is followed, and what becomes of the agent then.
async fn follow_until_gone(starts_anew: bool) -> Option<Result<(), axum::Error>> {
    let api = Api::new().await;
    let program = api.world.up("a").await;
    let log = || async { Body::from_stream(futures::stream::pending::<Result<Bytes, axum::Error>>()) };
    let stop = program.link(Router::new().route("/logs", get(log))).await;
    let answer = api.send(api.request("GET", "logs?follow=true").body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let mut log = answer.into_body();
    let next = async { log.frame().await.map(|frame| frame.map(drop)) };
    let death = async {
        stop.cancel();
        until("the end of the link", || async { !api.world.state.links.is_linked(&program.agent) }).await;
        if starts_anew {
            api.world.begin(&program.agent).await;
        }
    };
    tokio::join!(soon("the end", next), death).0
}

#[tokio::test]
async fn a_log_that_is_followed_ends_with_its_start_also_where_that_is_noticed_later() {
    assert!(follow_until_gone(true).await.is_none());
}

#[tokio::test]
async fn a_log_whose_start_goes_on_breaks_off() {
    assert!(follow_until_gone(false).await.unwrap().is_err());
}
