//! Traces: what is done for a message, by whichever process, told as one.
//!
//! A message bears the [`TraceParent`] of the request that brought it. Whoever does something for it begins a span that
//! continues there: the server at the commit and the lease, the operator at the start of its agent's computer, the program
//! by the header of its calls. Spans are those of `tracing`, of the target [`TARGET`]; what tells a collector of them is
//! [installed](install) by the process that has one. Without it there are no spans, and nothing is paid for them.
//!
//! A span is to be entered within those of the log, not around them: [`within`] looks at the innermost one.

mod cause;
mod parent;

pub(crate) use cause::for_agent;
pub use parent::{InvalidTraceParent, TraceParent};

use std::fmt;
use std::sync::OnceLock;

use tracing::Span;
use tracing::field::Empty;

/// The target of spans that belong to traces, and of nothing else.
pub const TARGET: &str = "raworc::trace";

/// The header by which a trace goes from one process to another.
pub const HEADER: &str = "traceparent";

/// Knows which trace a span belongs to.
pub trait Tracer: fmt::Debug + Send + Sync {
    /// Has a span that was just made continue what `parent` began.
    fn adopt(&self, span: &Span, parent: TraceParent);

    /// What goes on from this span; none where it is none of a trace.
    fn of(&self, span: &Span) -> Option<TraceParent>;
}

static TRACER: OnceLock<Box<dyn Tracer>> = OnceLock::new();

/// Has spans made from now on in this process. Whether nothing was installed before.
pub fn install(tracer: Box<dyn Tracer>) -> bool {
    TRACER.set(tracer).is_ok()
}

/// Whether this process makes spans.
#[must_use]
pub fn is_on() -> bool {
    TRACER.get().is_some()
}

/// A span that continues what `parent` began, or begins a trace.
#[must_use]
pub fn begin(name: &str, parent: Option<TraceParent>) -> Span {
    let Some(tracer) = TRACER.get() else { return Span::none() };
    let span = make(name);
    if let Some(parent) = parent {
        tracer.adopt(&span, parent);
    }
    span
}

/// A span that continues what `parent` began; none where nothing did.
#[must_use]
pub fn part(name: &str, parent: Option<TraceParent>) -> Span {
    if parent.is_some() { begin(name, parent) } else { Span::none() }
}

/// A span within that of the task that asks; none where that has none.
#[must_use]
pub fn within(name: &str) -> Span {
    let is_within = || Span::current().metadata().is_some_and(|around| around.target() == TARGET);
    if is_on() && is_within() { make(name) } else { Span::none() }
}

/// What goes on from this span; none where it is none of a trace.
#[must_use]
pub fn of(span: &Span) -> Option<TraceParent> {
    TRACER.get()?.of(span)
}

/// Tells of the present span what it is about, where it is one of a trace.
pub fn note(field: &str, what: impl fmt::Display) {
    if is_on() {
        Span::current().record(field, tracing::field::display(what));
    }
}

/// Tells of a span that what it is of failed, and the word for why.
pub fn failed(span: &Span, reason: &str) {
    if is_on() {
        span.record("otel.status_code", "ERROR");
        span.record("raworc.outcome", reason);
    }
}

/// Fields have to be named where a span is made. What is not recorded is not told.
fn make(name: &str) -> Span {
    // Of the highest level, so that it is not the log's level that decides.
    tracing::error_span!(
        target: TARGET,
        "span",
        otel.name = name,
        otel.kind = Empty,
        otel.status_code = Empty,
        http.request.method = Empty,
        http.route = Empty,
        http.response.status_code = Empty,
        raworc.agent = Empty,
        raworc.message = Empty,
        raworc.attempt = Empty,
        raworc.incarnation = Empty,
        raworc.computer = Empty,
        raworc.runtime = Empty,
        raworc.model = Empty,
        raworc.acts = Empty,
        raworc.outcome = Empty,
    )
}
