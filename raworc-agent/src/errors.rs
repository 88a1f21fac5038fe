//! Errors as they stand in the bodies of HTTP answers: `{"error": {"code", "message", "details"}}`.

use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Body {
    error: Detail,
}

#[derive(Deserialize)]
struct Detail {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// The body of an error.
pub(crate) fn body(code: &str, message: &str) -> Value {
    json!({ "error": { "code": code, "message": message, "details": null } })
}

/// Code and message out of a body; what is no error body counts as a message without a code.
pub(crate) fn read(body: &[u8]) -> (String, String) {
    match serde_json::from_slice::<Body>(body) {
        Ok(Body { error }) => (error.code, error.message),
        Err(_) => {
            let text = String::from_utf8_lossy(body);
            (String::new(), crate::truncate::beginning(text.trim(), 200).to_owned())
        }
    }
}
