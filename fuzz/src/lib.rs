//! What several fuzz targets stand on.

use std::path::Path;
use std::sync::LazyLock;

use axum::Router;
use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use raworc_core::control::{Call, ControlPlane, CreateAgent, NewUser, Parts, SendMessage};
use raworc_core::ids::{AgentName, TenantName, UserName};
use raworc_core::principal::Principal;
use raworc_core::runtime::simulated::SimulatedAgent;
use raworc_http::server::{Options, Tokens, router};
use serde_json::Value;
use tower::ServiceExt;

/// Runs something in an empty directory that is gone afterwards, in memory where there is such a place.
pub fn in_scratch(work: impl FnOnce(&Path)) {
    let scratch = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory");
    work(scratch.path());
}

/// The agents of [`World`], in their order.
pub const AGENTS: [&str; 5] = ["a", "a-b", "b", "m1", "z"];

/// An installation in memory, with some agents and messages, and how it is called.
pub struct World {
    runtime: tokio::runtime::Runtime,
    router: Router,
    /// Its tokens.
    pub tokens: Tokens,
    /// The user whose agents these are.
    pub ada: Principal,
    token: String,
}

/// The one installation of a target.
pub static WORLD: LazyLock<World> = LazyLock::new(World::new);

impl World {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let made = runtime.block_on(async {
            let control =
                ControlPlane::start(Parts::in_memory(&SimulatedAgent::echo())).await.expect("a control plane");
            let (tenant, name) = (TenantName::default(), UserName::new("ada").expect("a name"));
            let root =
                Principal::User { name: UserName::new("root").expect("a name"), tenant: tenant.clone(), admin: true };
            let password = "correct horse battery";
            let new = NewUser { name: name.clone(), tenant: tenant.clone(), admin: false, password: password.into() };
            control.create_user(&Call::by(root), new).await.expect("made");
            let ada = Principal::user(name, tenant.clone());
            for name in AGENTS {
                let (call, name) = (Call::by(ada.clone()), AgentName::new(name).expect("a name"));
                control.create_agent(&call, &tenant, CreateAgent::named(name.clone())).await.expect("made");
                for text in ["one", "two", "three"] {
                    control.send(&call, &tenant, &name, SendMessage::text(text)).await.expect("accepted");
                }
            }
            let tokens = Tokens::new(&control);
            (router(control, Options::default()), tokens, ada)
        });
        let (router, tokens, ada) = made;
        let token = tokens.issue(&ada, std::time::Duration::from_secs(24 * 3600)).expect("issued").token;
        Self { runtime, router, tokens, ada, token }
    }

    /// Reads what is at this address below `/api/v0`, as its user; none where it is no address.
    pub fn get(&self, path: &str) -> Option<(StatusCode, Value)> {
        let request = Request::get(format!("/api/v0{path}")).header("authorization", format!("Bearer {}", self.token));
        let request = request.body(Body::empty()).ok()?;
        Some(self.runtime.block_on(async {
            let answer = self.router.clone().oneshot(request).await.expect("an answer");
            let status = answer.status();
            let body = answer.into_body().collect().await.expect("a whole answer").to_bytes();
            (status, serde_json::from_slice(&body).unwrap_or_default())
        }))
    }
}

/// A text as it stands in a query.
pub fn encoded(text: &[u8]) -> String {
    text.iter().map(|byte| format!("%{byte:02x}")).collect()
}
