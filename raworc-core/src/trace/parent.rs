//! [`TraceParent`]: where in which trace something goes on.

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Where in which trace something goes on, as [W3C Trace Context](https://www.w3.org/TR/trace-context/) writes it in the
/// header `traceparent`: `00-`, 32 digits of the trace, 16 of the span, and its flags.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceParent {
    trace: NonZeroU128,
    span: NonZeroU64,
    flags: u8,
}

/// Whether whoever made it has told of its span.
const SAMPLED: u8 = 1;

/// What is no [`TraceParent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no traceparent: write 00-, 32 digits, 16 digits and 2 digits, in lower case, with dashes between")]
pub struct InvalidTraceParent;

impl TraceParent {
    /// One of these ids; none where one of them is zero. What the flags say beside whether it is sampled is not kept.
    #[must_use]
    pub fn new(trace: u128, span: u64, flags: u8) -> Option<Self> {
        Some(Self { trace: NonZeroU128::new(trace)?, span: NonZeroU64::new(span)?, flags: flags & SAMPLED })
    }

    /// The trace's id.
    #[must_use]
    pub const fn trace(&self) -> u128 {
        self.trace.get()
    }

    /// The span's id.
    #[must_use]
    pub const fn span(&self) -> u64 {
        self.span.get()
    }

    /// Whether whoever made it has told of its span, so that others tell of theirs.
    #[must_use]
    pub const fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, self.flags)
    }
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TraceParent {
    type Err = InvalidTraceParent;

    fn from_str(text: &str) -> Result<Self, InvalidTraceParent> {
        // A later version may have more behind a dash, and the rest as this one has it.
        let (head, more) = text.split_at_checked(55).ok_or(InvalidTraceParent)?;
        let mut parts = head.split('-');
        let version = digits(parts.next(), 2)?;
        let trace = digits(parts.next(), 32)?;
        let span = digits(parts.next(), 16)?;
        let flags = digits(parts.next(), 2)?;
        let is_whole = more.is_empty() || (version > 0 && more.starts_with('-'));
        if !is_whole || version == 0xff || parts.next().is_some() {
            return Err(InvalidTraceParent);
        }
        // Each has as many digits as fit.
        let (span, flags) = (u64::try_from(span).unwrap_or_default(), u8::try_from(flags).unwrap_or_default());
        Self::new(trace, span, flags).ok_or(InvalidTraceParent)
    }
}

fn digits(part: Option<&str>, count: usize) -> Result<u128, InvalidTraceParent> {
    let is_lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let part = part.filter(|part| part.len() == count && part.bytes().all(is_lower_hex));
    part.and_then(|part| u128::from_str_radix(part, 16).ok()).ok_or(InvalidTraceParent)
}

impl Serialize for TraceParent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TraceParent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn what_is_written_is_read_again_and_only_whether_it_is_sampled_is_kept_of_its_flags() {
        let parent: TraceParent = GIVEN.parse().expect("a traceparent");
        assert!(parent.is_sampled());
        assert_eq!(parent.to_string(), GIVEN);
        assert_eq!(serde_json::to_string(&parent).expect("written"), format!("{GIVEN:?}"));
        let flags = |flags: &str| format!("{}{flags}", &GIVEN[..53]).parse::<TraceParent>().expect("a traceparent");
        assert_eq!(flags("ff"), parent);
        assert!(!flags("02").is_sampled());
    }

    #[test]
    fn one_of_a_later_version_is_read_as_far_as_this_one_goes() {
        let later = format!("cc{}-what-comes-then", &GIVEN[2..]);
        assert_eq!(later.parse(), GIVEN.parse::<TraceParent>());
    }

    #[test]
    fn what_is_no_traceparent_is_refused_whatever_it_holds() {
        let wrong = [
            "",
            "00",
            "garbage",
            &GIVEN[..54],
            &format!("{GIVEN}-more"),
            &format!("{GIVEN}0"),
            &GIVEN.to_uppercase(),
            &GIVEN.replacen("00-", "ff-", 1),
            &GIVEN.replacen("00-", "cc-", 1).replacen("-01", "-01x", 1),
            &GIVEN.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &GIVEN.replace("b7ad6b7169203331", &"0".repeat(16)),
            &GIVEN.replace("b7ad6b7169203331", "b7ad6b716920333+"),
            &GIVEN.replace("0af7651916cd43dd", "+af7651916cd43dd"),
            &GIVEN.replace('-', "_"),
            &"é".repeat(55),
        ];
        for text in wrong {
            assert_eq!(text.parse::<TraceParent>(), Err(InvalidTraceParent), "{text:?}");
        }
    }
}
