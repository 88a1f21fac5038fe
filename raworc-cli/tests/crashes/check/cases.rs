//! A good history, and for each rule bad ones that it must catch.

use std::collections::{BTreeMap, BTreeSet};

use crate::check::{RULES, violations};
use crate::clients::did;
use crate::history::{Act, AgentAtEnd, Call, History, Kept, Logged, Machine, NO_CODE, Outcome};

/// The rule that must catch it, what is wrong, and how a good history is spoiled.
type Bad = (&'static str, &'static str, fn(&mut History));

/// What looks odd and is none, and how a good history comes to it.
type Allowed = (&'static str, fn(&mut History));

const BAD: &[Bad] = &[
    ("lost", "a message that was acknowledged is not in the history", |h| {
        h.agents[0].messages.remove(1);
        h.agents[0].trace.remove(1);
    }),
    ("lost", "a message of a deleted agent is not in the log", |h| h.log.retain(|entry| entry.message != "m3")),
    ("lost", "a message has another number than was acknowledged", |h| h.agents[0].messages[1].seq = 7),
    ("work-missing", "a deleted agent had not done what is done", |h| {
        let bob = AgentAtEnd { id: "bob-1".into(), name: "bob".into(), ..AgentAtEnd::default() };
        h.past.push(AgentAtEnd { messages: vec![kept("m3", 1, "three")], ..bob });
    }),
    ("unended", "a message waits for ever", |h| h.agents[0].messages[0].state = "queued".into()),
    ("unended", "a message is held for ever", |h| h.agents[0].messages[1].state = "leased".into()),
    ("unended", "a message of a deleted agent waits for ever", |h| {
        h.log.retain(|entry| entry.message != "m3" || entry.to.is_empty());
        let last = h.log.iter().map(|entry| entry.revision).collect();
        *reader(h) = last;
    }),
    ("unended", "a message ends twice", |h| h.log.push(entry(20, "message.state", "m1", "failed", 1))),
    ("unended", "a message is taken up after its end", |h| h.log.push(entry(20, "message.state", "m2", "leased", 3))),
    ("doubled", "a lost answer makes a second message", |h| {
        let again = Kept { id: "m9".into(), seq: 9, ..h.agents[0].messages[0].clone() };
        h.agents[0].messages.push(again);
    }),
    ("doubled", "a key makes two messages", |h| h.calls.push(send(60, "one", Some("k1"), "m9", "ada-1", 9))),
    ("doubled", "a key makes two agents", |h| h.calls.push(create(60, "ada", "c1", "ada-2"))),
    ("phantom", "a message is there that nobody sent", |h| h.agents[0].messages[1].label = "other".into()),
    ("phantom", "a message that was refused is there", |h| h.calls[2].outcome = refused("inbox_full")),
    ("reordered", "the later has the lower number", |h| {
        h.agents[0].messages[0].seq = 5;
        h.calls[2].outcome = Outcome::Message { id: "m1".into(), agent: "ada-1".into(), seq: 5 };
    }),
    ("reordered", "the later is taken up first", |h| h.log.swap(3, 6)),
    ("work-missing", "what is done was not done", |h| drop(h.agents[0].trace.remove(1))),
    ("work-repeated", "one attempt works twice", |h| h.agents[0].trace.insert(0, "one".into())),
    ("work-repeated", "a message is taken up too often", |h| h.agents[0].messages[0].attempt = 4),
    ("work-repeated", "the work of another agent is there", |h| h.agents[0].trace.push("three".into())),
    ("work-repeated", "what was never taken up was done", |h| {
        h.agents[0].messages[1].state = "cancelled".into();
        h.agents[0].messages[1].attempt = 0;
    }),
    ("work-reordered", "an earlier attempt works on after a later message", |h| {
        h.agents[0].messages[0].attempt = 2;
        h.agents[0].trace.push("one".into());
    }),
    ("work-damaged", "a file of done work is gone", |h| drop(h.agents[0].intact.pop())),
    ("work-damaged", "a file has other bytes", |h| h.agents[0].intact.push("damaged three".into())),
    ("two-places", "a volume has two computers", |h| h.machine.twice.push("v1".into())),
    ("two-places", "two works are under way", |h| h.agents[0].trace.push("both two".into())),
    ("second-computer", "an agent was given another computer", |h| {
        h.machine.second_computers.push("v1 had two".into());
    }),
    ("reply", "what is done has no reply", |h| h.agents[0].messages[0].replies.clear()),
    ("reply", "what is done has two replies", |h| h.agents[0].messages[0].replies.push("did one".into())),
    ("reply", "what is done has the reply to another", |h| h.agents[0].messages[0].replies = vec!["did two".into()]),
    ("reply", "what is done has a part of its reply", |h| h.agents[0].messages[0].replies = vec!["did on".into()]),
    ("unasked", "a message is cancelled by itself", |h| h.agents[0].messages[0].state = "cancelled".into()),
    ("unasked", "a message is cancelled that was sent after the last cancel and the last sleep", |h| {
        h.agents[0].messages[1].state = "cancelled".into();
        h.calls.push(call(12, "ada", Act::Cancel, is("ada-1")));
        h.calls.push(call(13, "ada", Act::Sleep { now: true }, is("ada-1")));
    }),
    ("unasked", "a message is cancelled though another cancel was refused", |h| {
        h.agents[0].messages[1].state = "cancelled".into();
        h.calls.push(call(30, "ada", Act::Cancel, refused("not_found")));
    }),
    ("unasked", "a message fails at its first attempt", |h| h.agents[0].messages[0].state = "failed".into()),
    ("create-lost", "an agent is gone by itself", |h| h.calls.retain(|call| call.act != Act::Delete)),
    ("create-lost", "an agent is gone, and only the one before it was deleted", |h| {
        h.calls.push(create(50, "bob", "c9", "bob-2"));
        h.log.push(Logged { agent: "bob-2".into(), ..entry(20, "agent.created", "", "", 0) });
        reader(h).push(20);
    }),
    ("lost", "a message is gone with its agent, which nobody made or deleted", |h| {
        h.calls.push(send(60, "four", None, "m4", "bob-2", 1));
        h.log.push(Logged { agent: "bob-2".into(), ..entry(20, "message.accepted", "m4", "", 1) });
        reader(h).push(20);
    }),
    ("create-lost", "an agent is not in the log", |h| h.log.retain(|entry| entry.revision != 1)),
    ("create-lost", "a name is borne twice", |h| {
        let twin = AgentAtEnd { id: "ada-9".into(), messages: Vec::new(), trace: Vec::new(), ..h.agents[0].clone() };
        h.agents.push(twin);
    }),
    ("delete-undone", "a deleted agent is back", |h| {
        h.agents.push(AgentAtEnd { id: "bob-1".into(), name: "bob".into(), ..h.agents[0].clone() });
    }),
    ("stale-read", "what was made is not found", |h| h.calls.push(call(50, "ada", Act::Get, refused("not_found")))),
    ("stale-read", "what was deleted is read", |h| h.calls.push(call(50, "bob", Act::Get, is("bob-1")))),
    ("internal", "a read ends in an internal error", |h| h.calls.push(call(50, "ada", Act::Get, refused("internal")))),
    ("internal", "a wake ends in an internal error", |h| h.calls.push(call(50, "ada", Act::Wake, refused("internal")))),
    ("internal", "a delete ends in an internal error", |h| {
        h.calls.push(call(50, "ada", Act::Delete, refused("internal")))
    }),
    ("internal", "a send is answered with no error of the API", |h| {
        let act = Act::Send { label: "four".into(), key: None };
        h.calls.push(call(50, "ada", act, refused(NO_CODE)));
    }),
    ("events", "a reader misses one", |h| reader(h).retain(|revision| *revision != 4)),
    ("events", "a revision is nothing's", |h| {
        h.log.retain(|entry| entry.revision != 7);
        reader(h).retain(|revision| *revision != 7);
    }),
    ("events", "a reader is told one twice", |h| reader(h).insert(3, 3)),
    ("events", "a reader stops before the end", |h| reader(h).truncate(7)),
    ("restless", "an agent is not what it should be", |h| h.agents[0].state = "init".into()),
    ("restless", "the computer of a slept agent runs", |h| {
        h.agents[0].asked = "asleep".into();
        h.agents[0].desired = "asleep".into();
        h.agents[0].state = "slept".into();
    }),
    ("restless", "a sleep was acknowledged and forgotten", |h| h.agents[0].asked = "asleep".into()),
    ("restless", "a computer runs that no agent has", |h| h.machine.computers_at_rest = 2),
    ("restless", "a volume is kept that no agent has", |h| h.machine.volumes_at_rest = 2),
    ("unsound", "a row is wrong", |h| h.machine.unsound.push("quotas default: 4 agents are counted".into())),
    ("left-behind", "a volume is left of a deleted agent", |h| h.machine.left_of_deleted.push("volumes/v2".into())),
    ("left-behind", "a process is left of the server", |h| h.machine.left_of_server.push("process 7".into())),
    ("trouble", "a server does not start", |h| h.machine.troubles.push("it does not start".into())),
];

pub(crate) fn a_good_history_breaks_no_rule() {
    assert_eq!(violations(&good()), Vec::<String>::new());
}

pub(crate) fn every_bad_history_is_caught_by_its_rule() {
    for (rule, what, spoil) in BAD {
        let mut history = good();
        spoil(&mut history);
        let found = violations(&history);
        let caught = found.iter().any(|violation| violation.starts_with(&format!("{rule}: ")));
        assert!(caught, "{what}: {rule} does not catch it; found {found:#?}");
    }
}

pub(crate) fn what_could_not_be_read_is_not_taken_for_lost() {
    let mut history = good();
    history.log.clear();
    history.agents.clear();
    assert!(violations(&history).iter().any(|violation| violation.starts_with("lost: ")));
    history.machine.troubles.push("an agent does not start".into());
    assert_eq!(violations(&history), ["trouble: an agent does not start"]);
}

pub(crate) fn every_rule_has_a_bad_history() {
    let caught: BTreeSet<_> = BAD.iter().map(|(rule, ..)| *rule).collect();
    let rules: BTreeSet<_> = RULES.iter().map(|(rule, _)| *rule).collect();
    assert_eq!(caught, rules);
}

pub(crate) fn what_is_allowed_breaks_no_rule() {
    let allowed: [Allowed; 12] = [
        ("an operator has left, which is told nobody in the tenant", |h| {
            h.untold = 1;
            h.log.iter_mut().skip(5).for_each(|entry| entry.revision += 1);
            reader(h).iter_mut().skip(5).for_each(|revision| *revision += 1);
        }),
        ("work is repeated by a second attempt", |h| {
            h.agents[0].messages[0].attempt = 2;
            h.agents[0].trace.insert(0, "one".into());
        }),
        ("a call whose answer was lost was done", |h| h.calls[2].outcome = unknown()),
        ("a message was cancelled by a call whose answer was lost", |h| {
            h.agents[0].messages[0].state = "cancelled".into();
            h.calls.push(call(50, "ada", Act::Cancel, unknown()));
        }),
        ("a key that is used again is answered with its first message", |h| {
            h.calls.push(send(70, "one", Some("k1"), "m1", "ada-1", 1));
        }),
        ("an agent is gone by a delete whose answer was lost", |h| {
            h.calls[6].outcome = unknown();
            h.calls.push(call(50, "bob", Act::Get, refused("not_found")));
        }),
        ("a delete without an answer comes to an agent that was made after it", |h| {
            h.calls[6].outcome = unknown();
            h.calls.push(create(50, "bob", "c9", "bob-2"));
            h.log.push(Logged { agent: "bob-2".into(), ..entry(11, "agent.created", "", "", 0) });
            reader(h).push(11);
        }),
        ("a delete without an answer comes after a message that was sent since", |h| {
            h.calls[6].outcome = unknown();
            h.calls.push(send(60, "four", None, "m4", "bob-1", 2));
            for (revision, kind, to) in [(11, "message.accepted", ""), (12, "message.state", "cancelled")] {
                h.log.push(Logged { agent: "bob-1".into(), ..entry(revision, kind, "m4", to, 2) });
                reader(h).push(revision);
            }
        }),
        ("a create is answered again after its agent was deleted by a call without an answer", |h| {
            h.calls[6].outcome = unknown();
            h.calls.push(create(50, "bob", "c2", "bob-1"));
        }),
        ("a cancel without an answer comes to a message that was sent after it", |h| {
            h.agents[0].messages[1].state = "cancelled".into();
            h.calls.push(call(12, "ada", Act::Cancel, unknown()));
        }),
        ("what was deleted a moment ago is read, and shows that it will be deleted", |h| {
            h.calls.push(call(50, "bob", Act::Get, Outcome::Going));
        }),
        ("a message failed after all its attempts", |h| {
            h.agents[0].messages[0].state = "failed".into();
            h.agents[0].messages[0].attempt = 3;
        }),
    ];
    for (what, change) in allowed {
        let mut history = good();
        change(&mut history);
        assert_eq!(violations(&history), Vec::<String>::new(), "{what}");
    }
}

/// Ada does two messages. Bob does one and is deleted.
fn good() -> History {
    let calls = vec![
        create(1, "ada", "c1", "ada-1"),
        create(1, "bob", "c2", "bob-1"),
        send(10, "one", Some("k1"), "m1", "ada-1", 1),
        send(20, "two", None, "m2", "ada-1", 3),
        send(20, "three", None, "m3", "bob-1", 1),
        call(30, "ada", Act::Get, is("ada-1")),
        call(40, "bob", Act::Delete, is("bob-1")),
    ];
    let log = vec![
        Logged { agent: "ada-1".into(), ..entry(1, "agent.created", "", "", 0) },
        Logged { agent: "bob-1".into(), ..entry(2, "agent.created", "", "", 0) },
        entry(3, "message.accepted", "m1", "", 1),
        entry(4, "message.state", "m1", "leased", 1),
        entry(5, "message.state", "m1", "done", 1),
        entry(6, "message.accepted", "m2", "", 3),
        entry(7, "message.state", "m2", "leased", 3),
        Logged { agent: "bob-1".into(), ..entry(8, "message.accepted", "m3", "", 1) },
        entry(9, "message.state", "m2", "done", 3),
        Logged { agent: "bob-1".into(), ..entry(10, "message.state", "m3", "cancelled", 1) },
    ];
    let told = log.iter().map(|entry| entry.revision).collect();
    let ada = AgentAtEnd {
        id: "ada-1".into(),
        name: "ada".into(),
        asked: "awake".into(),
        desired: "awake".into(),
        state: "idle".into(),
        runs: true,
        messages: vec![kept("m1", 1, "one"), kept("m2", 3, "two")],
        trace: vec!["one".into(), "two".into()],
        intact: vec!["one".into(), "two".into()],
    };
    let machine = Machine { computers_at_rest: 1, volumes_at_rest: 1, ..Machine::default() };
    History {
        calls,
        log,
        untold: 0,
        readers: BTreeMap::from([("reader".to_owned(), told)]),
        agents: vec![ada],
        past: Vec::new(),
        machine,
    }
}

fn call(begun: u64, agent: &str, act: Act, outcome: Outcome) -> Call {
    Call { begun, ended: begun + 5, agent: agent.into(), act, outcome }
}

fn is(id: &str) -> Outcome {
    Outcome::Agent { id: id.into() }
}

fn refused(code: &str) -> Outcome {
    Outcome::Refused { code: code.into() }
}

fn unknown() -> Outcome {
    Outcome::Unknown { why: "connection_lost".into() }
}

fn create(begun: u64, agent: &str, key: &str, id: &str) -> Call {
    call(begun, agent, Act::Create { key: key.into() }, is(id))
}

fn send(begun: u64, label: &str, key: Option<&str>, id: &str, agent: &str, seq: u64) -> Call {
    let name = agent.split('-').next().unwrap_or_default();
    let act = Act::Send { label: label.into(), key: key.map(Into::into) };
    call(begun, name, act, Outcome::Message { id: id.into(), agent: agent.into(), seq })
}

fn entry(revision: u64, kind: &str, message: &str, to: &str, seq: u64) -> Logged {
    let (kind, message, to) = (kind.into(), message.into(), to.into());
    Logged { revision, kind, agent: "ada-1".into(), message, to, seq }
}

fn kept(id: &str, seq: u64, label: &str) -> Kept {
    Kept { id: id.into(), seq, label: label.into(), state: "done".into(), attempt: 1, replies: vec![did(label)] }
}

fn reader(history: &mut History) -> &mut Vec<u64> {
    history.readers.get_mut("reader").expect("a reader")
}
