//! What fuzzers call: each function takes whatever bytes there are and panics where something does not hold of them.
//!
//! It is there in tests and for fuzzers alone. The seeds of `fuzz/seeds` run with the tests of this crate.

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use raworc_core::program::{ModelSpec, ModelWire};

use crate::model::{ModelEvent, ModelFailure, wire};
use crate::truncate::{Collector, beginning, cut, whole_characters};

pub use crate::link::fuzzing::{archive, path_of};

/// The first two bytes of what a fuzzer gives are a choice, and the others are what is read.
fn choice(data: &[u8]) -> Option<(usize, &[u8])> {
    let (choice, rest) = data.split_first_chunk::<2>()?;
    Some((usize::from(u16::from_be_bytes(*choice)), rest))
}

/// Whatever is shortened stays within its bound, and is text from the beginning and the end of what was there.
///
/// # Panics
/// Where that is not so.
pub fn truncation(data: &[u8]) {
    let Some((limit, bytes)) = choice(data) else { return };
    let text = String::from_utf8_lossy(bytes);

    let begun = beginning(&text, limit);
    assert!(text.starts_with(begun) && begun.len() <= limit, "{begun:?} of {text:?} within {limit}");
    assert!(begun.len() + 4 > limit.min(text.len()), "{begun:?} is less of {text:?} than {limit}");

    let whole = whole_characters(bytes);
    assert!(whole <= bytes.len() && whole + 4 > bytes.len(), "{whole} of {bytes:x?}");
    assert!(std::str::from_utf8(bytes).is_err() || whole == bytes.len(), "{bytes:x?} is whole");

    let shown = text.replace('\0', "\u{fffd}");
    let short = cut(&text, limit);
    assert!(!short.contains('\0'), "{short:?}");
    if shown.len() <= limit {
        assert_eq!(short, shown);
    } else if limit > NOTE {
        assert!(short.len() <= limit, "{} > {limit}: {short:?}", short.len());
    }
    let cuts = |kept: &str| {
        let note = kept.find("bytes are cut here]\n").expect("a note");
        let head = kept[..note].rfind('[').expect("its beginning");
        let (head, tail) = (&kept[..head], &kept[note + "bytes are cut here]\n".len()..]);
        (head.strip_suffix('\n').unwrap_or(head).to_owned(), tail.to_owned())
    };
    // Where the text has such words itself it cannot be told what is the note.
    if short != shown && !text.contains("bytes are cut here]") {
        let (head, tail) = cuts(&short);
        assert!(shown.starts_with(&head) && shown.ends_with(&tail), "{short:?} of {shown:?}");
    }

    // However it comes in pieces, the same is kept.
    let collected = |piece: usize| {
        let mut collector = Collector::new(limit);
        bytes.chunks(piece).for_each(|piece| collector.push(piece));
        collector.into_text()
    };
    let at_once = collected(bytes.len().max(1));
    for piece in [1, 2, 3, 1 + limit % 97] {
        assert_eq!(collected(piece), at_once, "in pieces of {piece}");
    }
    // One broken byte shows as three.
    assert!(at_once.len() <= 3 * limit + NOTE, "{} bytes for {limit}", at_once.len());
}

/// Bytes of the note that stands for what was cut.
const NOTE: usize = 48;

/// A boot line that is taken says the same when it is written again.
///
/// # Panics
/// Where it does not.
pub fn boot(data: &[u8]) {
    use secrecy::ExposeSecret;

    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let Ok(boot) = runtime.block_on(crate::boot::read(data)) else { return };
    let line = boot.to_line();
    assert_eq!(line.find('\n'), Some(line.len() - 1), "{line:?} is one line");
    let again = runtime.block_on(crate::boot::read(line.as_bytes())).expect("what was written is read");
    assert_eq!((&boot.agent_url, &boot.ca), (&again.agent_url, &again.ca));
    assert_eq!((boot.computer, boot.incarnation), (again.computer, again.incarnation));
    assert_eq!(boot.key.expose_secret(), again.key.expose_secret());
    // An address is taken, or it is said what is wrong with it.
    if let Err(error) = crate::server::check(&boot.agent_url, boot.ca.as_deref()) {
        assert!(!error.is_empty());
    }
}

/// A model's answer is read alike in whatever pieces it comes.
///
/// # Panics
/// Where it is not.
pub fn model_stream(data: &[u8]) {
    let Some((choice, bytes)) = choice(data) else { return };
    let kind = if choice % 2 == 0 { ModelWire::Openai } else { ModelWire::Ollama };
    let (events, end) = answer(kind, bytes, bytes.len().max(1));
    let ends = events.iter().filter(|event| matches!(event, ModelEvent::Done { .. })).count();
    assert_eq!(ends, usize::from(end.is_ok()), "one end where it is whole: {events:?}");
    if let Err(ModelFailure::Garbage(why) | ModelFailure::Failed(why)) = &end {
        assert!(why.len() < 1000 && !why.contains('\0'), "{why:?}");
    }
    for piece in [1, 2, 1 + choice / 2 % 61] {
        let (in_pieces, end_in_pieces) = answer(kind, bytes, piece);
        assert_eq!(end_in_pieces, end, "in pieces of {piece}");
        assert_eq!(in_pieces, events, "in pieces of {piece}");
    }
}

/// What the answer says until its end, or until it cannot be read any further.
fn answer(kind: ModelWire, bytes: &[u8], piece: usize) -> (Vec<ModelEvent>, Result<(), ModelFailure>) {
    let model = ModelSpec { name: "m".into(), wire: kind, context: 4096, vision: false };
    let mut parser = wire(&model).parser();
    let mut events = Vec::new();
    for piece in bytes.chunks(piece) {
        let read = parser.feed(piece, &mut events);
        if read.is_err() {
            return (events, read);
        }
    }
    let end = parser.finish(&mut events);
    (events, end)
}

/// The directory that stands for an agent's home where a path is read.
pub fn home() -> &'static Path {
    Path::new("/some/home")
}

/// The same path as an agent's own tools understand it.
#[must_use]
pub fn meant_by(path: &str) -> PathBuf {
    crate::home::resolve(home(), path)
}
