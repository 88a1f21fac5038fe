//! A collector of OpenTelemetry: it takes spans by OTLP over HTTP, and keeps them. Beside it a model that always says the same.

use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use prost::Message;

/// A span as it was told.
#[derive(Debug, Clone)]
pub(super) struct Span {
    pub(super) trace: String,
    pub(super) id: String,
    /// Empty where it has none.
    pub(super) parent: String,
    pub(super) name: String,
    pub(super) service: String,
    pub(super) role: String,
    pub(super) instance: String,
    attributes: Vec<(String, String)>,
}

impl Span {
    pub(super) fn attribute(&self, name: &str) -> Option<String> {
        self.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }
}

type Told = Arc<Mutex<Vec<ExportTraceServiceRequest>>>;

/// A collector, until it is dropped.
pub(super) struct Collector {
    pub(super) url: String,
    told: Told,
    _runtime: tokio::runtime::Runtime,
}

impl Collector {
    pub(super) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let told = Told::default();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let router = axum::Router::new()
            .route("/v1/traces", post(take))
            .route("/api/chat", post(answer))
            .with_state(Arc::clone(&told));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { url, told, _runtime: runtime }
    }

    /// All that was told.
    pub(super) fn text(&self) -> String {
        let told = self.told.lock().expect("told").clone();
        format!("{told:?} {:?}", self.spans())
    }

    pub(super) fn spans(&self) -> Vec<Span> {
        let told = self.told.lock().expect("told").clone();
        let mut spans = Vec::new();
        for of_resource in told.into_iter().flat_map(|request| request.resource_spans) {
            let resource = texts(of_resource.resource.map(|resource| resource.attributes).unwrap_or_default());
            let of = |name: &str| {
                resource.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()).unwrap_or_default()
            };
            let all = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            spans.extend(all.map(|span| Span {
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                name: span.name,
                service: of("service.name"),
                role: of("raworc.role"),
                instance: of("service.instance.id"),
                attributes: texts(span.attributes),
            }));
        }
        spans
    }
}

async fn take(State(told): State<Told>, headers: HeaderMap, body: Bytes) -> StatusCode {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    match ExportTraceServiceRequest::decode(body) {
        Ok(request) => {
            told.lock().expect("told").push(request);
            StatusCode::OK
        }
        Err(_) => StatusCode::BAD_REQUEST,
    }
}

async fn answer() -> &'static str {
    concat!(r#"{"message":{"role":"assistant","content":"never-in-a-span"},"done":true,"done_reason":"stop"}"#, "\n")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn texts(attributes: Vec<KeyValue>) -> Vec<(String, String)> {
    let text = |value: Option<AnyValue>| match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    attributes.into_iter().map(|KeyValue { key, value, .. }| (key, text(value))).collect()
}
