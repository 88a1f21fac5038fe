//! Reads the tool calls of models, which write the same wish in many ways.

use serde_json::{Map, Value};

use super::{FileAction, Tool};
use crate::model::ToolCall;

/// What a call asks for, or what is wrong with it, in words for the model.
pub(crate) fn parse(call: &ToolCall, seconds: u64) -> Result<Tool, String> {
    let name = call.name.trim();
    // Models prefix names with a namespace of their own, and drop channel markers into them.
    let name = name.split("<|").next().unwrap_or(name);
    let name = name.strip_prefix("functions.").unwrap_or(name);
    let object = match &call.arguments {
        Value::Object(object) => object.clone(),
        Value::Array(_) | Value::String(_) if is_shell(name) && !looks_like_json(&call.arguments) => {
            Map::from_iter([("command".to_owned(), call.arguments.clone())])
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            return Err(format!("the arguments of {name:?} are not a JSON object; write them again"));
        }
    };
    if is_shell(name) {
        return shell(&object, seconds);
    }
    let action = match name {
        "files" | "file" => text(&object, &["action", "command"]).ok_or("`action` is missing")?,
        _ => name.strip_prefix("files").unwrap_or(name).trim_start_matches(['.', '_', '-']).to_owned(),
    };
    file_action(&action, &object)
        .ok_or_else(|| format!("there is no tool {name:?} with the action {action:?}; there are shell and files"))?
        .map(Tool::Files)
}

fn is_shell(name: &str) -> bool {
    matches!(name, "shell" | "bash" | "sh" | "exec" | "container.exec" | "terminal" | "run_command" | "shell.run")
}

fn looks_like_json(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.trim_start().starts_with(['{', '[']))
}

fn shell(object: &Map<String, Value>, limit: u64) -> Result<Tool, String> {
    let wanted = ["command", "cmd", "script", "code", "input"].iter().find_map(|key| object.get(*key));
    let command = match wanted {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(words)) => from_words(words)?,
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => {
            return Err("`command` is missing: give the command as a text".into());
        }
    };
    if command.trim().is_empty() {
        return Err("`command` is empty".into());
    }
    if command.contains('\0') {
        return Err("`command` contains a NUL character, which no shell can read".into());
    }
    let seconds = number(object, &["seconds", "timeout"]).filter(|&seconds| seconds > 0).unwrap_or(limit);
    Ok(Tool::Shell { command, seconds: seconds.min(limit) })
}

/// `["bash", "-lc", "..."]` is its script; other words are quoted and joined.
fn from_words(words: &[Value]) -> Result<String, String> {
    let words: Option<Vec<&str>> = words.iter().map(Value::as_str).collect();
    let words = words.ok_or("`command` is a list of something else than texts")?;
    Ok(match words.as_slice() {
        [shell, flag, script]
            if matches!(shell.rsplit('/').next(), Some("bash" | "sh" | "zsh" | "dash"))
                && flag.starts_with('-')
                && flag.ends_with('c') =>
        {
            (*script).to_owned()
        }
        [one] => (*one).to_owned(),
        words => words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" "),
    })
}

/// The word as a shell reads it back.
pub(super) fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn file_action(action: &str, object: &Map<String, Value>) -> Option<Result<FileAction, String>> {
    let need = |keys: &[&str]| text(object, keys).ok_or_else(|| format!("`{}` is missing", keys[0]));
    let path = || need(&["path", "file", "file_path", "filename"]);
    Some(match action {
        "view" | "read" | "list" | "open" => {
            let range = object.get("view_range").and_then(Value::as_array);
            let bound = |n: usize| range.and_then(|range| range.get(n)).and_then(Value::as_u64);
            let from = number(object, &["from", "start", "line_start"]).or_else(|| bound(0));
            let to = number(object, &["to", "end", "line_end"]).or_else(|| bound(1));
            path().map(|path| FileAction::View { path, from, to })
        }
        "create" | "write" => path().and_then(|path| {
            Ok(FileAction::Create { path, text: need(&["text", "content", "file_text", "contents"])? })
        }),
        "replace" | "str_replace" | "edit" => path().and_then(|path| {
            let old = need(&["old", "old_str", "old_string"])?;
            Ok(FileAction::Replace { path, old, new: need(&["new", "new_str", "new_string"])? })
        }),
        "search" | "grep" | "find" => need(&["text", "query", "pattern"]).map(|text| {
            let path = path().unwrap_or_else(|_| ".".into());
            FileAction::Search { path, text }
        }),
        _ => return None,
    })
}

fn text(object: &Map<String, Value>, keys: &[&str]) -> Option<String> {
    keys.iter().find_map(|key| object.get(*key)?.as_str()).map(str::to_owned)
}

fn number(object: &Map<String, Value>, keys: &[&str]) -> Option<u64> {
    keys.iter().find_map(|key| {
        let value = object.get(*key)?;
        value.as_u64().or_else(|| value.as_str()?.trim().parse().ok())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn call(name: &str, arguments: Value) -> Result<Tool, String> {
        parse(&ToolCall { id: String::new(), name: name.into(), arguments }, 120)
    }

    fn shell_of(name: &str, arguments: Value) -> String {
        match call(name, arguments).expect("a command") {
            Tool::Shell { command, .. } => command,
            Tool::Files(action) => panic!("{action:?}"),
        }
    }

    #[test]
    fn a_command_is_read_in_every_way_that_models_write_it() {
        assert_eq!(shell_of("shell", json!({ "command": "ls -l" })), "ls -l");
        assert_eq!(shell_of("container.exec", json!({ "cmd": ["bash", "-lc", "ls | wc"] })), "ls | wc");
        assert_eq!(shell_of("bash", json!({ "cmd": ["echo", "a b", "it's"] })), r"echo 'a b' 'it'\''s'");
        assert_eq!(shell_of("functions.shell", json!("uptime")), "uptime");
        assert_eq!(shell_of("shell<|channel|>commentary", json!(["uptime"])), "uptime");
    }

    #[test]
    fn a_call_may_ask_for_less_time_but_never_for_more() {
        let seconds = |arguments| match call("shell", arguments).expect("a command") {
            Tool::Shell { seconds, .. } => seconds,
            Tool::Files(action) => panic!("{action:?}"),
        };
        assert_eq!(seconds(json!({ "command": "x", "seconds": 5 })), 5);
        assert_eq!(seconds(json!({ "command": "x", "timeout": "7" })), 7);
        assert_eq!(seconds(json!({ "command": "x", "seconds": 5000 })), 120);
        assert_eq!(seconds(json!({ "command": "x", "seconds": 0 })), 120);
    }

    #[test]
    fn file_actions_are_read_from_one_tool_or_from_many() {
        let view = Tool::Files(FileAction::View { path: "a".into(), from: Some(2), to: Some(3) });
        assert_eq!(call("files", json!({ "action": "view", "path": "a", "from": 2, "to": 3 })), Ok(view.clone()));
        assert_eq!(call("files.view", json!({ "path": "a", "view_range": [2, 3] })), Ok(view));
    }

    #[test]
    fn what_is_wrong_with_a_call_is_said_in_words() {
        for (name, arguments, says) in [
            ("shell", json!("{\"command\": "), "not a JSON object"),
            ("shell", json!({}), "`command` is missing"),
            ("shell", json!({ "command": "a\0b" }), "NUL"),
            ("shell", json!({ "command": [1] }), "something else than texts"),
            ("files", json!({ "path": "a" }), "`action` is missing"),
            ("files", json!({ "action": "create", "path": "a" }), "`text` is missing"),
            ("teleport", json!({}), "there are shell and files"),
        ] {
            let error = call(name, arguments).expect_err(says);
            assert!(error.contains(says), "{error}");
        }
    }
}
