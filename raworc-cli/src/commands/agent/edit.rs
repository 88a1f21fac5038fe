//! `raworc agent edit`.

use std::process::Command;

use anyhow::Context as _;
use raworc_core::agent::{Agent, AgentSpec, ConditionKind, SpecChange};
use raworc_http::client::Ask;
use serde_json::{Map, Value};

use super::spec;
use crate::args::EditArgs;
use crate::commands::context::{Context, now};
use crate::exit::{Exit, Failure};
use crate::output::agent;
use crate::terminal;

pub(super) async fn run(context: &Context, args: EditArgs) -> anyhow::Result<()> {
    let name = &args.agent.name;
    let mut change = spec::change(&args.spec)?;
    args.unset.iter().for_each(|field| spec::unset(&mut change, field));
    let (change, generation) = if change.0.is_empty() {
        if !terminal::stdin_is_terminal() || !context.console.out_is_terminal {
            return Err(Failure::new(Exit::Usage, "nothing was said to change")
                .hint("give options such as --memory 2Gi, or run it on a terminal to edit the spec")
                .into());
        }
        let before = context.waiting(format!("asking for {name}"), context.client.agent(name)).await?;
        let Some(change) = by_hand(&before)? else {
            context.console.note("Nothing was changed.");
            return Ok(());
        };
        (change, Some(before.generation))
    } else {
        (change, args.if_generation)
    };
    let call = context.client.edit_agent(name, change, generation, Ask::new());
    let edited = context.waiting(format!("changing {name}"), call).await?;
    let console = &context.console;
    console.show(&edited, name.as_str(), || {
        if console.out_is_terminal { agent::page(&edited, now(), console) } else { format!("agent {name} changed") }
    })?;
    if let Some(restart) = edited.status.conditions.get(ConditionKind::RestartNeeded).filter(|restart| restart.status) {
        console.note(format!(
            "{}. To have it now: raworc agent sleep {name} && raworc agent wake {name}",
            restart.message
        ));
    }
    Ok(())
}

/// The spec in the user's editor, until it can be taken or is left as it was.
fn by_hand(agent: &Agent) -> anyhow::Result<Option<SpecChange>> {
    let file = std::env::temp_dir().join(format!("raworc-{}-{}.json", agent.name, std::process::id()));
    let before = serde_json::to_value(&agent.spec)?;
    crate::session::write_private(&file, &(serde_json::to_string_pretty(&before)? + "\n"))?;
    let edited = edit_until_good(&file);
    // It may hold what nobody else should read.
    let _ = std::fs::remove_file(&file);
    let after = serde_json::to_value(edited?)?;
    let change = difference(&before, &after);
    Ok((!change.is_empty()).then_some(SpecChange(change)))
}

fn edit_until_good(file: &std::path::Path) -> anyhow::Result<AgentSpec> {
    loop {
        open_editor(file)?;
        match serde_json::from_str(&std::fs::read_to_string(file)?) {
            Ok(spec) => return Ok(spec),
            Err(error) => {
                if !terminal::confirm(&format!("This is no spec: {error}. Go on editing?"))? {
                    return Err(Failure::new(Exit::Failed, "nothing was changed").into());
                }
            }
        }
    }
}

fn open_editor(file: &std::path::Path) -> anyhow::Result<()> {
    let set = |name| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    let editor = set("VISUAL").or_else(|| set("EDITOR")).unwrap_or_else(|| "vi".into());
    // As git does: the variable may hold arguments, and its shell finds the program.
    let status = Command::new("sh").arg("-c").arg(format!("{editor} \"$1\"")).arg("sh").arg(file).status();
    let status = status.with_context(|| format!("the editor {editor:?} cannot be started; set EDITOR"))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(Exit::Failed, format!("the editor {editor:?} ended with {status}; nothing was changed")).into())
}

/// The merge patch that makes `after` of `before`.
fn difference(before: &Value, after: &Value) -> Map<String, Value> {
    let (Value::Object(before), Value::Object(after)) = (before, after) else {
        return Map::new();
    };
    let mut change = Map::new();
    for key in before.keys().filter(|key| !after.contains_key(*key)) {
        change.insert(key.clone(), Value::Null);
    }
    for (key, value) in after {
        match before.get(key) {
            Some(there) if there == value => {}
            Some(there) if there.is_object() && value.is_object() => {
                change.insert(key.clone(), difference(there, value).into());
            }
            _ => {
                change.insert(key.clone(), value.clone());
            }
        }
    }
    change
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_difference_is_a_merge_patch() {
        let before = json!({"a": 1, "b": {"x": 1, "y": 2}, "c": [1], "d": 0});
        let after = json!({"a": 1, "b": {"x": 1, "z": 3}, "c": [2], "e": true});
        let change = Value::Object(difference(&before, &after));
        assert_eq!(change, json!({"b": {"y": null, "z": 3}, "c": [2], "d": null, "e": true}));
    }

    #[test]
    fn a_spec_that_was_changed_by_hand_comes_out_of_its_change() {
        let before = AgentSpec { description: Some("old".into()), root: true, ..AgentSpec::default() };
        let after = AgentSpec { idle_timeout: 7, env: [("A".into(), "b".into())].into(), ..AgentSpec::default() };
        let (one, other) = (serde_json::to_value(&before).expect("json"), serde_json::to_value(&after).expect("json"));
        assert_eq!(SpecChange(difference(&one, &other)).apply(&before).expect("valid"), after);
    }
}
