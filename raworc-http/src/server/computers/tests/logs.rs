//! Logs that are followed.

use raworc_core::runtime::simulated::SimulatedAgent;

use super::*;
use crate::server::testing::{Api, Setting};

const FOLLOWED: &str = "/api/v0/agents/one/logs?follow=true";

#[tokio::test]
async fn an_engines_log_that_is_followed_takes_a_place_and_ends_with_the_login() {
    // Its program is not linked, so its log comes from the engine.
    let options = Options::default().with_streams_per_principal(1);
    let api = Api::with(Setting { options, agents: Some(SimulatedAgent::echo()), ..Setting::default() }).await;
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
