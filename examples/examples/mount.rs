//! Raworc's router inside an axum application of one's own, under a path of one's own.
//!
//! Run it: `cargo run -p raworc-examples --example mount`, then `curl http://127.0.0.1:PORT/hello`

use std::io::Write;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use raworc_core::control::{ControlPlane, Parts};
use raworc_core::entropy::SystemEntropy;
use raworc_core::runtime::Runtimes;
use raworc_core::runtime::simulated::{Profile, SimulatedOptions, SimulatedRuntime};
use raworc_core::seal::MasterKey;
use raworc_core::store::MemoryStore;
use raworc_http::server::{Options, router};

async fn application() -> anyhow::Result<Router> {
    let runtime = SimulatedRuntime::new(SimulatedOptions::new(Profile::Container));
    let runtimes = Runtimes::new().with(Arc::new(runtime), "unix:/unused", None);
    let master_key = MasterKey::generate(&SystemEntropy);
    let control = ControlPlane::start(Parts::new(Arc::new(MemoryStore::default()), runtimes, master_key)).await?;
    let agents = router(control, Options::default());
    Ok(Router::new().route("/hello", get(|| async { "from the application" })).nest("/agents-platform", agents))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    writeln!(std::io::stdout(), "http://{address}/hello and http://{address}/agents-platform/version; Ctrl-C ends it")?;
    let stop = async {
        // Without signals it runs until it is killed.
        let _ = tokio::signal::ctrl_c().await;
    };
    axum::serve(listener, application().await?).with_graceful_shutdown(stop).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::{Request, StatusCode};
    use tower::ServiceExt;

    async fn get(path: &str) -> (StatusCode, String) {
        let application = super::application().await.expect("an application");
        let request = Request::get(path).body(Body::empty()).expect("a request");
        let response = application.oneshot(request).await.expect("an answer");
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test]
    async fn the_applications_own_route_and_the_mounted_ones_answer() {
        assert_eq!(get("/hello").await, (StatusCode::OK, "from the application".into()));
        assert_eq!(get("/agents-platform/version").await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn a_mounted_router_still_asks_for_a_token() {
        let (status, body) = get("/agents-platform/api/v0/agents").await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert!(body.contains("unauthenticated"), "{body}");
    }
}
