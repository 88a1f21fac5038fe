//! Agents for people.

use indicatif::HumanBytes;
use jiff::Timestamp;
use raworc_core::agent::{Agent, Condition, ConditionKind, Desired, State};
use raworc_core::control::{ActivityKind, Explanation};
use raworc_http::api::EgressCount;

use super::talk::printable;
use super::{Console, Ink, Style, Table};
use crate::duration::{age, ahead, short};

/// A table of agents.
#[must_use]
pub fn table(agents: &[Agent], now: Timestamp, console: &Console) -> String {
    if agents.is_empty() {
        return String::new();
    }
    let mut table = Table::new(["NAME", "STATE", "QUEUED", "SINCE", "AGE", "NOTE"]);
    for agent in agents {
        table.row([
            agent.name.to_string(),
            state(agent, console.out),
            agent.inbox.queued.to_string(),
            age(agent.status.since, now),
            age(agent.created_at, now),
            note(agent),
        ]);
    }
    table.render(console)
}

/// What keeps an agent from being up that is to be, in one line.
#[must_use]
pub fn obstacle(agent: &Agent) -> Option<String> {
    let ready = agent.status.conditions.get(ConditionKind::Ready).filter(|ready| !ready.status)?;
    let line = printable(ready.message.lines().next()?);
    (agent.status.state() == State::Init).then_some(line)
}

/// What a closed computer reached.
#[must_use]
pub fn egress(counts: &[EgressCount], console: &Console) -> String {
    if counts.is_empty() {
        return String::new();
    }
    let mut table = Table::new(["HOST", "CONNECTIONS", "REFUSED", "SENT", "RECEIVED"]);
    for count in counts {
        table.row([
            printable(&count.target),
            count.connections.to_string(),
            count.refused.to_string(),
            HumanBytes(count.sent_bytes).to_string(),
            HumanBytes(count.received_bytes).to_string(),
        ]);
    }
    table.render(console)
}

/// The state, with what its owner wants where that is something else.
fn state(agent: &Agent, style: Style) -> String {
    let state = agent.status.state();
    let (ink, wish) = match (state, agent.desired) {
        (State::Deleted, _) => (Ink::Dim, ""),
        (_, Desired::Deleted) => (Ink::Dim, " (deleting)"),
        (State::Slept, Desired::Awake) => (Ink::Yellow, " (waking)"),
        (State::Slept, _) => (Ink::Dim, ""),
        (State::Idle | State::Busy | State::Init, Desired::Asleep) => (Ink::Yellow, " (falling asleep)"),
        (State::Idle, _) => (Ink::Green, ""),
        (State::Busy, _) => (Ink::Cyan, ""),
        (State::Init, _) => (Ink::Yellow, ""),
    };
    format!("{}{wish}", style.paint(ink, state.as_str()))
}

/// What is the matter, in a word or two.
fn note(agent: &Agent) -> String {
    troubles(agent).map(|condition| printable(&condition.reason)).collect::<Vec<_>>().join(", ")
}

/// What is not as it should be. Nobody expects a sleeping agent to be ready.
fn troubles(agent: &Agent) -> impl Iterator<Item = &Condition> {
    let asleep = agent.status.state() == State::Slept;
    let conditions = agent.status.conditions.iter().filter(|condition| condition.is_remarkable());
    conditions.filter(move |condition| !(asleep && condition.kind == ConditionKind::Ready))
}

/// One agent, in some lines.
#[must_use]
pub fn page(agent: &Agent, now: Timestamp, console: &Console) -> String {
    let status = &agent.status;
    let mut lines = vec![
        ("name", agent.name.to_string()),
        ("state", format!("{}, for {}", state(agent, console.out), age(status.since, now))),
        ("owner", format!("{} in {}", agent.owner, agent.tenant)),
        ("id", agent.id.to_string()),
        ("made", format!("{} ago, generation {}", age(agent.created_at, now), agent.generation)),
        ("started", format!("{} times", status.incarnation)),
        ("messages", format!("{} so far, {} queued", agent.inbox.last_seq, agent.inbox.queued)),
    ];
    let spec = &agent.spec;
    let mut text =
        |name: &'static str, value: Option<String>| lines.extend(value.map(|value| (name, printable(&value))));
    text("about", spec.description.clone());
    text("runtime", spec.runtime.as_ref().map(ToString::to_string));
    text("image", spec.image.clone());
    text("model", spec.model.clone());
    let labels: Vec<_> = spec.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    text("labels", (!labels.is_empty()).then(|| labels.join(", ")));
    let limits = [
        spec.resources.cpu.map(|cpu| format!("cpu {cpu}")),
        spec.resources.memory.map(|bytes| format!("memory {bytes}")),
        spec.resources.disk.map(|bytes| format!("disk {bytes}")),
        spec.resources.pids.map(|pids| format!("pids {pids}")),
    ];
    let limits: Vec<_> = limits.into_iter().flatten().collect();
    text("limits", (!limits.is_empty()).then(|| limits.join(", ")));
    text(
        "sleeps",
        Some(match spec.idle_timeout {
            0 => "never by time".to_owned(),
            seconds => format!("after {} without activity", short(std::time::Duration::from_secs(seconds.into()))),
        }),
    );
    text("computer", status.computer.map(|id| id.to_string()));
    let mut page = labelled(&lines, console.out);
    for condition in troubles(agent) {
        page.push_str(&bad(condition, console.out));
    }
    page
}

fn labelled(lines: &[(&str, String)], style: Style) -> String {
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    lines
        .iter()
        .map(|(name, value)| format!("{}  {value}\n", style.paint(Ink::Bold, &format!("{name:width$}"))))
        .collect()
}

fn bad(condition: &Condition, style: Style) -> String {
    let reason = style.paint(Ink::Yellow, &format!("{}:", printable(&condition.reason)));
    format!("{reason} {}\n", printable(condition.message.trim()))
}

/// Why an agent is as it is.
#[must_use]
pub fn explanation(name: &str, explanation: &Explanation, now: Timestamp, console: &Console) -> String {
    let style = console.out;
    let mut text = format!("{} is {}", style.paint(Ink::Bold, name), explanation.state);
    match explanation.because.as_slice() {
        [] => text.push_str(".\n"),
        because => text.push_str(&format!(": {}.\n", printable(&because.join("; ")))),
    }
    for reason in &explanation.activity {
        let what = match reason.kind {
            ActivityKind::Message => "it works on a message",
            ActivityKind::ModelCall => "its model is thinking",
            ActivityKind::Command => "somebody runs a command in its computer",
            ActivityKind::Files => "somebody moves files",
            ActivityKind::Setup => "its setup script runs",
            ActivityKind::KeepAwake => "somebody asked to keep it awake",
        };
        let until = reason.until.map(|until| format!(", for {} more at most", ahead(until, now))).unwrap_or_default();
        text.push_str(&format!("Kept awake: {what}{until}.\n"));
    }
    if explanation.queued > 0 {
        text.push_str(&format!(
            "{} {} in its inbox.\n",
            explanation.queued,
            if explanation.queued == 1 { "message waits" } else { "messages wait" }
        ));
    }
    if let Some(at) = explanation.sleeps_at {
        text.push_str(&format!("It goes to sleep in {} unless something happens.\n", ahead(at, now)));
    }
    if let Some(at) = explanation.retry_at {
        text.push_str(&format!("Its next start is tried in {}.\n", ahead(at, now)));
    }
    for condition in &explanation.conditions {
        text.push_str(&bad(condition, style));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::args::GlobalArgs;

    /// Clears the screen, names the window, and rings.
    const HOSTILE: &str = "\u{1b}[2J\u{1b}]0;owned\u{7}said\u{202e}";

    fn condition() -> serde_json::Value {
        json!({ "type": "Ready", "status": false, "reason": format!("Setup{HOSTILE}"),
                "message": HOSTILE, "since": "2026-01-01T00:00:00Z" })
    }

    #[test]
    fn what_a_computer_or_a_user_wrote_does_not_play_with_the_terminal() {
        let explained = json!({ "state": "init", "desired": "awake", "because": [HOSTILE], "activity": [],
                                "sleeps_at": null, "retry_at": null, "queued": 0, "conditions": [condition()] });
        let explained: Explanation = serde_json::from_value(explained).expect("an explanation");
        let console = Console::new(&GlobalArgs { color: crate::args::Colour::Never, ..GlobalArgs::default() });
        let shown = explanation("ada", &explained, Timestamp::UNIX_EPOCH, &console);
        assert_eq!(shown, "ada is init: said.\nSetupsaid: said\n");
        let condition: Condition = serde_json::from_value(condition()).expect("a condition");
        assert_eq!(bad(&condition, console.out), "Setupsaid: said\n");
    }
}
