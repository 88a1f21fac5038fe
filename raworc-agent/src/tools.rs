//! What the agent can do in its computer: run shell commands and work on files.

mod arguments;
mod files;
mod shell;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

pub(crate) use arguments::parse;
pub(crate) use files::FileAction;
use shell::{Exit, Shell};

/// Bytes of a command's output that are kept.
pub(crate) const OUTPUT_LIMIT: usize = 32 << 10;

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) enum Tool {
    /// Run a command in the agent's shell.
    Shell {
        /// What to run.
        command: String,
        /// Seconds that it may take.
        seconds: u64,
    },
    /// Work on files.
    Files(FileAction),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ToolOutput {
    /// What it printed, with a note of how it ended unless it succeeded.
    pub(crate) text: String,
    /// Why it did not come to its own end, where something ended it.
    pub(crate) broken_off: Option<String>,
}

impl ToolOutput {
    fn of(text: impl Into<String>) -> Self {
        Self { text: text.into(), broken_off: None }
    }
}

/// The agent's hands: one shell that lives on between calls.
#[derive(Debug)]
pub(crate) struct Tools {
    shell: Shell,
}

impl Tools {
    /// Hands that begin in `home`.
    pub(crate) fn new(home: &Path) -> Self {
        Self { shell: Shell::new(home) }
    }

    /// Does it. `cancel` ends it, with what it has started and not cut loose.
    pub(crate) async fn run(
        &mut self,
        tool: Tool,
        env: &BTreeMap<String, String>,
        cancel: &CancellationToken,
    ) -> ToolOutput {
        match tool {
            Tool::Shell { command, seconds } => self.shell(&command, seconds, env, cancel).await,
            Tool::Files(action) => {
                let (home, directory) = (self.shell.home().to_owned(), self.shell.cwd().to_owned());
                ToolOutput::of(match action.run(home, directory, cancel).await {
                    Ok(text) => text,
                    Err(reason) => format!("error: {reason}"),
                })
            }
        }
    }

    async fn shell(
        &mut self,
        command: &str,
        seconds: u64,
        env: &BTreeMap<String, String>,
        cancel: &CancellationToken,
    ) -> ToolOutput {
        let ran = match self.shell.run(command, env, Duration::from_secs(seconds), cancel).await {
            Ok(ran) => ran,
            Err(error) => {
                let reason = format!("the shell cannot be started: {error}");
                return ToolOutput { text: reason.clone(), broken_off: Some(reason) };
            }
        };
        let mut text = ran.output;
        let mut note = |note: &str| {
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            text.push_str(note);
        };
        let broken_off = match ran.exit {
            Exit::Code(0) => None,
            Exit::Code(code) => {
                note(&format!("[exit code {code}]"));
                None
            }
            Exit::TimedOut => Some(format!(
                "the command was ended after {seconds} s, the limit of one command; \
                 start what takes longer in the background, with & and its output in a file"
            )),
            Exit::Cancelled => Some("the command was cancelled".to_owned()),
        };
        if let Some(reason) = &broken_off {
            note(&format!("[{reason}]"));
        }
        if let Some(remark) = ran.remark {
            note(&format!("[{remark}]"));
        }
        ToolOutput { text, broken_off }
    }
}

/// The tools as models are told of them.
pub(crate) fn definitions() -> Value {
    let shell = json!({
        "name": "shell",
        "description": "Runs a command in a shell on your computer. The working directory and variables stay between \
                        calls. It runs on a terminal without colours at which nobody types: what reads from it \
                        finds the end of input. Put what runs for long in the \
                        background with & and its output in a file.",
        "parameters": {
            "type": "object",
            "properties": {
                "command": { "type": "string", "description": "The command." },
                "seconds": { "type": "integer", "description": "How long it may take." },
            },
            "required": ["command"],
        },
    });
    let files = json!({
        "name": "files",
        "description": "Works on text files. view: shows a file with line numbers, or a directory. create: writes a \
                        whole file. replace: puts `new` in place of `old`, which must stand in the file exactly once. \
                        search: finds the lines below `path` that contain `text`.",
        "parameters": {
            "type": "object",
            "properties": {
                "action": { "type": "string", "enum": ["view", "create", "replace", "search"] },
                "path": { "type": "string", "description": "The file or directory." },
                "from": { "type": "integer", "description": "view: the first line to show." },
                "to": { "type": "integer", "description": "view: the last line to show." },
                "text": { "type": "string", "description": "create: the content. search: what to find." },
                "old": { "type": "string", "description": "replace: what stands there now." },
                "new": { "type": "string", "description": "replace: what shall stand there." },
            },
            "required": ["action", "path"],
        },
    });
    json!([{ "type": "function", "function": shell }, { "type": "function", "function": files }])
}
