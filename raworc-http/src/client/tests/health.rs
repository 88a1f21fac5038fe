//! Asking how a server is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::routing::get;
use http::StatusCode;

use super::*;
use crate::server::Options;
use crate::server::testing::Setting;

#[tokio::test]
async fn a_server_that_is_not_ready_says_why_under_whatever_status() {
    let ill = r#"{"ready":false,"checks":{"store":"does not answer"}}"#;
    for status in [StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE, StatusCode::INTERNAL_SERVER_ERROR] {
        let client = answering(Router::new().route("/readyz", get(move || async move { (status, ill) }))).await;
        let ready = client.ready().await.expect("an answer");
        assert_eq!((ready.ready, ready.checks["store"].as_str()), (false, "does not answer"), "{status}");
    }
}

#[tokio::test]
async fn an_answer_that_is_not_of_this_api_is_told_as_such() {
    let page = get(|| async { "<h1>It works!</h1>" });
    let client = answering(Router::new().route("/readyz", page.clone()).route("/version", page)).await;
    for error in [client.ready().await.expect_err("none"), client.version().await.expect_err("none")] {
        assert_eq!((error.code.as_str(), error.status), ("unreadable", None));
        assert!(error.to_string().starts_with(client.server()), "{error}");
        assert!(std::error::Error::source(&error).is_some());
    }
    let error = client.who_am_i().await.expect_err("no such page");
    assert_eq!((error.code.as_str(), error.status), ("unreadable", Some(StatusCode::NOT_FOUND)));
}

#[tokio::test]
async fn a_server_is_waited_for_until_it_can_do_its_work() {
    let well = Arc::new(AtomicBool::new(false));
    let check = Arc::clone(&well);
    let options = Options::default().with_check("operator", move || {
        let well = check.load(Ordering::SeqCst);
        async move { if well { Ok(()) } else { Err("not up yet".into()) } }
    });
    let api = Api::with(Setting { options, ..Setting::default() }).await;
    let client = answering(api.router.clone()).await;
    let error = client.wait_until_ready(Duration::ZERO).await.expect_err("not yet");
    assert_eq!(error.to_string(), format!("{} is not ready: operator: not up yet", client.server()));
    assert_eq!(error.code, "timed_out");
    let waiting = tokio::spawn(async move { client.wait_until_ready(Duration::from_secs(30)).await });
    well.store(true, Ordering::SeqCst);
    waiting.await.expect("no panic").expect("ready");
}
