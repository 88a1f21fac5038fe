use raworc_core::entropy::{EntropyExt, SystemEntropy};
use raworc_core::ids::{AgentId, MessageId, TenantName};
use raworc_core::message::{MessageState, Role};
use raworc_core::program::{ModelWire, WorkLimits};
use serde_json::json;
use uuid::Uuid;

use super::*;

fn lease(text: &str) -> LeaseReply {
    let now = jiff::Timestamp::UNIX_EPOCH;
    let message = Message {
        id: SystemEntropy.message_id(now),
        tenant: TenantName::default(),
        agent: AgentId::from_uuid(Uuid::nil()),
        seq: 1,
        role: Role::User,
        author: "user:ada".into(),
        parts: vec![Part::text(text)],
        reply_to: None,
        state: MessageState::Leased,
        attempt: 1,
        incarnation: None,
        cancel_requested: false,
        reason: None,
        created_at: now,
        leased_at: None,
        ended_at: None,
        traceparent: None,
    };
    let model = ModelSpec { name: "m".into(), wire: ModelWire::Ollama, context: 8192, vision: false };
    let work = WorkSpec {
        instructions: Some("Be brief.".into()),
        env: Default::default(),
        model: Some(model),
        limits: WorkLimits::default(),
    };
    LeaseReply { message, earlier_steps: Vec::new(), work }
}

fn begin(lease: LeaseReply) -> (Session, Vec<Output>) {
    Session::begin(lease, Conversation::default())
}

fn feed(session: &mut Session, events: impl IntoIterator<Item = ModelEvent>) -> Vec<Output> {
    events.into_iter().flat_map(|event| session.on(Input::Model(event))).collect()
}

fn text(words: &str) -> ModelEvent {
    ModelEvent::Text(words.into())
}

fn shell(command: &str) -> ModelEvent {
    let arguments = json!({ "command": command });
    ModelEvent::Call(ToolCall { id: String::new(), name: "shell".into(), arguments })
}

const DONE: ModelEvent = ModelEvent::Done { cut: false };

fn done(text: &str) -> Input {
    Input::ToolDone(ToolOutput { text: text.into(), broken_off: None })
}

/// What the outputs say, in lines for a snapshot.
fn lines(outputs: &[Output]) -> Vec<String> {
    let line = |output: &Output| match output {
        Output::CallModel { request, after } => {
            let last = request.turns.last().map(|turn| serde_json::to_string(turn).expect("a turn"));
            format!("call model after {after:?}, {} turns, last {}", request.turns.len(), last.unwrap_or_default())
        }
        Output::StopModel => "stop model".into(),
        Output::RunTool(tool) => format!("run {tool:?}"),
        Output::StopTool => "stop tool".into(),
        Output::Step(NewStep { kind, tool, text }) => {
            format!("step {kind:?} {}: {text}", tool.as_deref().unwrap_or("-"))
        }
        Output::Delta(text) => format!("delta {text:?}"),
        Output::End { ending, reply } => {
            format!("end {ending:?}: {:?}", reply.as_ref().map(|parts| parts[0].as_text().to_owned()))
        }
    };
    outputs.iter().map(line).collect()
}

fn failure(outputs: &[Output]) -> &str {
    match outputs.last() {
        Some(Output::End { ending: Ending::Failed { reason }, reply: None }) => reason,
        other => panic!("{other:?}"),
    }
}

fn request(outputs: &[Output]) -> &ModelRequest {
    match outputs.last() {
        Some(Output::CallModel { request, .. }) => request,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_command_is_run_without_a_model_and_answered_with_its_output() {
    let mut lease = lease("!ls -l");
    lease.work.model = None;
    let (mut session, mut outputs) = begin(lease);
    outputs.extend(session.on(done("a\nb\n[exit code 2]")));
    insta::assert_debug_snapshot!(lines(&outputs), @r#"
    [
        "step ToolCall shell: ls -l",
        "run Shell { command: \"ls -l\", seconds: 120 }",
        "step ToolResult shell: a\nb\n[exit code 2]",
        "end Done: Some(\"a\\nb\\n[exit code 2]\")",
    ]
    "#);
}

#[test]
fn a_command_that_is_broken_off_fails_with_the_reason() {
    let (mut session, _) = begin(lease("!sleep 1000"));
    let broken_off = Some("too long".into());
    let outputs = session.on(Input::ToolDone(ToolOutput { text: "so far".into(), broken_off }));
    assert_eq!(failure(&outputs), "too long");
}

#[test]
fn words_without_a_model_fail_with_the_way_out() {
    let mut lease = lease("hello");
    lease.work.model = None;
    let (_, outputs) = begin(lease);
    assert!(failure(&outputs).contains("no model is configured") && failure(&outputs).contains('!'));
}

#[test]
fn the_model_calls_tools_until_it_answers() {
    let (mut session, mut outputs) = begin(lease("count the files"));
    outputs.extend(feed(
        &mut session,
        [ModelEvent::Thinking("Let me ".into()), ModelEvent::Thinking("look.".into()), shell("ls"), shell("wc"), DONE],
    ));
    outputs.extend(session.on(done("a b")));
    outputs.extend(session.on(done("2")));
    outputs.extend(feed(&mut session, [text("There are "), text("two."), DONE]));
    insta::assert_debug_snapshot!(lines(&outputs), @r#"
    [
        "call model after 0ns, 2 turns, last {\"role\":\"user\",\"text\":\"count the files\"}",
        "step Thought -: Let me look.",
        "step ToolCall shell: ls",
        "run Shell { command: \"ls\", seconds: 120 }",
        "step ToolResult shell: a b",
        "step ToolCall shell: wc",
        "run Shell { command: \"wc\", seconds: 120 }",
        "step ToolResult shell: 2",
        "call model after 0ns, 5 turns, last {\"role\":\"tool\",\"call\":\"call_2\",\"name\":\"shell\",\"output\":\"2\"}",
        "delta \"There are \"",
        "delta \"two.\"",
        "end Done: Some(\"There are two.\")",
    ]
    "#);
}

#[test]
fn a_call_that_makes_no_sense_goes_back_to_the_model() {
    let (mut session, _) = begin(lease("x"));
    let call = ToolCall { id: "7".into(), name: "teleport".into(), arguments: json!({}) };
    let outputs = feed(&mut session, [ModelEvent::Call(call), DONE]);
    let last = request(&outputs).turns.last().cloned();
    assert!(matches!(last, Some(Turn::Tool { call, output, .. }) if call == "7" && output.contains("no tool")));
}

#[test]
fn a_model_that_never_comes_to_an_end_is_stopped_by_the_rounds() {
    let mut lease = lease("x");
    lease.work.limits.rounds = 3;
    let (mut session, _) = begin(lease);
    for round in 1..=3 {
        feed(&mut session, [shell("true"), DONE]);
        let outputs = session.on(done(""));
        if round == 3 {
            assert!(failure(&outputs).contains("made 3 calls"), "{outputs:?}");
        }
    }
}

#[test]
fn an_answer_that_keeps_to_the_limit_of_tokens_is_kept_however_long_its_words_are() {
    let mut lease = lease("go on");
    lease.work.limits.tokens = 100;
    let (mut session, outputs) = begin(lease);
    assert_eq!(request(&outputs).max_tokens, 100);
    let words = (0..100).map(|_| text("lengthy "));
    let end = [ModelEvent::Usage { read: 10, written: 100 }, ModelEvent::Done { cut: true }];
    let outputs = feed(&mut session, words.chain(end));
    assert!(matches!(outputs.last(), Some(Output::End { ending: Ending::Done, reply: Some(_) })), "{outputs:?}");
}

#[test]
fn endless_text_is_hung_up_on_at_the_limit_of_tokens() {
    let mut lease = lease("x");
    lease.work.limits.tokens = 100;
    let (mut session, _) = begin(lease);
    let mut outputs = Vec::new();
    for _ in 0..1000 {
        outputs = session.on(Input::Model(text("blah ")));
        if outputs.contains(&Output::StopModel) {
            break;
        }
    }
    assert!(failure(&outputs).contains("more than 100 tokens"), "{outputs:?}");
    assert_eq!(session.on(Input::Model(text("more"))), []);
}

#[test]
fn a_model_that_is_down_or_cut_is_asked_once_more_and_then_fails() {
    for failed in [ModelFailure::Unavailable("no route".into()), ModelFailure::Cut, ModelFailure::Garbage("?".into())] {
        let (mut session, _) = begin(lease("x"));
        let outputs = session.on(Input::ModelFailed(failed.clone()));
        assert!(matches!(outputs.last(), Some(Output::CallModel { after, .. }) if *after == RETRY_AFTER));
        assert_eq!(failure(&session.on(Input::ModelFailed(failed.clone()))), failed.to_string());
    }
}

#[test]
fn a_refusal_is_not_asked_again() {
    let (mut session, _) = begin(lease("x"));
    let outputs = session.on(Input::ModelFailed(ModelFailure::Refused("no such model".into())));
    assert!(failure(&outputs).contains("no such model"));
}

#[test]
fn what_was_said_before_a_cut_is_not_part_of_the_second_answer() {
    let (mut session, _) = begin(lease("x"));
    feed(&mut session, [text("Hal")]);
    session.on(Input::ModelFailed(ModelFailure::Cut));
    let outputs = feed(&mut session, [text("Hello"), DONE]);
    assert!(lines(&outputs).contains(&"end Done: Some(\"Hello\")".to_owned()), "{outputs:?}");
}

#[test]
fn an_empty_answer_is_asked_for_once_more() {
    let (mut session, _) = begin(lease("x"));
    assert!(matches!(feed(&mut session, [text(" "), DONE]).last(), Some(Output::CallModel { .. })));
    assert!(failure(&feed(&mut session, [DONE])).contains("empty answer"));
}

#[test]
fn an_answer_cut_at_its_length_says_so() {
    let (mut session, _) = begin(lease("x"));
    let outputs = feed(&mut session, [text("long"), ModelEvent::Done { cut: true }]);
    assert!(lines(&outputs).last().expect("an end").contains("was cut here"));
    let (mut session, _) = begin(lease("x"));
    let thinking = ModelEvent::Thinking("hm".into());
    assert!(failure(&feed(&mut session, [thinking, ModelEvent::Done { cut: true }])).contains("without an answer"));
}

#[test]
fn a_cancelled_message_stops_what_goes_on() {
    let (mut session, _) = begin(lease("x"));
    assert_eq!(lines(&session.on(Input::Cancel)), ["stop model", "end Cancelled: None"]);
    assert_eq!(session.on(Input::Cancel), []);

    let (mut session, _) = begin(lease("x"));
    feed(&mut session, [shell("sleep 100"), shell("ls"), DONE]);
    assert_eq!(lines(&session.on(Input::Cancel)), ["stop tool", "end Cancelled: None"]);
    assert_eq!(session.on(done("late")), []);
    let turns = session.into_conversation().turns("s");
    let results = turns.iter().filter(|turn| matches!(turn, Turn::Tool { .. })).count();
    assert_eq!(results, 2, "every call has a result: {turns:?}");

    let (mut session, _) = begin(lease("!sleep 100"));
    assert_eq!(lines(&session.on(Input::Cancel)), ["stop tool", "end Cancelled: None"]);
}

fn long_conversation() -> Conversation {
    let mut conversation = Conversation::default();
    for n in 0..20 {
        conversation.begin(MessageId::from_uuid(Uuid::from_u128(n)), format!("question {n} {}", "x".repeat(2000)));
        conversation.push(Turn::Assistant { text: format!("answer {n}"), calls: Vec::new() });
    }
    conversation
}

#[test]
fn a_conversation_that_is_too_long_is_summarised_before_the_model_goes_on() {
    let (mut session, outputs) = Session::begin(lease("next"), long_conversation());
    let summary = request(&outputs);
    assert!(!summary.tools && summary.turns.len() == 2, "{summary:?}");
    let outputs = feed(&mut session, [text("They asked "), text("questions."), DONE]);
    assert!(lines(&outputs).iter().all(|line| !line.starts_with("delta")), "a summary is nobody's business");
    let asked = request(&outputs);
    assert!(matches!(&asked.turns[1], Turn::User { text } if text.contains("They asked questions.")), "{asked:?}");
    assert!(matches!(asked.turns.last(), Some(Turn::User { text }) if text == "next"));
}

#[test]
fn where_no_summary_can_be_had_the_oldest_part_is_left_out_with_a_note() {
    for failed in [Input::ModelFailed(ModelFailure::Cut), Input::Model(DONE)] {
        let (mut session, _) = Session::begin(lease("next"), long_conversation());
        let outputs = session.on(failed);
        assert!(lines(&outputs)[0].contains("left out without a summary"), "{outputs:?}");
        let asked = request(&outputs);
        assert!(asked.tools && matches!(&asked.turns[1], Turn::User { text } if text.contains("left out")));
    }
}

#[test]
fn a_request_always_fits_into_the_window() {
    let mut lease = lease(&"ä".repeat(100_000));
    if let Some(model) = &mut lease.work.model {
        model.context = 4096;
    }
    let (mut session, outputs) = begin(lease);
    let mut last = request(&outputs).clone();
    for _ in 0..20 {
        let bytes: usize = last.turns.iter().map(|turn| serde_json::to_string(turn).expect("a turn").len()).sum();
        assert!(bytes / 4 + last.max_tokens as usize <= 4096, "{bytes}");
        feed(&mut session, [shell("cat big"), DONE]);
        last = request(&session.on(done(&"output ".repeat(10_000)))).clone();
    }
}

#[test]
fn a_model_that_reads_less_than_it_is_said_to_is_asked_with_less() {
    let asked_with = |reads: usize| {
        let mut lease = lease("next");
        lease.work.model.as_mut().expect("a model").context = 1 << 20;
        let (mut session, mut outputs) = Session::begin(lease, long_conversation());
        let mut said = Vec::new();
        while let Some(Output::CallModel { request, .. }) = outputs.last() {
            outputs = if serde_json::to_string(&request.turns).expect("turns").len() > reads {
                session.on(Input::ModelFailed(ModelFailure::TooLong("it is too long".into())))
            } else {
                feed(&mut session, [text("in short"), DONE])
            };
            said.extend(lines(&outputs));
        }
        assert!(said[0].contains("it is too long; it is asked again with less"), "{}", said[0]);
        said.pop().expect("an end")
    };
    assert_eq!(asked_with(16_384), "end Done: Some(\"in short\")");
    assert!(asked_with(1).contains("it is too long"));
}

#[test]
fn instructions_that_leave_no_room_fail_with_the_way_out() {
    let mut lease = lease("x");
    lease.work.instructions = Some("rule ".repeat(20_000));
    let (_, outputs) = begin(lease);
    assert!(failure(&outputs).contains("larger context"), "{outputs:?}");
}

#[test]
fn a_second_attempt_knows_what_the_first_did() {
    let mut lease = lease("x");
    let json = json!({
        "tenant": "default", "agent": Uuid::nil(), "seq": 1, "message": lease.message.id, "attempt": 1,
        "incarnation": 1, "kind": "tool_call", "tool": "shell", "text": "rm a", "at": "2026-01-01T00:00:00Z",
    });
    lease.earlier_steps = vec![serde_json::from_value(json).expect("a step")];
    let (_, outputs) = begin(lease);
    let asked = request(&outputs).turns.last().cloned();
    assert!(matches!(asked, Some(Turn::User { text }) if text.contains("earlier attempt") && text.contains("rm a")));
}
