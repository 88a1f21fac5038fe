//! An API over an in-memory store, and how to call it.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use raworc_core::control::{Call, ControlPlane, NewUser, Parts, Settings};
use raworc_core::entropy::SystemEntropy;
use raworc_core::ids::{TenantName, UserName};
use raworc_core::operator::{Operator, OperatorSettings};
use raworc_core::principal::Principal;
use raworc_core::runtime::Runtimes;
use raworc_core::runtime::simulated::{Profile, SimulatedAgent, SimulatedOptions, SimulatedRuntime};
use raworc_core::seal::MasterKey;
use raworc_core::store::MemoryStore;
use serde_json::Value;
use tower::ServiceExt;

use super::{Options, Tokens, router};

pub(crate) const PASSWORD: &str = "correct horse battery";

/// An API with the users `root` (an admin), `ada` and `bob` of the tenant `default`, and `eve` of the tenant `other`.
pub(crate) struct Api {
    pub(crate) control: ControlPlane,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) router: Router,
    pub(crate) options: Options,
    pub(crate) engine: SimulatedRuntime,
    _operator: Option<Operator>,
}

/// How an API is made.
#[derive(Default)]
pub(crate) struct Setting {
    pub(crate) options: Options,
    pub(crate) settings: Settings,
    /// What agents do; without it there is no operator, and agents stay `init`.
    pub(crate) agents: Option<SimulatedAgent>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    pub(crate) text: String,
}

impl Answer {
    /// The code of the error that this has to be, whose shape is checked.
    pub(crate) fn code(&self) -> &str {
        let error = self.body.get("error").unwrap_or_else(|| panic!("an error: {self:?}"));
        let fields: Vec<_> = error.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(fields, ["code", "details", "message"], "{self:?}");
        assert!(error["details"].is_object(), "{self:?}");
        assert!(!error["message"].as_str().expect("a text").is_empty(), "{self:?}");
        error["code"].as_str().expect("a text")
    }
}

pub(crate) fn user(name: &str) -> Principal {
    let tenant = TenantName::new(if name == "eve" { "other" } else { "default" }).expect("valid");
    Principal::User { name: UserName::new(name).expect("valid"), tenant, admin: name == "root" }
}

impl Api {
    /// Without an operator: agents stay `init`.
    pub(crate) async fn start() -> Self {
        Self::with(Setting::default()).await
    }

    /// With an operator, and agents that answer every message with its own text.
    pub(crate) async fn working() -> Self {
        Self::with(Setting { agents: Some(SimulatedAgent::echo()), ..Setting::default() }).await
    }

    pub(crate) async fn with(setting: Setting) -> Self {
        let Setting { options, settings, agents } = setting;
        let store = Arc::new(MemoryStore::default());
        let mut simulated = SimulatedOptions::new(Profile::Container);
        if let Some(agents) = &agents {
            simulated = simulated.with_program(agents.clone());
        }
        let engine = SimulatedRuntime::new(simulated);
        let runtimes = Runtimes::default().with(Arc::new(engine.clone()), "http://127.0.0.1:9", None);
        let parts = Parts::new(Arc::clone(&store), runtimes.clone(), MasterKey::generate(&SystemEntropy));
        let control = ControlPlane::start(parts.with_settings(settings)).await.expect("starts");
        let operator = match &agents {
            Some(agents) => {
                agents.connect(&control);
                Some(Operator::start(&control, runtimes, OperatorSettings::default()).await.expect("starts"))
            }
            None => None,
        };
        let root = UserName::new("root").expect("valid");
        assert!(control.system().ensure_first_admin(&root, PASSWORD.into()).await.expect("made"));
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
        Self { control, store, router, options, engine, _operator: operator }
    }

    /// A token of this user.
    pub(crate) fn token(&self, name: &str) -> String {
        let tokens = Tokens::new(&self.control);
        tokens.issue(&user(name), self.options.token_ttl).expect("issued").token
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.expect("infallible");
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a whole body").to_bytes();
        let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer { status: parts.status, headers: parts.headers, body, text }
    }

    /// The last revision of the log.
    pub(crate) async fn store_head(&self) -> u64 {
        use raworc_core::store::Store;
        self.store.head().await.expect("read").value.0
    }

    /// A call with some headers.
    pub(crate) async fn call(
        &self,
        who: &str,
        method: Method,
        path: &str,
        body: Option<&Value>,
        headers: &[(&'static str, &str)],
    ) -> Answer {
        let mut request = self.request(who, method, &format!("/api/v0{path}"), body);
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().expect("a value"));
        }
        self.send(request).await
    }

    /// A request by this user, or by nobody.
    pub(crate) fn request(&self, who: &str, method: Method, path: &str, body: Option<&Value>) -> Request<Body> {
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

    pub(crate) async fn get(&self, who: &str, path: &str) -> Answer {
        self.send(self.request(who, Method::GET, &format!("/api/v0{path}"), None)).await
    }

    pub(crate) async fn post(&self, who: &str, path: &str, body: &Value) -> Answer {
        self.send(self.request(who, Method::POST, &format!("/api/v0{path}"), Some(body))).await
    }

    /// Makes an agent of this user, which has to work.
    pub(crate) async fn agent(&self, who: &str, name: &str) -> Value {
        let answer = self.post(who, "/agents", &serde_json::json!({ "name": name })).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        answer.body
    }
}

/// What is said with one text.
pub(crate) fn said(text: &str) -> Value {
    serde_json::json!({ "parts": [{ "type": "text", "text": text }] })
}
