//! Figures for Prometheus.
//!
//! What the HTTP side does itself it counts where it does it. Stores and engines know nothing of figures: whoever puts a
//! server together wraps them in [`MeteredStore`] and [`MeteredRuntime`]. What becomes of agents and messages is told by
//! the log: [`follow`] counts it there, so that no scrape asks the store.

mod engine;
mod store;
mod tally;
mod waits;

pub use engine::MeteredRuntime;
pub use store::MeteredStore;
pub use tally::{Followed, follow};

use std::sync::OnceLock;

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};

/// What `/metrics` shows.
pub use metrics_exporter_prometheus::PrometheusHandle as Figures;

/// Seconds, from a tenth of a millisecond to ten minutes.
const BUCKETS: [f64; 16] =
    [0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 5.0, 20.0, 60.0, 600.0];

/// The same for what becomes of messages, which may wait and work for hours: up to a day.
const LONG_BUCKETS: [f64; 12] = [0.001, 0.01, 0.1, 1.0, 5.0, 20.0, 60.0, 600.0, 1800.0, 3600.0, 14_400.0, 86_400.0];

/// What those are of.
const LONG: [&str; 2] = ["raworc_message_seconds", "raworc_message_wait_seconds"];

static HANDLE: OnceLock<Option<Figures>> = OnceLock::new();

/// Begins to count in this process, and returns what `/metrics` shows. None where something else counts already.
#[must_use]
pub fn install() -> Option<Figures> {
    HANDLE
        .get_or_init(|| {
            let builder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &BUCKETS);
            let builder = LONG.into_iter().fold(builder, |builder, name| {
                builder?.set_buckets_for_metric(Matcher::Full(name.into()), &LONG_BUCKETS)
            });
            let builder = builder.map(PrometheusBuilder::build_recorder);
            let recorder = match builder {
                Ok(recorder) => recorder,
                Err(error) => {
                    tracing::error!(%error, "there are no metrics");
                    return None;
                }
            };
            let handle = recorder.handle();
            metrics::set_global_recorder(recorder).ok()?;
            describe();
            Some(handle)
        })
        .clone()
}

/// What each counter, gauge and time is, as `/metrics` says it.
pub(super) const FIGURES: [&[(&str, &str)]; 3] = [
    &[
        ("raworc_http_requests_total", "Requests that were answered, by method, route and status"),
        ("raworc_store_commits_total", "Commits, by what came of them: done, replayed, conflict, failed"),
        (
            "raworc_store_purged_rows_total",
            "Rows that were too old and are gone, by kind: messages, steps, events, audit, agents, blobs",
        ),
        ("raworc_messages_accepted_total", "Messages that were accepted since this process began"),
        (
            "raworc_messages_ended_total",
            "Messages that ended since this process began, by how: done, failed, cancelled",
        ),
        ("raworc_program_calls_total", "Calls of agents' programs that were answered, by route and status"),
        ("raworc_model_calls_total", "Calls of models, by model and outcome"),
        ("raworc_model_tokens_total", "Tokens of calls of models, by model and kind: prompt, completion"),
        ("raworc_egress_connections_total", "Connections of closed computers, by outcome: made, refused, failed"),
        ("raworc_egress_bytes_total", "Bytes of connections of closed computers, by direction: sent, received"),
    ],
    &[
        ("raworc_http_streams", "Streams of events, and calls into computers, that are open"),
        ("raworc_links", "Programs that are linked here"),
        ("raworc_agents", "Agents of the installation, by state"),
        ("raworc_messages_queued", "Messages of the installation that wait for their agent"),
        ("raworc_store_commits_waiting", "Commits that this process's writer has yet to finish"),
        ("raworc_operator_queue", "Agents that this process's operator has yet to look at, now or later"),
        ("raworc_operator_due", "Those of them that are due"),
        (
            "raworc_engine_running",
            "What an engine does, by runtime and kind: changes, looks, pulls, images, logs, orphans",
        ),
        ("raworc_engine_waiting", "What waits for its turn at an engine, by the same"),
    ],
    &[
        ("raworc_http_request_seconds", "Time until a request's answer began, by method and route"),
        ("raworc_store_commit_seconds", "Time of a commit"),
        ("raworc_store_purge_seconds", "Time of a call that takes away some of what is too old"),
        ("raworc_agent_start_seconds", "Time until an agent was idle, by what began it: create, wake, restart"),
        ("raworc_message_wait_seconds", "Time until a message was taken up, by what its agent was when it came"),
        ("raworc_message_seconds", "Time until a message ended, by how: done, failed, cancelled"),
        ("raworc_program_call_seconds", "Time until the answer to an agent's program began, by route; a lease waits"),
        ("raworc_internal_call_seconds", "Time of a call to another process, by call and outcome"),
        ("raworc_engine_call_seconds", "Time of an engine's call, by runtime, call and outcome"),
        ("raworc_model_call_seconds", "Time of a call of a model, by model"),
    ],
];

fn describe() {
    let [counters, gauges, times] = FIGURES;
    counters.iter().for_each(|&(name, text)| describe_counter!(name, text));
    gauges.iter().for_each(|&(name, text)| describe_gauge!(name, text));
    times.iter().for_each(|&(name, text)| describe_histogram!(name, Unit::Seconds, text));
}
