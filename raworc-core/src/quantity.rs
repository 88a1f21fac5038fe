//! Amounts of cpu and memory, written as Kubernetes writes them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A quantity that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a valid amount of {what}: write {form}")]
pub struct InvalidQuantity {
    text: String,
    what: &'static str,
    form: &'static str,
}

/// Processor time, in thousandths of a core: `500m` is half a core, `2` two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, example = "500m"))]
pub struct Cpu(u32);

impl Cpu {
    /// An amount in thousandths of a core.
    #[must_use]
    pub const fn from_millis(millis: u32) -> Self {
        Self(millis)
    }

    /// Thousandths of a core.
    #[must_use]
    pub const fn millis(self) -> u32 {
        self.0
    }
}

impl FromStr for Cpu {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = match text.strip_suffix('m') {
            Some(millis) => millis.parse::<u32>().ok(),
            None => text
                .parse::<f64>()
                .ok()
                .map(|cores| (cores * 1000.0).round())
                .filter(|millis| (1.0..=f64::from(u32::MAX)).contains(millis))
                .map(|millis| millis as u32),
        };
        parsed.filter(|&millis| millis > 0).map(Self).ok_or_else(|| InvalidQuantity {
            text: text.chars().take(40).collect(),
            what: "cpu",
            form: "cores such as 2 or 0.5, or thousandths such as 500m",
        })
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1000) { write!(f, "{}", self.0 / 1000) } else { write!(f, "{}m", self.0) }
    }
}

/// An amount of memory or disk in bytes: `512Mi`, `2Gi`, `500M` or a plain number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, example = "512Mi"))]
pub struct Bytes(u64);

const UNITS: [(&str, u64); 8] = [
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("k", 1_000),
];

impl Bytes {
    /// An amount in bytes.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Bytes.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl FromStr for Bytes {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, unit) = UNITS
            .iter()
            .find_map(|&(suffix, unit)| text.strip_suffix(suffix).map(|number| (number, unit)))
            .unwrap_or((text, 1));
        number.parse::<u64>().ok().and_then(|n| n.checked_mul(unit)).filter(|&n| n > 0).map(Self).ok_or_else(|| {
            InvalidQuantity {
                text: text.chars().take(40).collect(),
                what: "memory or disk",
                form: "bytes such as 512Mi, 2Gi or 500M",
            }
        })
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS[..4].iter().find(|(_, unit)| self.0.is_multiple_of(*unit)) {
            Some((suffix, unit)) if self.0 > 0 => write!(f, "{}{suffix}", self.0 / unit),
            _ => write!(f, "{}", self.0),
        }
    }
}

macro_rules! as_text {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                #[derive(Deserialize)]
                #[serde(untagged, expecting = "a number, or a text such as 500m or 512Mi")]
                enum Form {
                    Number(serde_json::Number),
                    Text(String),
                }
                let text = match Form::deserialize(deserializer)? {
                    Form::Number(number) => number.to_string(),
                    Form::Text(text) => text,
                };
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

as_text!(Cpu);
as_text!(Bytes);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_back_in_their_shortest_form() {
        for (text, shown) in [("500m", "500m"), ("0.5", "500m"), ("2", "2"), ("2000m", "2")] {
            assert_eq!(text.parse::<Cpu>().expect(text).to_string(), shown);
        }
        for (text, shown) in [("512Mi", "512Mi"), ("1024Mi", "1Gi"), ("1000", "1000"), ("1M", "1000000")] {
            assert_eq!(text.parse::<Bytes>().expect(text).to_string(), shown);
        }
    }

    #[test]
    fn nothing_and_nonsense_are_refused() {
        for text in ["", "0", "-1", "m", "1.2.3", "NaN", "inf", "99999999999"] {
            assert!(text.parse::<Cpu>().is_err(), "{text}");
        }
        for text in ["", "0", "-1", "Mi", "1.5Gi", "99999999999Ti"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
    }
}
