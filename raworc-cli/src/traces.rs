//! Traces of a serving process, told to a collector by OTLP over HTTP.
//!
//! Nobody waits for the collector: spans are told by a thread of their own, a few thousand wait for it, and what comes
//! then is dropped until it answers.

mod collector;
mod tracer;

use std::sync::OnceLock;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use raworc_core::entropy::{Clock, EntropyExt, SystemClock, SystemEntropy};
use raworc_core::trace;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;

use self::collector::Collector;
use self::tracer::Spans;
use crate::exit::{Exit, Failure};
use crate::installation::Role;
use crate::settings::Settings;

/// How long the collector may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How long what was not told yet may take at the end.
const END_LIMIT: Duration = Duration::from_secs(3);

static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

/// What tells the collector of spans, where the settings name one.
///
/// # Errors
/// Where its address is none.
pub fn layer<S>(settings: &Settings, role: Role) -> Result<Option<Box<dyn Layer<S> + Send + Sync>>, Failure>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    let Some(address) = settings.tracing.address()? else { return Ok(None) };
    let failed = |error: &dyn std::error::Error| {
        Failure::new(Exit::Usage, format!("tracing.otlp: spans cannot be told: {error}"))
            .hint("the variables OTEL_EXPORTER_OTLP_* say how as well; unset what is not meant for raworc")
    };
    let collector = Collector::new(&address, ANSWER_LIMIT).map_err(|error| failed(&error))?;
    let exporter = SpanExporter::builder().with_http().with_http_client(collector);
    let exporter = exporter.with_endpoint(address.to_string()).with_timeout(ANSWER_LIMIT).build();
    let resource = Resource::builder().with_service_name("raworc").with_attributes([
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", SystemEntropy.uuid(SystemClock.now()).to_string()),
        KeyValue::new("raworc.role", role.as_str()),
    ]);
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.tracing.sample)));
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter.map_err(|error| failed(&error))?)
        .with_resource(resource.build())
        .with_sampler(sampler)
        .build();
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("raworc"))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_level(false)
        .with_target(false)
        // What the log says may be what a trace must not hold.
        .with_filter(Targets::new().with_target(trace::TARGET, LevelFilter::ERROR));
    // In a test, another installation of the same process traces already.
    if PROVIDER.set(provider).is_ok() {
        trace::install(Box::new(Spans));
    }
    Ok(Some(layer.boxed()))
}

/// Tells the collector what it was not told yet, for a few seconds at most.
pub async fn end() {
    let Some(provider) = PROVIDER.get() else { return };
    let ending = tokio::task::spawn_blocking(|| provider.shutdown_with_timeout(END_LIMIT));
    if let Ok(Err(error)) = ending.await {
        tracing::debug!(%error, "the last spans were not told");
    }
}
