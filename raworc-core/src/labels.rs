//! Labels on agents, and selectors over them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a label's key or value may hold, after Kubernetes: 63 characters, `a-z A-Z 0-9 - _ . /`.
pub const LABEL_LIMIT: usize = 63;

/// Labels that an agent may have.
pub const LABELS_LIMIT: usize = 64;

/// Requirements that a selector may have.
pub const REQUIREMENTS_LIMIT: usize = 16;

/// Labels of an agent, by key.
pub type Labels = BTreeMap<String, String>;

/// A label or a selector that cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a valid {what}: {rule}")]
pub struct InvalidLabel {
    what: &'static str,
    text: String,
    rule: &'static str,
}

impl InvalidLabel {
    fn of(what: &'static str, text: &str, rule: &'static str) -> Self {
        Self { what, text: text.chars().take(80).collect(), rule }
    }
}

fn check(what: &'static str, text: &str, empty: bool) -> Result<(), InvalidLabel> {
    let fits = text.len() <= LABEL_LIMIT && (empty || !text.is_empty());
    let chars = text.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_./".contains(&c));
    if fits && chars {
        return Ok(());
    }
    Err(InvalidLabel::of(what, text, "use up to 63 letters, digits, '-', '_', '.' and '/'"))
}

/// Checks keys and values of `labels`.
///
/// # Errors
/// [`InvalidLabel`] names the first that cannot be taken.
pub fn check_labels(labels: &Labels) -> Result<(), InvalidLabel> {
    for (key, value) in labels {
        check("label key", key, false)?;
        check("label value", value, true)?;
    }
    Ok(())
}

/// One requirement of a [`Selector`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requirement {
    /// `key=value`
    Equals(String, String),
    /// `key!=value`: the label is absent or has another value.
    Differs(String, String),
    /// `key`
    Exists(String),
    /// `!key`
    Absent(String),
}

/// Requirements that must all hold, up to 16, written `app=web,tier!=db,beta,!old`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector(Vec<Requirement>);

impl Selector {
    /// Whether `labels` meet every requirement. An empty selector meets all.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| match requirement {
            Requirement::Equals(key, value) => labels.get(key) == Some(value),
            Requirement::Differs(key, value) => labels.get(key) != Some(value),
            Requirement::Exists(key) => labels.contains_key(key),
            Requirement::Absent(key) => !labels.contains_key(key),
        })
    }

    /// The requirements, in the order in which they were written.
    #[must_use]
    pub fn requirements(&self) -> &[Requirement] {
        &self.0
    }

    /// Whether there is no requirement.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for Selector {
    type Err = InvalidLabel;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let requirement = |part: &str| {
            let (key, requirement) = if let Some((key, value)) = part.split_once("!=") {
                check("selector value", value.trim(), true)?;
                (key.trim(), Requirement::Differs(key.trim().into(), value.trim().into()))
            } else if let Some((key, value)) = part.split_once('=') {
                let value = value.strip_prefix('=').unwrap_or(value).trim();
                check("selector value", value, true)?;
                (key.trim(), Requirement::Equals(key.trim().into(), value.into()))
            } else if let Some(key) = part.strip_prefix('!') {
                (key.trim(), Requirement::Absent(key.trim().into()))
            } else {
                (part, Requirement::Exists(part.into()))
            };
            check("selector key", key, false)?;
            Ok(requirement)
        };
        let parts = || text.split(',').map(str::trim).filter(|part| !part.is_empty());
        if parts().nth(REQUIREMENTS_LIMIT).is_some() {
            return Err(InvalidLabel::of("selector", text, "use up to 16 requirements"));
        }
        parts().map(requirement).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, requirement) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str(",")?;
            }
            match requirement {
                Requirement::Equals(key, value) => write!(f, "{key}={value}")?,
                Requirement::Differs(key, value) => write!(f, "{key}!={value}")?,
                Requirement::Exists(key) => f.write_str(key)?,
                Requirement::Absent(key) => write!(f, "!{key}")?,
            }
        }
        Ok(())
    }
}

impl Serialize for Selector {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_reads_back_as_it_was_written() {
        let text = "app=web,tier!=db,beta,!old";
        assert_eq!(text.parse::<Selector>().expect("valid").to_string(), text);
    }

    #[test]
    fn every_requirement_must_hold() {
        let labels = Labels::from([("app".into(), "web".into()), ("beta".into(), String::new())]);
        for (selector, holds) in [
            ("", true),
            ("app=web", true),
            ("app==web", true),
            ("app=db", false),
            ("app!=db", true),
            ("tier!=db", true),
            ("beta,!old", true),
            ("app=web,old", false),
        ] {
            let parsed: Selector = selector.parse().expect(selector);
            assert_eq!(parsed.matches(&labels), holds, "{selector}");
        }
    }

    #[test]
    fn a_selector_has_no_more_requirements_than_anybody_needs() {
        let of = |count: usize| vec!["a"; count].join(",").parse::<Selector>();
        assert_eq!(of(16).expect("as many as there may be").requirements().len(), 16);
        let error = of(17).expect_err("one too many").to_string();
        assert!(error.contains("up to 16 requirements"), "{error}");
        assert!(of(1_000_000).expect_err("far too many").to_string().len() < 200);
    }

    #[test]
    fn a_selector_without_a_key_is_refused() {
        assert!("=x".parse::<Selector>().is_err());
        assert!("a=b c".parse::<Selector>().is_err());
    }
}
