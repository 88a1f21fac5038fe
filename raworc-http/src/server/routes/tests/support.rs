//! An API over an in-memory store, and how to call it.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use raworc_core::control::{Call, ControlPlane, NewUser, Parts};
use raworc_core::entropy::SystemEntropy;
use raworc_core::ids::{TenantName, UserName};
use raworc_core::principal::Principal;
use raworc_core::runtime::Runtimes;
use raworc_core::runtime::simulated::{SimulatedOptions, SimulatedRuntime};
use raworc_core::seal::MasterKey;
use raworc_core::store::MemoryStore;
use serde_json::Value;
use tower::ServiceExt;

use crate::server::{Options, Tokens, router};

pub(super) const PASSWORD: &str = "correct horse battery";

/// An API with the users `root` (an admin), `ada` and `bob` of the tenant `default`, and `eve` of the tenant `other`.
pub(super) struct Api {
    pub(super) control: ControlPlane,
    pub(super) store: Arc<MemoryStore>,
    pub(super) router: Router,
    pub(super) options: Options,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
    pub(super) text: String,
}

impl Answer {
    /// The code of the error that this has to be, whose shape is checked.
    pub(super) fn code(&self) -> &str {
        let error = self.body.get("error").unwrap_or_else(|| panic!("an error: {self:?}"));
        let fields: Vec<_> = error.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(fields, ["code", "details", "message"], "{self:?}");
        assert!(error["details"].is_object(), "{self:?}");
        assert!(!error["message"].as_str().expect("a text").is_empty(), "{self:?}");
        error["code"].as_str().expect("a text")
    }
}

pub(super) fn user(name: &str) -> Principal {
    let tenant = TenantName::new(if name == "eve" { "other" } else { "default" }).expect("valid");
    Principal::User { name: UserName::new(name).expect("valid"), tenant, admin: name == "root" }
}

impl Api {
    pub(super) async fn start() -> Self {
        Self::with(Options::default()).await
    }

    pub(super) async fn with(options: Options) -> Self {
        let store = Arc::new(MemoryStore::default());
        let runtime = Arc::new(SimulatedRuntime::new(SimulatedOptions::default()));
        let runtimes = Runtimes::default().with(runtime, "http://127.0.0.1:9", None);
        let parts = Parts::new(Arc::clone(&store), runtimes, MasterKey::generate(&SystemEntropy));
        let control = ControlPlane::start(parts).await.expect("starts");
        let root = UserName::new("root").expect("valid");
        assert!(control.ensure_first_admin(&root, PASSWORD.into()).await.expect("made"));
        for name in ["ada", "bob", "eve"] {
            let new = NewUser {
                name: UserName::new(name).expect("valid"),
                tenant: user(name).tenant().clone(),
                admin: false,
                password: PASSWORD.into(),
            };
            control.create_user(&Call::by(user("root")), new).await.expect("made");
        }
        let router = router(control.clone(), options.clone());
        Self { control, store, router, options }
    }

    /// A token of this user.
    pub(super) fn token(&self, name: &str) -> String {
        let tokens = Tokens::new(&self.control);
        tokens.issue(&user(name), self.options.token_ttl).expect("issued").token
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.expect("infallible");
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a whole body").to_bytes();
        let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer { status: parts.status, headers: parts.headers, body, text }
    }

    /// A request by this user, or by nobody.
    pub(super) fn request(&self, who: &str, method: Method, path: &str, body: Option<&Value>) -> Request<Body> {
        let mut request = Request::builder().method(method).uri(path);
        if !who.is_empty() {
            request = request.header(AUTHORIZATION, format!("Bearer {}", self.token(who)));
        }
        let body = match body {
            Some(body) => {
                request = request.header(CONTENT_TYPE, "application/json");
                Body::from(body.to_string())
            }
            None => Body::empty(),
        };
        request.body(body).expect("a request")
    }

    pub(super) async fn get(&self, who: &str, path: &str) -> Answer {
        self.send(self.request(who, Method::GET, &format!("/api/v0{path}"), None)).await
    }

    pub(super) async fn post(&self, who: &str, path: &str, body: &Value) -> Answer {
        self.send(self.request(who, Method::POST, &format!("/api/v0{path}"), Some(body))).await
    }

    /// Makes an agent of this user, which has to work.
    pub(super) async fn agent(&self, who: &str, name: &str) -> Value {
        let answer = self.post(who, "/agents", &serde_json::json!({ "name": name })).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        answer.body
    }
}
