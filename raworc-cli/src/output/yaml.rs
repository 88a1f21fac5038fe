//! Writes YAML: block style, and each text that could be taken for something else in double quotes.

use serde_json::Value;

/// The value as a YAML document, with its last line break.
pub(super) fn to_string(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => object(map, 0, &mut text),
        Value::Array(items) if !items.is_empty() => array(items, 0, &mut text),
        leaf => {
            text.push_str(&scalar(leaf));
            text.push('\n');
        }
    }
    text
}

fn object(map: &serde_json::Map<String, Value>, depth: usize, text: &mut String) {
    for (n, (key, value)) in map.iter().enumerate() {
        // The first key of an item stands on the line of its dash.
        if n > 0 || !text.ends_with("- ") {
            text.push_str(&"  ".repeat(depth));
        }
        text.push_str(&plain_or_quoted(key));
        text.push(':');
        below(value, depth, text);
    }
}

fn array(items: &[Value], depth: usize, text: &mut String) {
    for item in items {
        text.push_str(&"  ".repeat(depth));
        text.push('-');
        match item {
            Value::Object(map) if !map.is_empty() => {
                text.push(' ');
                object(map, depth + 1, text);
            }
            nested => below(nested, depth, text),
        }
    }
}

fn below(value: &Value, depth: usize, text: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            text.push('\n');
            object(map, depth + 1, text);
        }
        Value::Array(items) if !items.is_empty() => {
            text.push('\n');
            array(items, depth + 1, text);
        }
        Value::String(long) if block(long) => {
            text.push_str(if long.ends_with('\n') { " |\n" } else { " |-\n" });
            for line in long.lines() {
                if !line.is_empty() {
                    text.push_str(&"  ".repeat(depth + 1));
                    text.push_str(line);
                }
                text.push('\n');
            }
        }
        leaf => {
            text.push(' ');
            text.push_str(&scalar(leaf));
            text.push('\n');
        }
    }
}

/// Whether a text reads back the same as a literal block.
fn block(text: &str) -> bool {
    let body = text.strip_suffix('\n').unwrap_or(text);
    body.contains('\n')
        && !body.ends_with('\n')
        && !body.starts_with([' ', '\n'])
        && body.chars().all(|c| c == '\n' || c == '\t' || !unprintable(c))
}

/// Characters that YAML takes only when escaped, and line separators that it would take for line breaks.
fn unprintable(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
}

fn scalar(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => plain_or_quoted(text),
        Value::Array(_) => "[]".into(),
        Value::Object(_) => "{}".into(),
    }
}

fn plain_or_quoted(text: &str) -> String {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '+' | ' ' | ':' | '@' | '=');
    let reserved = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && text.chars().all(word)
        && !reserved.contains(&text.to_ascii_lowercase().as_str());
    if plain { text.to_owned() } else { quoted(text) }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            c if unprintable(c) => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_in_block_style() {
        let value = serde_json::json!({
            "name": "ada",
            "labels": {"team": "research"},
            "none": null,
            "empty": [],
            "list": [1, "two", {"a": "x", "b": [true]}, [3]],
            "script": "a\nb: c\n",
        });
        insta::assert_snapshot!(to_string(&value), @r#"
        empty: []
        labels:
          team: research
        list:
          - 1
          - two
          - a: x
            b:
              - true
          -
            - 3
        name: ada
        none: null
        script: |
          a
          b: c
        "#);
    }

    #[test]
    fn texts_that_could_be_something_else_are_quoted() {
        for (text, written) in [
            ("true", "\"true\""),
            ("No", "\"No\""),
            ("12", "\"12\""),
            ("", "\"\""),
            ("a: b", "\"a: b\""),
            ("- x", "\"- x\""),
            ("#x", "\"#x\""),
            ("a\u{0}b", "\"a\\u0000b\""),
            ("a\nb\n\n", "\"a\\nb\\n\\n\""),
            (" a\nb", "\" a\\nb\""),
            ("say \"hi\"\\", "\"say \\\"hi\\\"\\\\\""),
            ("2026-11-22T10:00:00Z", "\"2026-11-22T10:00:00Z\""),
            ("user:ann", "user:ann"),
        ] {
            assert_eq!(to_string(&serde_json::json!({ "k": text })), format!("k: {written}\n"));
        }
    }
}
