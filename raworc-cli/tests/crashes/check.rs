//! What must hold of every history. Each rule is a function from a history to what breaks it.

pub(crate) mod cases;

use std::collections::{BTreeMap, BTreeSet};

use raworc_core::message::MAX_ATTEMPTS;

use crate::clients::did;
use crate::history::{Act, AgentAtEnd, Call, History, Kept, NO_CODE, Outcome};

/// What finds what breaks it.
type Rule = (&'static str, fn(&History) -> Vec<String>);

/// The rules, by the name of what breaks each.
const RULES: [Rule; 22] = [
    ("trouble", trouble),
    ("lost", lost),
    ("unended", unended),
    ("doubled", doubled),
    ("phantom", phantom),
    ("reordered", reordered),
    ("work-missing", work_missing),
    ("work-repeated", work_repeated),
    ("work-reordered", work_reordered),
    ("work-damaged", work_damaged),
    ("two-places", two_places),
    ("second-computer", second_computer),
    ("reply", reply),
    ("unasked", unasked),
    ("create-lost", create_lost),
    ("delete-undone", delete_undone),
    ("stale-read", stale_read),
    ("internal", internal),
    ("events", events),
    ("restless", restless),
    ("unsound", unsound),
    ("left-behind", left_behind),
];

/// What breaks a rule: `rule: what`. Where what was could not be read in the end, why not is all that is told: most other rules
/// would be broken in consequence.
pub(crate) fn violations(history: &History) -> Vec<String> {
    let unread = history.log.is_empty() && !history.machine.troubles.is_empty();
    let rules = RULES.iter().filter(|(rule, _)| !unread || *rule == "trouble");
    let found = rules.flat_map(|(rule, check)| check(history).into_iter().map(move |what| format!("{rule}: {what}")));
    found.collect()
}

/// A message that was acknowledged.
struct Sent<'a> {
    call: &'a Call,
    label: &'a str,
    key: Option<&'a str>,
    id: &'a str,
    agent: &'a str,
    seq: u64,
}

fn acknowledged(history: &History) -> Vec<Sent<'_>> {
    let sent = history.calls.iter().filter_map(|call| match (&call.act, &call.outcome) {
        (Act::Send { label, key }, Outcome::Message { id, agent, seq }) => {
            Some(Sent { call, label, key: key.as_deref(), id, agent, seq: *seq })
        }
        _ => None,
    });
    sent.collect()
}

/// Agents whose messages and work are known.
fn known(history: &History) -> impl Iterator<Item = &AgentAtEnd> {
    history.agents.iter().chain(&history.past)
}

fn all_kept(history: &History) -> impl Iterator<Item = (&AgentAtEnd, &Kept)> {
    known(history).flat_map(|agent| agent.messages.iter().map(move |message| (agent, message)))
}

fn is_ended(state: &str) -> bool {
    matches!(state, "done" | "failed" | "cancelled")
}

/// Whether a call may have had its effect.
fn may_have_been(call: &Call) -> bool {
    !matches!(call.outcome, Outcome::Refused { .. })
}

/// A message that was acknowledged is in the log once, and in its agent's history as long as there is the agent.
fn lost(history: &History) -> Vec<String> {
    let mut found = Vec::new();
    for sent in acknowledged(history) {
        let accepted = history.log.iter().filter(|entry| entry.kind == "message.accepted" && entry.message == sent.id);
        let accepted = accepted.count();
        if accepted != 1 {
            found.push(format!("{} ({}) was acknowledged and is {accepted} times in the log", sent.label, sent.id));
        }
        let Some(agent) = known(history).find(|agent| agent.id == sent.agent) else {
            if !may_be_deleted(history, &sent.call.agent, sent.agent) {
                found.push(format!("{} ({}) was acknowledged, and nobody deleted its agent", sent.label, sent.id));
            }
            continue;
        };
        if !agent.messages.iter().any(|kept| kept.id == sent.id && kept.seq == sent.seq && kept.label == sent.label) {
            found.push(format!(
                "{} ({}) was acknowledged and is not in the history of {}",
                sent.label, sent.id, agent.name
            ));
        }
    }
    found
}

/// Every message has its end, and only one.
fn unended(history: &History) -> Vec<String> {
    let mut found = Vec::new();
    for (agent, kept) in all_kept(history).filter(|(_, kept)| !is_ended(&kept.state)) {
        found.push(format!("{} to {} is {} for ever", kept.label, agent.name, kept.state));
    }
    let mut ends = BTreeMap::<&str, usize>::new();
    for entry in history.log.iter().filter(|entry| entry.kind == "message.state") {
        let count = ends.entry(&entry.message).or_default();
        if *count > 0 {
            found.push(format!("message {} became {} after its end", entry.message, entry.to));
        }
        *count += usize::from(is_ended(&entry.to));
    }
    // Also of those whose agent is gone.
    let endless = acknowledged(history).into_iter().filter(|sent| ends.get(sent.id).is_none_or(|count| *count == 0));
    found.extend(endless.map(|sent| format!("{} ({}) has no end in the log", sent.label, sent.id)));
    found
}

/// One label is one message, and one key of idempotency is one message or one agent.
fn doubled(history: &History) -> Vec<String> {
    let mut found = Vec::new();
    let mut labels = BTreeSet::new();
    for (agent, kept) in all_kept(history) {
        if !labels.insert(&kept.label) {
            found.push(format!(
                "{} is twice there, the second time as number {} of {}",
                kept.label, kept.seq, agent.name
            ));
        }
    }
    let mut keys = BTreeMap::new();
    let sent = acknowledged(history).into_iter().filter_map(|sent| Some((sent.key?.to_owned(), sent.id.to_owned())));
    let made = history.calls.iter().filter_map(|call| match (&call.act, &call.outcome) {
        (Act::Create { key }, Outcome::Agent { id }) => Some((key.clone(), id.clone())),
        _ => None,
    });
    for (key, id) in sent.chain(made) {
        let first = keys.entry(key.clone()).or_insert_with(|| id.clone());
        if *first != id {
            found.push(format!("the key {key} made both {first} and {id}"));
        }
    }
    found
}

/// Nothing is there that nobody sent.
fn phantom(history: &History) -> Vec<String> {
    let labels = history.calls.iter().filter(|call| may_have_been(call)).filter_map(|call| match &call.act {
        Act::Send { label, .. } => Some((call.agent.as_str(), label.as_str())),
        _ => None,
    });
    let labels: BTreeSet<_> = labels.collect();
    let unknown =
        all_kept(history).filter(|(agent, kept)| !labels.contains(&(agent.name.as_str(), kept.label.as_str())));
    unknown.map(|(agent, kept)| format!("{} has {:?}, which nobody sent", agent.name, kept.label)).collect()
}

/// What was sent after an earlier one was acknowledged has a higher number, and is taken up later.
fn reordered(history: &History) -> Vec<String> {
    let mut found = Vec::new();
    let mut agents = BTreeMap::<_, Vec<_>>::new();
    for sent in acknowledged(history) {
        agents.entry(sent.agent).or_default().push(sent);
    }
    for sent in agents.values() {
        for first in sent {
            let later = sent.iter().filter(|second| first.call.ended < second.call.begun && first.id != second.id);
            for second in later.filter(|second| second.seq <= first.seq && !used_before(history, second, first)) {
                found.push(format!(
                    "{} has number {} and {}, sent later, {}",
                    first.label, first.seq, second.label, second.seq
                ));
            }
        }
    }
    let mut taken = BTreeMap::<&str, u64>::new();
    for entry in history.log.iter().filter(|entry| entry.kind == "message.state" && entry.to == "leased") {
        let last = taken.entry(&entry.agent).or_default();
        if entry.seq < *last {
            found.push(format!("agent {} took up number {} after {last}", entry.agent, entry.seq));
        }
        *last = entry.seq;
    }
    found
}

/// Whether another call may have sent `second` before `first` was acknowledged: one under the same key has its place from
/// the first use of it.
fn used_before(history: &History, second: &Sent<'_>, first: &Sent<'_>) -> bool {
    history.calls.iter().any(|call| {
        matches!(&call.act, Act::Send { label, .. } if label == second.label) && call.begun <= first.call.ended
    })
}

/// The work of what is done is on the volume.
fn work_missing(history: &History) -> Vec<String> {
    let done = all_kept(history).filter(|(_, kept)| kept.state == "done");
    let missing = done.filter(|(agent, kept)| !agent.trace.contains(&kept.label));
    missing
        .map(|(agent, kept)| format!("{} is done, and its work is not on the volume of {}", kept.label, agent.name))
        .collect()
}

/// Work is there once for each attempt at most, and there are no more attempts than are promised.
fn work_repeated(history: &History) -> Vec<String> {
    let mut found = Vec::new();
    for (agent, kept) in all_kept(history) {
        let times = agent.trace.iter().filter(|line| **line == kept.label).count();
        if times > kept.attempt as usize {
            found.push(format!("{} was done {times} times in {} attempts", kept.label, kept.attempt));
        }
        if kept.attempt > MAX_ATTEMPTS {
            found.push(format!("{} was taken up {} times", kept.label, kept.attempt));
        }
    }
    let labels: BTreeSet<_> = all_kept(history).map(|(agent, kept)| (&agent.id, &kept.label)).collect();
    for agent in known(history) {
        let unknown =
            agent.trace.iter().filter(|line| !line.starts_with("both ") && !labels.contains(&(&agent.id, line)));
        found.extend(unknown.map(|line| format!("{} did {line:?}, which is no message of it", agent.name)));
    }
    found
}

/// The traces of messages follow each other as the messages do.
fn work_reordered(history: &History) -> Vec<String> {
    let mut found = Vec::new();
    for agent in known(history) {
        let seq = |line: &String| agent.messages.iter().find(|kept| kept.label == *line).map(|kept| kept.seq);
        let seqs: Vec<_> = agent.trace.iter().filter_map(seq).collect();
        let wrong = seqs.windows(2).filter(|pair| pair[0] > pair[1]);
        found.extend(wrong.map(|pair| format!("{} did number {} after {}", agent.name, pair[1], pair[0])));
    }
    found
}

/// The files of what was done are whole: each was there under its name before its work was told.
fn work_damaged(history: &History) -> Vec<String> {
    let mut found = Vec::new();
    for agent in known(history) {
        let told = agent.trace.iter().filter(|line| !line.starts_with("both "));
        let gone = told.filter(|line| !agent.intact.contains(line));
        found.extend(
            gone.map(|line| format!("the file of {line} is not as it was left on the volume of {}", agent.name)),
        );
        let damaged = agent.intact.iter().filter(|line| line.starts_with("damaged "));
        found.extend(damaged.map(|line| format!("{}: {line}", agent.name)));
    }
    found
}

/// No volume has two computers, and no two works on it are under way at once.
fn two_places(history: &History) -> Vec<String> {
    let seen = history.machine.twice.iter().map(|volume| format!("volume {volume} had two computers at once"));
    let locked = known(history).flat_map(|agent| {
        let both = agent.trace.iter().filter(|line| line.starts_with("both "));
        both.map(move |line| format!("{}: other work was under way at {line:?}", agent.name))
    });
    seen.chain(locked).collect()
}

/// Each agent has one computer for all of its life.
fn second_computer(history: &History) -> Vec<String> {
    history.machine.second_computers.clone()
}

/// What is done has one reply, which says what its work said, and nothing has two.
fn reply(history: &History) -> Vec<String> {
    let wrong = all_kept(history).filter(|(_, kept)| match kept.replies.as_slice() {
        [] => kept.state == "done",
        [one] => kept.state == "done" && one.lines().last() != Some(&did(&kept.label)),
        _ => true,
    });
    wrong.map(|(_, kept)| format!("{} is {} and has the replies {:?}", kept.label, kept.state, kept.replies)).collect()
}

/// Nothing is cancelled that nobody asked to cancel, and nothing fails before its last attempt.
fn unasked(history: &History) -> Vec<String> {
    let mut found = Vec::new();
    for (agent, kept) in all_kept(history) {
        let sent =
            history.calls.iter().filter(|call| matches!(&call.act, Act::Send { label, .. } if *label == kept.label));
        // What had its answer before that was about other messages. What had none may come at any time.
        let since = sent.map(|call| call.begun).min().unwrap_or_default();
        let of_agent = history.calls.iter().filter(|call| call.agent == agent.name && may_have_been(call));
        let mut in_time = of_agent.filter(|call| call.ended > since || matches!(call.outcome, Outcome::Unknown { .. }));
        let asked = in_time.any(|call| match &call.act {
            Act::Cancel | Act::Sleep { now: true } => true,
            Act::CancelMessage { message } => *message == kept.id,
            _ => false,
        });
        if kept.state == "cancelled" && !asked {
            found.push(format!("{} was cancelled and nobody asked for that", kept.label));
        }
        if kept.state == "failed" && kept.attempt < MAX_ATTEMPTS {
            found.push(format!("{} failed at attempt {}", kept.label, kept.attempt));
        }
    }
    found
}

/// Whether somebody may have deleted the agent of this name and id. A call that was not answered may have its effect at any time:
/// a server that is cut off does what it was asked once it is there again, though nobody waits for it any more.
fn may_be_deleted(history: &History, name: &str, id: &str) -> bool {
    history.calls.iter().filter(|call| call.agent == name && call.act == Act::Delete).any(|call| match &call.outcome {
        Outcome::Agent { id: deleted } => deleted == id,
        Outcome::Unknown { .. } => true,
        _ => false,
    })
}

/// What was acknowledged to be made is told once in the log, and is there unless somebody deleted it.
fn create_lost(history: &History) -> Vec<String> {
    let mut found = Vec::new();
    for call in &history.calls {
        let (Act::Create { .. }, Outcome::Agent { id }) = (&call.act, &call.outcome) else { continue };
        let told = history.log.iter().filter(|entry| entry.kind == "agent.created" && entry.agent == *id).count();
        if told != 1 {
            found.push(format!("{} ({id}) was made and is {told} times in the log", call.agent));
        }
        let is_there = history.agents.iter().any(|agent| agent.id == *id);
        if !is_there && !may_be_deleted(history, &call.agent, id) {
            found.push(format!("{} ({id}) was made, and is gone though nobody deleted it", call.agent));
        }
    }
    let mut names = BTreeSet::new();
    let twice = history.agents.iter().filter(|agent| !names.insert(&agent.name));
    found.extend(twice.map(|agent| format!("two agents bear the name {}", agent.name)));
    found
}

/// What was acknowledged to be deleted is not there.
fn delete_undone(history: &History) -> Vec<String> {
    let deleted = history.calls.iter().filter(|call| call.act == Act::Delete).filter_map(|call| match &call.outcome {
        Outcome::Agent { id } => Some(id),
        _ => None,
    });
    let deleted: BTreeSet<_> = deleted.collect();
    let back = history.agents.iter().filter(|agent| deleted.contains(&agent.id));
    back.map(|agent| format!("{} ({}) was deleted and is there", agent.name, agent.id)).collect()
}

/// What was acknowledged shows in what is read after it.
fn stale_read(history: &History) -> Vec<String> {
    let mut found = Vec::new();
    for read in history.calls.iter().filter(|call| matches!(call.act, Act::Get | Act::Send { .. })) {
        let of_name = |call: &&Call| call.agent == read.agent && may_have_been(call);
        let may_change = |call: &Call, other: fn(&Act) -> bool, since: u64| {
            // One whose outcome is unknown may take effect at any time after it was begun.
            let ended = if matches!(call.outcome, Outcome::Unknown { .. }) { u64::MAX } else { call.ended };
            other(&call.act) && call.begun < read.ended && ended > since
        };
        match &read.outcome {
            Outcome::Refused { code } if code == "not_found" => {
                let made = history.calls.iter().filter(of_name).filter(|call| {
                    matches!((&call.act, &call.outcome), (Act::Create { .. }, Outcome::Agent { .. }))
                        && call.ended < read.begun
                });
                // A create that was answered again under its key says nothing of now.
                let first = made.filter(|call| !is_repeat(history, call));
                if let Some(call) = first.max_by_key(|call| call.ended)
                    && !history
                        .calls
                        .iter()
                        .filter(of_name)
                        .any(|other| may_change(other, |act| *act == Act::Delete, call.begun))
                {
                    found.push(format!("{} was made at {} and not found at {}", read.agent, call.ended, read.begun));
                }
            }
            Outcome::Agent { id } => {
                let deleted = history.calls.iter().filter(of_name).find(|call| {
                    call.act == Act::Delete
                        && call.ended < read.begun
                        && call.outcome == Outcome::Agent { id: id.clone() }
                });
                found.extend(
                    deleted.map(|call| format!("{id} was deleted at {} and read at {}", call.ended, read.begun)),
                );
            }
            _ => {}
        }
    }
    found
}

/// No call fails by a fault of the server. That it could not be done just now is another thing, and its outcome unknown.
fn internal(history: &History) -> Vec<String> {
    let faults = history.calls.iter().filter(|call| {
        // An answer that is none of the API's comes of a fault as well.
        matches!(&call.outcome, Outcome::Refused { code } if matches!(code.as_str(), "internal" | NO_CODE))
    });
    faults.map(|call| format!("{:?} about {} at {}: {:?}", call.act, call.agent, call.begun, call.outcome)).collect()
}

/// Whether the same key was used before.
fn is_repeat(history: &History, create: &Call) -> bool {
    first_use(history, create) < create.begun
}

/// When the first call was begun that may have made what this one was answered with: one under the same key, or for a
/// message with the same label.
fn first_use(history: &History, made: &Call) -> u64 {
    let same = |call: &&Call| match (&call.act, &made.act) {
        (Act::Create { key }, Act::Create { key: of_made }) => key == of_made,
        (Act::Send { label, .. }, Act::Send { label: of_made, .. }) => label == of_made,
        _ => false,
    };
    history.calls.iter().filter(same).map(|call| call.begun).fold(made.begun, u64::min)
}

/// The log has no gap but for what is not told, and every reader is told all of it in order, without a gap and without a repetition.
fn events(history: &History) -> Vec<String> {
    let log: Vec<_> = history.log.iter().map(|entry| entry.revision).collect();
    let gaps = || log.windows(2).filter(|pair| pair[1] != pair[0] + 1);
    let missing: u64 = gaps().map(|pair| pair[1].saturating_sub(pair[0] + 1)).sum();
    let mut found: Vec<_> = gaps()
        .filter(|pair| pair[1] <= pair[0] || missing > history.untold)
        .map(|pair| format!("{} follows {} in the log", pair[1], pair[0]))
        .collect();
    for (name, seen) in &history.readers {
        let known: Vec<_> =
            seen.iter().copied().filter(|revision| log.last().is_some_and(|last| revision <= last)).collect();
        if let Some(at) = (0..log.len().max(known.len())).find(|at| log.get(*at) != known.get(*at)) {
            let (log, known) = (log.get(at), known.get(at));
            found.push(format!("{name}: entry {at} of the log is {log:?}, and it was told {known:?}"));
        }
    }
    found
}

/// Every agent comes to rest as its owner wants it, and no computer runs but those of agents that are awake.
fn restless(history: &History) -> Vec<String> {
    let mut found = Vec::new();
    for agent in &history.agents {
        if agent.desired != agent.asked {
            found.push(format!(
                "{} was asked to be {} last, and wants to be {}",
                agent.name, agent.asked, agent.desired
            ));
        }
        let rests = match agent.desired.as_str() {
            "asleep" => agent.state == "slept" && !agent.runs,
            _ => agent.state == "idle" && agent.runs,
        };
        if !rests {
            let AgentAtEnd { name, desired, state, runs, .. } = agent;
            found.push(format!("{name} should be {desired} and is {state}, its computer runs: {runs}"));
        }
    }
    let awake = history.agents.iter().filter(|agent| agent.desired == "awake").count();
    let machine = &history.machine;
    if machine.computers_at_rest != awake {
        found.push(format!("{} computers run for {awake} agents that are awake", machine.computers_at_rest));
    }
    if machine.volumes_at_rest != history.agents.len() {
        found.push(format!("{} volumes are kept for {} agents", machine.volumes_at_rest, history.agents.len()));
    }
    found
}

/// Rows can be read, and agree with each other.
fn unsound(history: &History) -> Vec<String> {
    history.machine.unsound.clone()
}

/// Nothing is left of what was deleted and of a server that has ended.
fn left_behind(history: &History) -> Vec<String> {
    let machine = &history.machine;
    let of_deleted = machine.left_of_deleted.iter().map(|what| format!("{what} is left of a deleted agent"));
    let of_server = machine.left_of_server.iter().map(|what| format!("{what} is left of the server"));
    of_deleted.chain(of_server).collect()
}

/// The server starts, serves and ends. Where it does not, most other rules are broken in consequence.
fn trouble(history: &History) -> Vec<String> {
    history.machine.troubles.clone()
}
