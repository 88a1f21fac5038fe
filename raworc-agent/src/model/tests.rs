use proptest::prelude::*;
use serde_json::json;

use super::*;

fn model(wire: ModelWire) -> ModelSpec {
    ModelSpec { name: "m".into(), wire, context: 8192, vision: false }
}

fn read(wire: ModelWire, stream: &[u8], chunk: usize) -> Result<Vec<ModelEvent>, ModelFailure> {
    let mut parser = super::wire(&model(wire)).parser();
    let mut events = Vec::new();
    for piece in stream.chunks(chunk.max(1)) {
        parser.feed(piece, &mut events)?;
    }
    parser.finish(&mut events)?;
    Ok(join(events))
}

/// Neighbouring pieces of text as one, for pieces may be of any size.
fn join(events: Vec<ModelEvent>) -> Vec<ModelEvent> {
    let mut joined: Vec<ModelEvent> = Vec::new();
    for event in events {
        match (joined.last_mut(), &event) {
            (Some(ModelEvent::Text(last)), ModelEvent::Text(text))
            | (Some(ModelEvent::Thinking(last)), ModelEvent::Thinking(text)) => last.push_str(text),
            _ => joined.push(event),
        }
    }
    joined
}

fn call(id: &str, name: &str, arguments: Value) -> ModelEvent {
    ModelEvent::Call(ToolCall { id: id.into(), name: name.into(), arguments })
}

const OLLAMA: &str = concat!(
    r#"{"model":"m","message":{"role":"assistant","content":"","thinking":"I thi"},"done":false}"#,
    "\n",
    r#"{"model":"m","message":{"role":"assistant","content":"","thinking":"nk"},"done":false}"#,
    "\n\r\n",
    r#"{"model":"m","message":{"role":"assistant","content":"Grüße "},"done":false}"#,
    "\r\n",
    r#"{"model":"m","message":{"role":"assistant","content":"🦀","tool_calls":[{"function":{"name":"shell","#,
    r#""arguments":{"command":"ls"}}}]},"done":false}"#,
    "\n",
    r#"{"model":"m","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","#,
    r#""prompt_eval_count":26,"eval_count":290}"#,
);

const OPENAI: &str = concat!(
    ": comment\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"Grüße \"}}]}\n\n",
    "event: message\ndata: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"🦀\",\"reasoning_content\":null}}]}\r\n\r\n",
    "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"a\",\"type\":\"function\",",
    "\"function\":{\"name\":\"shell\",\"arguments\":\"\"}}]}}]}\n\n",
    "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{\\\"comm\"}}]}}]}\n\n",
    "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":1,\"id\":\"b\",\"function\":{\"name\":\"files\",",
    "\"arguments\":{\"path\":\".\"}}}]}}]}\n\n",
    "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"and\\\":\\\"ls\\\"}\"}}]}}]}\n\n",
    "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\n",
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":26,\"completion_tokens\":290}}\n\n",
    "data: [DONE]\n\n",
);

fn ollama_events() -> Vec<ModelEvent> {
    vec![
        ModelEvent::Thinking("I think".into()),
        ModelEvent::Text("Grüße 🦀".into()),
        call("", "shell", json!({ "command": "ls" })),
        ModelEvent::Usage { read: 26, written: 290 },
        ModelEvent::Done { cut: false },
    ]
}

fn openai_events() -> Vec<ModelEvent> {
    vec![
        ModelEvent::Text("Grüße 🦀".into()),
        ModelEvent::Usage { read: 26, written: 290 },
        call("a", "shell", json!({ "command": "ls" })),
        call("b", "files", json!({ "path": "." })),
        ModelEvent::Done { cut: false },
    ]
}

proptest! {
    #[test]
    fn answers_read_the_same_wherever_the_stream_is_broken(chunk in 1_usize..400) {
        prop_assert_eq!(read(ModelWire::Ollama, OLLAMA.as_bytes(), chunk), Ok(ollama_events()));
        prop_assert_eq!(read(ModelWire::Openai, OPENAI.as_bytes(), chunk), Ok(openai_events()));
    }

    #[test]
    fn a_stream_that_is_cut_anywhere_never_counts_as_whole(part in 0.0_f64..1.0) {
        let end = (OLLAMA.len() as f64 * part) as usize;
        prop_assert!(read(ModelWire::Ollama, &OLLAMA.as_bytes()[..end], 7).is_err());
        let whole = OPENAI.find("\"finish_reason\"").expect("it stands there");
        let end = (whole as f64 * part) as usize;
        prop_assert!(read(ModelWire::Openai, &OPENAI.as_bytes()[..end], 7).is_err());
    }

    #[test]
    fn no_bytes_at_all_make_a_parser_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..600), place in 0_usize..600, chunk in 1_usize..64,
    ) {
        for (wire, good) in [(ModelWire::Ollama, OLLAMA), (ModelWire::Openai, OPENAI)] {
            let mut stream = good.as_bytes()[..place.min(good.len())].to_vec();
            stream.extend_from_slice(&bytes);
            let _ = read(wire, &stream, chunk);
        }
    }
}

#[test]
fn an_empty_stream_is_cut_and_a_page_of_html_is_garbage() {
    for wire in [ModelWire::Ollama, ModelWire::Openai] {
        assert_eq!(read(wire, b"", 1), Err(ModelFailure::Cut));
        let failure = read(wire, b"<html>502 Bad Gateway</html>", 9).expect_err("no answer");
        assert!(matches!(&failure, ModelFailure::Garbage(text) if text.contains("502 Bad")), "{failure:?}");
    }
}

#[test]
fn errors_in_a_stream_are_told_in_their_own_words() {
    let refused = |wire, text: &str| read(wire, text.as_bytes(), 5).expect_err("an error").to_string();
    assert!(refused(ModelWire::Ollama, "{\"error\":\"no such model\"}\n").contains("no such model"));
    assert!(refused(ModelWire::Openai, "{\"error\":{\"message\":\"too long\",\"code\":400}}").contains("too long"));
    assert!(refused(ModelWire::Openai, "data: {\"error\":{\"message\":\"too long\"}}\n\n").contains("too long"));
}

#[test]
fn what_came_before_something_that_cannot_be_read_is_told_in_whatever_pieces_it_comes() {
    let ollama = "{\"message\":{\"content\":\"hi\"}}\nnonsense\n";
    let openai = "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\ndata: nonsense\n\n";
    for (wire, stream) in [(ModelWire::Ollama, ollama), (ModelWire::Openai, openai)] {
        for chunk in [1, 7, stream.len()] {
            let (mut parser, mut events) = (super::wire(&model(wire)).parser(), Vec::new());
            let fed = stream.as_bytes().chunks(chunk).try_for_each(|piece| parser.feed(piece, &mut events));
            assert!(matches!(fed, Err(ModelFailure::Garbage(_))), "{wire:?} in {chunk}: {fed:?}");
            assert_eq!(events, [ModelEvent::Text("hi".into())], "{wire:?} in {chunk}");
        }
    }
}

#[test]
fn a_line_that_is_too_long_is_refused_in_one_piece_too() {
    let long = "a".repeat(4 << 20);
    for (wire, line) in [
        (ModelWire::Ollama, format!("{{\"message\":{{\"content\":\"{long}\"}}}}\n")),
        (ModelWire::Openai, format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{long}\"}}}}]}}\n\n")),
    ] {
        for chunk in [64 << 10, line.len()] {
            let failed = read(wire, line.as_bytes(), chunk).expect_err("too long");
            assert!(failed.to_string().contains("a line of more than"), "{wire:?} in {chunk}: {failed}");
        }
    }
}

#[test]
fn a_line_without_end_is_refused_before_it_fills_the_memory() {
    for (wire, start) in [(ModelWire::Ollama, "{\"message\":{\"content\":\""), (ModelWire::Openai, "data: {\"x\":\"")] {
        let mut parser = super::wire(&model(wire)).parser();
        let mut events = Vec::new();
        let mut fed = parser.feed(start.as_bytes(), &mut events);
        let piece = vec![b'a'; 1 << 20];
        for _ in 0..8 {
            fed = fed.and_then(|()| parser.feed(&piece, &mut events));
        }
        assert!(matches!(fed, Err(ModelFailure::Garbage(_))), "{wire:?}");
    }
}

#[test]
fn a_server_that_does_not_stream_is_understood() {
    let whole = r#"{"choices":[{"message":{"content":"hi","tool_calls":null},"finish_reason":"stop"}],"usage":null}"#;
    let events = vec![ModelEvent::Text("hi".into()), ModelEvent::Done { cut: false }];
    assert_eq!(read(ModelWire::Openai, whole.as_bytes(), 10), Ok(events.clone()));
    let whole = r#"{"message":{"content":"hi"},"done":true}"#;
    assert_eq!(read(ModelWire::Ollama, whole.as_bytes(), 10), Ok(events));
}

#[test]
fn arguments_are_objects_however_they_are_written() {
    let ls = json!({ "command": ["ls", "-l"] });
    assert_eq!(arguments(ls.clone()), ls);
    assert_eq!(arguments(Value::String(ls.to_string())), ls);
    assert_eq!(arguments(Value::String(Value::String(ls.to_string()).to_string())), ls);
    assert_eq!(arguments(json!("")), json!({}));
    assert_eq!(arguments(Value::Null), json!({}));
    assert_eq!(arguments(json!("{\"broken")), json!("{\"broken"));
}

#[test]
fn what_the_gateway_says_is_told_as_it_is_and_its_status_says_whether_a_second_try_may_help() {
    let body = |code: &str, text: &str| json!({ "error": { "code": code, "message": text } }).to_string();
    let busy = ModelFailure::from_status(502, body("model_unavailable", "the model is loading").as_bytes());
    assert!(busy.is_retryable(), "{busy:?}");
    assert_eq!(busy.to_string(), "the model is loading");
    let wrong = ModelFailure::from_status(400, body("model_rejected", "there is no model x").as_bytes());
    assert!(!wrong.is_retryable(), "{wrong:?}");
    assert_eq!(wrong.to_string(), "there is no model x");
    let long = ModelFailure::from_status(400, body("model_too_long", "too much").as_bytes());
    assert_eq!(long, ModelFailure::TooLong("too much".into()));
    let empty = ModelFailure::from_status(500, b"");
    assert!(empty.is_retryable() && empty.to_string().contains("HTTP 500"), "{empty:?}");
}

#[test]
fn a_conversation_is_written_as_each_wire_reads_it() {
    let calls = vec![ToolCall { id: "c1".into(), name: "shell".into(), arguments: json!({ "command": "ls" }) }];
    let turns = vec![
        Turn::System { text: "be brief".into() },
        Turn::User { text: "list".into() },
        Turn::Assistant { text: String::new(), calls },
        Turn::Tool { call: "c1".into(), name: "shell".into(), output: "a".into() },
    ];
    for wire in [ModelWire::Ollama, ModelWire::Openai] {
        let request = ModelRequest { model: model(wire), turns: turns.clone(), tools: false, max_tokens: 99 };
        insta::assert_json_snapshot!(format!("{wire:?}"), super::wire(&request.model).body(&request));
    }
}
