//! Keeps output within a bound: its beginning, its end, and a note of what was cut between them.

use std::borrow::Cow;
use std::collections::VecDeque;

/// What shows for NUL.
const SHOWN: &str = "\u{fffd}";

/// Collects a stream of any length in a bounded space.
#[derive(Debug)]
pub(crate) struct Collector {
    head_limit: usize,
    tail_limit: usize,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    total: u64,
}

impl Collector {
    /// Keeps `limit` bytes: half from the beginning, half from the end.
    pub(crate) fn new(limit: usize) -> Self {
        Self::with_limits(limit / 2, limit - limit / 2)
    }

    /// Keeps the last `limit` bytes.
    pub(crate) fn tail(limit: usize) -> Self {
        Self::with_limits(0, limit)
    }

    const fn with_limits(head_limit: usize, tail_limit: usize) -> Self {
        Self { head_limit, tail_limit, head: Vec::new(), tail: VecDeque::new(), total: 0 }
    }

    /// Takes the next piece.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let room = self.head_limit - self.head.len();
        let (head, rest) = bytes.split_at(room.min(bytes.len()));
        self.head.extend_from_slice(head);
        let rest = &rest[rest.len().saturating_sub(self.tail_limit)..];
        let surplus = (self.tail.len() + rest.len()).saturating_sub(self.tail_limit);
        self.tail.drain(..surplus);
        self.tail.extend(rest);
    }

    /// Whether nothing came.
    pub(crate) const fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// What was kept, as text. Broken UTF-8 and NUL show as the replacement character.
    pub(crate) fn into_text(self) -> String {
        let Self { mut head, tail, total, .. } = self;
        let tail = Vec::from(tail);
        let cut = total - (head.len() + tail.len()) as u64;
        if cut == 0 {
            head.extend(tail);
            return printable(&head);
        }
        let start = tail.iter().take(3).take_while(|&&byte| is_continuation(byte)).count();
        let end = whole_characters(&head);
        let cut = cut + (start + head.len() - end) as u64;
        let note = format!("[{cut} bytes are cut here]\n{}", printable(&tail[start..]));
        if end == 0 { note } else { format!("{}\n{note}", printable(&head[..end])) }
    }
}

/// `text` itself where it has at most `limit` bytes; else its beginning and end, with a note between them, within
/// `limit` bytes wherever `limit` leaves room for the note.
pub(crate) fn cut(text: &str, limit: usize) -> String {
    const NOTE: usize = 48;
    // Before it is measured, for this makes it longer.
    let text = if text.contains('\0') { text.replace('\0', SHOWN).into() } else { Cow::Borrowed(text) };
    if text.len() <= limit {
        return text.into_owned();
    }
    let mut collector = Collector::new(limit.saturating_sub(NOTE));
    collector.push(text.as_bytes());
    collector.into_text()
}

/// The longest beginning of `text` of at most `limit` bytes that ends between two characters.
pub(crate) fn beginning(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\0', SHOWN)
}

const fn is_continuation(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

/// The length of `bytes` without a character at its end whose rest is missing.
pub(crate) fn whole_characters(bytes: &[u8]) -> usize {
    let Some(back) = bytes.iter().rev().take(4).position(|&byte| !is_continuation(byte)) else {
        return bytes.len();
    };
    let first = bytes.len() - 1 - back;
    let wanted = match bytes[first] {
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf7 => 4,
        0x00..=0xbf | 0xf8..=0xff => 1,
    };
    if back + 1 < wanted { first } else { bytes.len() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn short_text_stays_as_it_is() {
        assert_eq!(cut("grüß dich", 64), "grüß dich");
    }

    #[test]
    fn what_is_cut_is_counted_in_a_note() {
        let text = cut(&"a".repeat(1000), 148);
        assert!(text.starts_with(&"a".repeat(50)) && text.ends_with(&"a".repeat(50)), "{text}");
        assert!(text.contains("[900 bytes are cut here]"), "{text}");
    }

    #[test]
    fn a_tail_holds_the_last_bytes_alone() {
        let mut tail = Collector::tail(4);
        tail.push(b"0123456789");
        assert_eq!(tail.into_text(), "[6 bytes are cut here]\n6789");
    }

    #[test]
    fn nul_never_comes_through() {
        assert_eq!(cut("a\0b", 64), "a\u{fffd}b");
    }

    proptest! {
        #[test]
        fn characters_are_never_split(text in "\\PC{0,200}", limit in 49usize..400, chunk in 1usize..17) {
            let clean = cut(&text, limit);
            prop_assert!(clean.len() <= limit, "{} > {limit}", clean.len());
            prop_assert!(text.contains('\u{fffd}') || !clean.contains('\u{fffd}'), "{clean:?}");

            let mut collector = Collector::new(limit);
            for piece in text.as_bytes().chunks(chunk) {
                collector.push(piece);
            }
            let collected = collector.into_text();
            prop_assert!(text.contains('\u{fffd}') || !collected.contains('\u{fffd}'), "{collected:?}");

            let begun = beginning(&text, limit);
            prop_assert!(text.starts_with(begun) && begun.len() + 4 > limit.min(text.len()), "{begun:?}");
        }

        #[test]
        fn what_becomes_longer_is_cut_as_well(text in "(\\PC|\\x00){0,200}", limit in 49usize..400) {
            let clean = cut(&text, limit);
            prop_assert!(clean.len() <= limit, "{} > {limit}", clean.len());
            prop_assert!(!clean.contains('\0'));
        }

        #[test]
        fn any_bytes_are_kept_within_the_bound(bytes in prop::collection::vec(any::<u8>(), 0..2000), limit in 0usize..300) {
            let mut collector = Collector::new(limit);
            for piece in bytes.chunks(7) {
                collector.push(piece);
            }
            prop_assert!(collector.head.len() + collector.tail.len() <= limit);
            // One broken byte shows as three.
            prop_assert!(collector.into_text().len() <= 3 * limit + 48);
        }
    }
}
