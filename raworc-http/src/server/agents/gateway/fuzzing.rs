//! What fuzzers reach of the gateway: questions and answers on their way through.

use bytes::Bytes;
use futures::{StreamExt, stream};
use raworc_core::program::ModelWire;
use secrecy::SecretString;
use serde_json::Value;
use tokio::time::Instant;

use super::question::Asked;
use super::relay::Relay;
use super::upstream::{GatewayLimits, reader};
use super::usage::{Meter, ModelUsage};

/// The key of a provider that sends it back.
const KEY: &str = "sk-fuzzed";

/// An answer comes through as it was, up to where it goes wrong, in whatever pieces it comes; no key is in it, and no
/// more is counted than it says or has lines. The first two bytes are a choice, the others are the answer.
///
/// # Panics
/// Where that is not so.
pub fn answer(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first_chunk::<2>() else { return };
    let kind = if choice[0].is_multiple_of(2) { ModelWire::Openai } else { ModelWire::Ollama };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let relayed = |piece: usize, key: Option<&str>| runtime.block_on(relay(kind, bytes, piece, key));
    let text = String::from_utf8_lossy(bytes);
    let lines = bytes.split(|&byte| byte == b'\n').count() as u64;

    let (passed, whole, used) = relayed(bytes.len().max(1), None);
    let same = passed.iter().zip(bytes).take_while(|(one, other)| one == other).count();
    let begins = |at: usize| at == 0 || at == bytes.len() || passed[at - 1] == b'\n';
    // What ends it: a line break that was missing, the empty line that ends an event, or words about what went wrong.
    let added = (0..=same).rev().filter(|at| begins(*at)).map(|at| &passed[at..]).find(|added| match kind {
        ModelWire::Openai => matches!(*added, b"" | b"\n" | b"\n\n") || is_error(added, b"\ndata: "),
        ModelWire::Ollama => matches!(*added, b"" | b"\n") || is_error(added, b""),
    });
    assert!(added.is_some(), "{:?} is more than what came", String::from_utf8_lossy(&passed));
    for counted in [used.prompt_tokens, used.completion_tokens] {
        assert!(counted <= lines || text.contains(&counted.to_string()), "{counted} tokens in {text:?}");
    }
    assert_eq!((used.calls, used.failed <= 1), (1, true));

    for piece in [1, 2, 1 + usize::from(choice[1])] {
        assert_eq!(relayed(piece, None), (passed.clone(), whole, used), "in pieces of {piece}");
    }
    for piece in [1 + usize::from(choice[1]), bytes.len().max(1)] {
        let (concealed, ..) = relayed(piece, Some(KEY));
        assert!(!String::from_utf8_lossy(&concealed).contains(KEY), "the key comes through");
    }
}

fn is_error(added: &[u8], before: &[u8]) -> bool {
    let line = added.strip_prefix(before).and_then(|line| serde_json::from_slice::<Value>(line).ok());
    line.is_some_and(|line| line["error"].is_string() || line["error"]["message"].is_string())
}

/// All that is passed on, whether it came to an end, and what was counted.
async fn relay(kind: ModelWire, bytes: &[u8], piece: usize, key: Option<&str>) -> (Vec<u8>, bool, ModelUsage) {
    let meter = Meter::default();
    let pieces: Vec<_> = bytes.chunks(piece).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    let limits = GatewayLimits::default();
    let relay = Relay::new(
        Box::pin(stream::iter(pieces)),
        reader(kind),
        meter.begin(None, "m"),
        key.map(SecretString::from),
        &limits,
        Instant::now() + limits.total,
        None,
    );
    let mut answer = std::pin::pin!(relay.into_stream());
    let (mut passed, mut whole) = (Vec::new(), true);
    while let Some(next) = answer.next().await {
        match next {
            Ok(bytes) => passed.extend_from_slice(&bytes),
            Err(_) => whole = false,
        }
    }
    (passed, whole, meter.totals())
}

/// What is asked goes on to the provider as it came, but for the wish to have tokens counted.
///
/// # Panics
/// Where it does not.
pub fn question(body: &[u8]) {
    let Ok(asked) = Asked::read(body) else { return };
    let before: Value = serde_json::from_slice(body).expect("what was read is JSON");
    assert_eq!(asked.model.as_deref(), before["model"].as_str());
    for kind in [ModelWire::Openai, ModelWire::Ollama] {
        let asked = Asked::read(body).expect("as before");
        let Ok((streams, onward)) = asked.onward(kind, Bytes::copy_from_slice(body)) else { continue };
        let mut after: Value = serde_json::from_slice(&onward).expect("what goes on is JSON");
        assert_eq!(streams, before["stream"].as_bool().unwrap_or(kind == ModelWire::Ollama));
        if kind == ModelWire::Openai && streams {
            assert_eq!(after["stream_options"]["include_usage"], true);
            if before.get("stream_options").is_none() {
                after.as_object_mut().expect("an object").remove("stream_options");
            }
        }
        assert_eq!(after, before);
    }
}
