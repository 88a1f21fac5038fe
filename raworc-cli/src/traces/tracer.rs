//! [`Spans`]: spans as the collector is told of them.

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use raworc_core::trace::{TraceParent, Tracer};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Which trace a span belongs to, by what the collector is told.
#[derive(Debug)]
pub(super) struct Spans;

impl Tracer for Spans {
    fn adopt(&self, span: &Span, parent: TraceParent) {
        let flags = if parent.is_sampled() { TraceFlags::SAMPLED } else { TraceFlags::default() };
        let parent = SpanContext::new(
            TraceId::from(parent.trace()),
            SpanId::from(parent.span()),
            flags,
            true,
            TraceState::default(),
        );
        // Only one that has begun cannot be told whose it is.
        if let Err(error) = span.set_parent(Context::new().with_remote_span_context(parent)) {
            tracing::debug!(%error, "a span has no place in its trace");
        }
    }

    fn of(&self, span: &Span) -> Option<TraceParent> {
        let context = span.context();
        let context = context.span().span_context().clone();
        let (trace, id) = (context.trace_id().to_bytes(), context.span_id().to_bytes());
        TraceParent::new(u128::from_be_bytes(trace), u64::from_be_bytes(id), context.trace_flags().to_u8())
    }
}
