//! The page on the command line.

use clap::{Arg, ArgAction, Command, CommandFactory};

use crate::args::Cli;
use crate::exit::Exit;

pub(super) fn page() -> String {
    let mut root = Cli::command();
    root.build();
    let mut page = String::from(
        "# Command line\n\n<!-- Made from the code by `raworc reference cli`; a test compares them. -->\n\n",
    );
    page.push_str(&format!("{}\n", root.get_about().map(ToString::to_string).unwrap_or_default()));
    section(&root, "raworc", &mut page);
    page.push_str("\n## Exit codes\n\n| Code | Meaning |\n|---|---|\n");
    for (exit, meaning) in Exit::ALL {
        page.push_str(&format!("| {} | {meaning} |\n", exit.code()));
    }
    page.push_str("\n`raworc agent exec` ends with the exit code of its command.\n");
    page
}

fn section(command: &Command, path: &str, page: &mut String) {
    let top = path == "raworc";
    if top {
        page.push_str("\n## Options of every command\n\n");
    } else {
        page.push_str(&format!("\n## `{path}`\n\n"));
        page.push_str(&format!("{}\n\n", command.get_about().map(ToString::to_string).unwrap_or_default()));
        let aliases: Vec<_> = command.get_visible_aliases().map(|alias| format!("`{alias}`")).collect();
        if !aliases.is_empty() {
            page.push_str(&format!("Also: {}.\n\n", aliases.join(", ")));
        }
        let usage = command.clone().render_usage().to_string();
        page.push_str(&format!("```text\n{}\n```\n", usage.trim_start_matches("Usage: ").trim()));
    }
    let own = |arg: &&Arg| (top || !arg.is_global_set()) && !arg.is_hide_set() && arg.get_id() != "help";
    let args: Vec<_> = command.get_arguments().filter(own).filter(|arg| arg.get_id() != "version").collect();
    if !args.is_empty() {
        page.push_str(if top { "| Option | Meaning |\n|---|---|\n" } else { "\n| Argument | Meaning |\n|---|---|\n" });
        for arg in args {
            page.push_str(&format!("| {} | {} |\n", name(arg), meaning(arg)));
        }
    }
    if let Some(after) = command.get_after_help().filter(|_| !top) {
        let (prose, examples) = match after.to_string().split_once("Examples:\n") {
            Some((prose, examples)) => (prose.trim().to_owned(), Some(examples.to_owned())),
            None => (after.to_string(), None),
        };
        if !prose.is_empty() {
            page.push_str(&format!("\n{prose}\n"));
        }
        if let Some(examples) = examples {
            let lines: String = examples.lines().map(|line| line.trim_start().to_owned() + "\n").collect();
            page.push_str(&format!("\n```sh\n{lines}```\n"));
        }
    }
    for below in command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != "help") {
        section(below, &format!("{path} {}", below.get_name()), page);
    }
}

fn name(arg: &Arg) -> String {
    let value = match arg.get_action() {
        ArgAction::Set | ArgAction::Append => {
            let names = arg.get_value_names().unwrap_or_default();
            names.iter().map(|name| format!("<{name}>")).collect::<Vec<_>>().join(" ")
        }
        _ => String::new(),
    };
    let long = arg.get_long().map(|long| format!("`{}`", format!("--{long} {value}").trim_end()));
    match (arg.get_short(), long) {
        (Some(short), Some(long)) => format!("`-{short}`, {long}"),
        (None, Some(long)) => long,
        (_, None) => format!("`{value}`"),
    }
}

fn meaning(arg: &Arg) -> String {
    let mut text = arg.get_help().map(ToString::to_string).unwrap_or_default();
    if !text.ends_with('.') {
        text.push('.');
    }
    let values: Vec<_> = match arg.get_action() {
        ArgAction::Set | ArgAction::Append => {
            arg.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect()
        }
        _ => Vec::new(),
    };
    if !values.is_empty() && values != ["`true`", "`false`"] {
        text.push_str(&format!(" One of {}.", values.join(", ")));
    }
    let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    if !defaults.is_empty() && matches!(arg.get_action(), ArgAction::Set) {
        text.push_str(&format!(" Default: `{}`.", defaults.join(" ")));
    }
    if let Some(variable) = arg.get_env() {
        text.push_str(&format!(" Variable: `{}`.", variable.to_string_lossy()));
    }
    text.replace('|', "\\|").replace('\n', " ")
}
