//! What a program asks of a model. Its body is passed on as it came: read into values it would take many times its size.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use raworc_core::control::ActivityGuard;
use raworc_core::program::ModelWire;
use serde::de::{Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::super::listener::Room;
use super::usage::Open;
use crate::server::error::ApiError;

/// A request to a model.
pub(super) struct Question<'a> {
    pub(super) model: &'a str,
    /// Whether the answer is to be a stream.
    pub(super) streams: bool,
    pub(super) body: Bytes,
    pub(super) open: Option<Open>,
    /// What the body takes, given back once it has been sent.
    pub(super) room: Option<Room>,
    pub(super) guard: Option<ActivityGuard>,
}

/// What the gateway has to know of a body.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) model: Option<String>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

/// The fields that are read. None may be there twice, nor in other letters: servers differ in which of two they take,
/// and some take `Model` for `model`.
const FIELDS: [&str; 3] = ["model", "stream", "stream_options"];

impl<'de> Deserialize<'de> for Asked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Asked;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with a model and messages")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Asked, A::Error> {
                let (mut asked, mut seen) = (Asked::default(), [false; FIELDS.len()]);
                while let Some(key) = map.next_key::<String>()? {
                    let folded = key.to_uppercase().to_lowercase();
                    let Some(field) = FIELDS.iter().position(|field| folded == *field) else {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    };
                    if std::mem::replace(&mut seen[field], true) || key != FIELDS[field] {
                        return Err(A::Error::custom(format!(
                            "{:?} may be there once, in these letters",
                            FIELDS[field]
                        )));
                    }
                    match field {
                        0 => asked.model = map.next_value()?,
                        1 => asked.stream = map.next_value()?,
                        _ => asked.stream_options = Some(map.next_value::<Option<_>>()?.unwrap_or_default()),
                    }
                }
                Ok(asked)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

impl Asked {
    pub(super) fn read(body: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    /// Whether the answer is to be a stream, and the body as it goes to the provider, which has to count tokens.
    pub(super) fn onward(self, wire: ModelWire, body: Bytes) -> Result<(bool, Bytes), ApiError> {
        let streams = self.stream.unwrap_or(wire == ModelWire::Ollama);
        if wire == ModelWire::Ollama || !streams {
            return Ok((streams, body));
        }
        match self.stream_options {
            Some(StreamOptions { include_usage: Some(true) }) => Ok((streams, body)),
            Some(_) => Err(ApiError::invalid("stream_options", "leave it out, or have include_usage in it")),
            // Without it the stream says nothing of tokens.
            None => Ok((streams, with_usage(&body))),
        }
    }
}

/// The same object with one more field at its beginning.
fn with_usage(body: &[u8]) -> Bytes {
    const FIELD: &[u8] = br#"{"stream_options":{"include_usage":true},"#;
    let start = body.iter().position(|&byte| byte == b'{').map_or(0, |brace| brace + 1);
    let mut longer = BytesMut::with_capacity(FIELD.len() + body.len());
    longer.put_slice(FIELD);
    longer.put_slice(&body[start..]);
    longer.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_is_there_twice_or_in_other_letters_is_refused() {
        for body in [
            r#"{"model":"a","model":"b"}"#,
            r#"{"model":"a","Model":"b"}"#,
            r#"{"MODEL":"a"}"#,
            r#"{"model":"a","\u006dodel":"b"}"#,
            r#"{"model":"a","\u017ftream":true}"#,
            r#"{"stream":true,"stream":false}"#,
            r#"{"model":3}"#,
            r#"["model"]"#,
            "{",
        ] {
            assert!(Asked::read(body.as_bytes()).is_err(), "{body}");
        }
        assert!(Asked::read(b"{\"model\":\"a\",\"x\":\"\xff\"}").is_err());
    }

    #[test]
    fn a_stream_is_asked_for_its_tokens_and_nothing_else_is_changed() {
        let onward = |wire, body: &'static str| {
            let (streams, body) = Asked::read(body.as_bytes()).unwrap().onward(wire, Bytes::from(body)).unwrap();
            (streams, serde_json::from_slice::<serde_json::Value>(&body).unwrap())
        };
        let body = r#" { "model": "a", "stream": true, "messages": [{"stream": false}] }"#;
        let given: serde_json::Value = serde_json::from_str(body).unwrap();
        let mut wanted = given.clone();
        wanted["stream_options"] = serde_json::json!({ "include_usage": true });
        assert_eq!(onward(ModelWire::Openai, body), (true, wanted.clone()));
        assert_eq!(onward(ModelWire::Ollama, body), (true, given));
        let counted = r#"{"model":"a","stream":true,"stream_options":{"include_usage":true,"x":1}}"#;
        assert_eq!(onward(ModelWire::Openai, counted).1, serde_json::from_str::<serde_json::Value>(counted).unwrap());
        for (wire, streams) in [(ModelWire::Openai, false), (ModelWire::Ollama, true)] {
            assert_eq!(onward(wire, r#"{"model":"a"}"#).0, streams);
        }
        let uncounted = r#"{"model":"a","stream":true,"stream_options":{"include_usage":false}}"#;
        assert!(Asked::read(uncounted.as_bytes()).unwrap().onward(ModelWire::Openai, Bytes::from(uncounted)).is_err());
        let null = r#"{"model":"a","stream":true,"stream_options":null}"#;
        let refused = Asked::read(null.as_bytes()).unwrap();
        assert!(refused.onward(ModelWire::Openai, Bytes::from(null)).is_err(), "it would be there twice");
    }
}
