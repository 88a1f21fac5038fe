//! What a collector of traces is told by several processes.

#[path = "../cli/traces/collector.rs"]
#[allow(dead_code, reason = "another binary's tests use the rest")]
mod collector;

use std::collections::{BTreeMap, BTreeSet};

use self::collector::Collector;
use crate::Installation;
use crate::up::{Up, until};

pub(crate) fn by_server_and_operator_is_one_trace(installation: &Installation) {
    let collector = Collector::start();
    let start = |role: &str| {
        let mut command = installation.command(role, role);
        command.env("RAWORC_TRACING__OTLP", &collector.url).env("OTEL_BSP_SCHEDULE_DELAY", "100");
        Up::of(command)
    };
    let (server, operator) = (start("server"), start("operator"));
    let at = installation.at(&server);
    until("the runtime is known", || at.run(&["agent", "create", "ada", "--wait"]).code == 0);
    at.ok(&["agent", "sleep", "ada"]);
    let sent = at.json(&["send", "ada", "!true", "--no-wait"]);
    // The one after it is done once it is.
    at.ok(&["send", "ada", "!true", "--no-steps"]);
    assert_eq!(operator.end(), Some(0));
    assert_eq!(server.end(), Some(0));

    let traceparent = sent["traceparent"].as_str().expect("it has one");
    let trace = traceparent.split('-').nth(1).expect("a trace");
    let spans: Vec<_> = collector.spans().into_iter().filter(|span| span.trace == trace).collect();
    let ids: BTreeSet<_> = spans.iter().map(|span| span.id.as_str()).chain([""]).collect();
    assert!(spans.iter().all(|span| ids.contains(span.parent.as_str())), "each is below another: {spans:#?}");
    for (name, role) in [
        ("POST /api/v0/agents/{name}/messages", "server"),
        ("start a computer", "operator"),
        ("engine start", "operator"),
        ("lease", "server"),
        ("POST /agent/v0/end", "server"),
    ] {
        let mut of_it = spans.iter().filter(|span| span.name == name);
        assert!(of_it.next().is_some_and(|span| span.role == role), "{name:?} is no span of the {role}: {spans:#?}");
    }
    let mut instances = BTreeMap::<_, BTreeSet<_>>::new();
    for span in &spans {
        instances.entry(span.role.as_str()).or_default().insert(span.instance.as_str());
    }
    let all: BTreeSet<_> = instances.values().flatten().collect();
    assert!(instances.values().all(|of_role| of_role.len() == 1) && all.len() == 2, "{instances:?}");
}
