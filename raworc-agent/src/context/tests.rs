use std::fs;

use raworc_core::entropy::{EntropyExt, SystemEntropy};
use serde_json::json;

use super::*;
use crate::model::ToolCall;

fn id() -> MessageId {
    SystemEntropy.message_id(jiff::Timestamp::UNIX_EPOCH)
}

fn exchange(conversation: &mut Conversation, question: &str, answer: &str) -> MessageId {
    let id = id();
    conversation.begin(id, question.into());
    conversation.push(Turn::Assistant { text: answer.into(), calls: Vec::new() });
    id
}

fn round(conversation: &mut Conversation, n: usize, output: &str) {
    let call = ToolCall { id: format!("c{n}"), name: "shell".into(), arguments: json!({ "command": "x" }) };
    conversation.push(Turn::Assistant { text: String::new(), calls: vec![call] });
    conversation.push(Turn::Tool { call: format!("c{n}"), name: "shell".into(), output: output.into() });
}

#[test]
fn a_conversation_comes_back_from_its_file() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join(".raworc/conversation.json");
    assert_eq!(Conversation::load(&path), (Conversation::default(), None));
    let mut conversation = Conversation::default();
    exchange(&mut conversation, "What is 6 x 7?", "42");
    round(&mut conversation, 1, "out");
    conversation.save(&path).expect("saved");
    assert_eq!(Conversation::load(&path), (conversation, None));
}

#[test]
fn a_damaged_file_is_set_aside_with_a_note() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("conversation.json");
    for damage in ["", "{\"version\":1,\"exch", "[]", "{\"version\":9,\"exchanges\":[]}"] {
        fs::write(&path, damage).expect("written");
        let (conversation, note) = Conversation::load(&path);
        assert_eq!(conversation, Conversation::default());
        let note = note.expect("a note");
        assert!(note.contains("set aside") && note.contains("begins anew"), "{note}");
        assert_eq!(fs::read_to_string(home.path().join("conversation.damaged.json")).expect("aside"), damage);
        assert!(!path.exists());
    }
}

#[test]
fn another_attempt_at_a_message_replaces_what_the_first_left() {
    let mut conversation = Conversation::default();
    let id = exchange(&mut conversation, "do it", "half");
    conversation.begin(id, "do it".into());
    assert_eq!(conversation.turns("s").len(), 2);
}

#[test]
fn the_oldest_exchanges_go_first_and_the_one_in_hand_stays() {
    let mut conversation = Conversation::default();
    for n in 0..10 {
        exchange(&mut conversation, &format!("question {n} {}", "x".repeat(1000)), "answer");
    }
    let surplus = conversation.surplus(6000);
    assert!((7..=8).contains(&surplus), "{surplus}");
    assert_eq!(conversation.surplus(0), 9);
    conversation.summarise(surplus, "They counted.".into());
    assert!(conversation.bytes() <= 3000 + 20);
    let turns = conversation.turns("s");
    assert!(matches!(&turns[1], Turn::User { text } if text.ends_with("They counted.")), "{turns:?}");
}

#[test]
fn what_is_forgotten_is_noted_once() {
    let mut conversation = Conversation::default();
    for n in 0..3 {
        exchange(&mut conversation, &n.to_string(), "a");
    }
    conversation.forget(1);
    conversation.forget(1);
    let summary = conversation.summary.expect("a note");
    assert_eq!(summary.matches("left out").count(), 1, "{summary}");
}

#[test]
fn a_long_exchange_in_hand_is_shortened_from_its_oldest_output_on() {
    let mut conversation = Conversation::default();
    conversation.begin(id(), "do it".into());
    for n in 0..10 {
        round(&mut conversation, n, &"o".repeat(1000));
    }
    assert!(conversation.shorten(8000));
    assert!(conversation.bytes() <= 8000);
    let turns = conversation.turns("s");
    let outputs: Vec<_> = turns
        .iter()
        .filter_map(|t| if let Turn::Tool { output, .. } = t { Some(output.len()) } else { None })
        .collect();
    assert_eq!(outputs.len(), 10);
    assert!(outputs[0] <= 400 && outputs[9] == 1000, "{outputs:?}");
}

#[test]
fn very_many_rounds_are_dropped_in_pairs_of_call_and_result() {
    let mut conversation = Conversation::default();
    conversation.begin(id(), "do it".into());
    for n in 0..200 {
        round(&mut conversation, n, "ok");
    }
    assert!(conversation.shorten(3000));
    let turns = conversation.turns("s");
    assert!(matches!(&turns[1], Turn::User { text } if text == "do it"));
    assert!(matches!(&turns[2], Turn::Assistant { .. }));
    assert!(matches!(turns.last(), Some(Turn::Tool { call, .. }) if call == "c199"));
}

#[test]
fn a_message_that_is_larger_than_the_window_is_cut() {
    let mut conversation = Conversation::default();
    conversation.begin(id(), "ä".repeat(100_000));
    assert!(conversation.shorten(4000));
    assert!(conversation.bytes() <= 4000);
}

#[test]
fn what_is_kept_on_disk_is_bounded() {
    let mut conversation = Conversation::default();
    for n in 0..300 {
        exchange(&mut conversation, &format!("{n}"), &"a".repeat(10_000));
    }
    conversation.prune();
    assert!(conversation.bytes() <= BYTES_LIMIT && conversation.exchanges.len() <= EXCHANGES_LIMIT);
    assert!(conversation.summary.is_some());
}

#[test]
fn a_transcript_keeps_to_its_limit() {
    let mut conversation = Conversation::default();
    for n in 0..50 {
        exchange(&mut conversation, &format!("{n} {}", "q".repeat(500)), "a");
    }
    let text = conversation.transcript(40, 2000);
    assert!(text.len() <= 2000, "{}", text.len());
    assert!(text.starts_with("User: 0 q"), "{text}");
}
