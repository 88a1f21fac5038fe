//! Messages and steps for people.

use jiff::Timestamp;
use raworc_core::message::{Message, MessageState, Role};
use raworc_core::step::{Step, StepKind};

use super::{Ink, Style};
use crate::duration::age;

/// Lines of a tool's result that are shown; `raworc history --steps -o json` has them all.
const RESULT_LINES: usize = 20;

/// A step, each line set in.
#[must_use]
pub fn step(step: &Step, style: Style) -> String {
    let tool = step.tool.as_deref().unwrap_or("tool");
    match step.kind {
        StepKind::ToolCall if tool == "shell" => {
            set_in(&step.text, &style.paint(Ink::Cyan, "$"), " ", usize::MAX, |line| style.paint(Ink::Cyan, line))
        }
        StepKind::ToolCall => set_in(&format!("{tool} {}", step.text), &style.paint(Ink::Cyan, ">"), " ", 5, |line| {
            style.paint(Ink::Cyan, line)
        }),
        StepKind::ToolResult => {
            set_in(&step.text, &style.paint(Ink::Dim, "|"), &style.paint(Ink::Dim, "|"), RESULT_LINES, |line| {
                style.paint(Ink::Dim, line)
            })
        }
        StepKind::Thought => {
            set_in(&step.text, &style.paint(Ink::Dim, "~"), " ", RESULT_LINES, |line| style.paint(Ink::Dim, line))
        }
        StepKind::Screenshot => {
            set_in("(looked at the screen)", &style.paint(Ink::Dim, "*"), " ", 1, |line| style.paint(Ink::Dim, line))
        }
        StepKind::Log => {
            set_in(&step.text, &style.paint(Ink::Dim, "#"), &style.paint(Ink::Dim, "#"), RESULT_LINES, |line| {
                style.paint(Ink::Dim, line)
            })
        }
    }
}

fn set_in(text: &str, first: &str, next: &str, limit: usize, paint: impl Fn(&str) -> String) -> String {
    let clean = printable(text.trim_end());
    let lines: Vec<_> = clean.lines().collect();
    // The last lines of a long result say how it ended.
    let skipped = lines.len().saturating_sub(limit);
    let mut shown = String::new();
    if skipped > 0 {
        shown.push_str(&format!("  {first} {}\n", paint(&format!("({skipped} lines more)"))));
    }
    for (n, line) in lines[skipped..].iter().enumerate() {
        let mark = if n == 0 && skipped == 0 { first } else { next };
        shown.push_str(format!("  {mark} {}", paint(line)).trim_end());
        shown.push('\n');
    }
    shown
}

/// The text without what would play with the terminal: an agent's words are not to be trusted.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\n' | '\t' => clean.push(c),
            '\r' if chars.peek() == Some(&'\n') => {}
            // A progress bar that draws itself over: each state on a line of its own.
            '\r' => clean.push('\n'),
            '\x1b' => skip_escape(&mut chars),
            c if c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c) || ('\u{2066}'..='\u{2069}').contains(&c) => {
            }
            c => clean.push(c),
        }
    }
    clean
}

fn skip_escape(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match chars.peek() {
        Some('[') => {
            chars.next();
            for c in chars.by_ref() {
                if ('\x40'..='\x7e').contains(&c) {
                    break;
                }
            }
        }
        Some(']') => {
            while let Some(c) = chars.next() {
                if c == '\x07' || (c == '\x1b' && chars.next_if_eq(&'\\').is_some()) {
                    break;
                }
            }
        }
        Some(_) => {
            chars.next();
        }
        None => {}
    }
}

/// A message of the history, with a line above it that says who spoke and when.
#[must_use]
pub fn message(message: &Message, agent: &str, now: Timestamp, style: Style) -> String {
    let who = match message.role {
        Role::Agent => style.paint(Ink::Green, agent),
        Role::User => style.paint(Ink::Cyan, message.author.strip_prefix("user:").unwrap_or(&message.author)),
        Role::System => style.paint(Ink::Yellow, "system"),
    };
    let state = match message.state {
        MessageState::Done => String::new(),
        MessageState::Queued | MessageState::Leased | MessageState::Parked => {
            format!(", {}", style.paint(Ink::Yellow, message.state.as_str()))
        }
        MessageState::Failed | MessageState::Cancelled => {
            let reason = message.reason.as_deref().map(|reason| format!(": {}", printable(reason))).unwrap_or_default();
            format!(", {}{reason}", style.paint(Ink::Red, message.state.as_str()))
        }
    };
    let when = style.paint(Ink::Dim, &format!("{} ago", age(message.created_at, now)));
    format!("#{} {who} {when}{state}\n{}\n", message.seq, printable(message.text().trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_play_with_the_terminal_is_left_out() {
        for (text, clean) in [
            ("plain \u{e4}\n\ttext", "plain \u{e4}\n\ttext"),
            ("\x1b[31mred\x1b[0m", "red"),
            ("\x1b]0;title\x07rest", "rest"),
            ("\x1b]8;;http://x\x1b\\link", "link"),
            ("a\x1bcb", "ab"),
            ("10%\r20%\r\nend", "10%\n20%\nend"),
            ("bell\x07 nul\0 rtl\u{202e}", "bell nul rtl"),
            ("cut \x1b[3", "cut "),
            ("end\x1b", "end"),
        ] {
            assert_eq!(printable(text), clean, "{text:?}");
        }
    }

    #[test]
    fn a_long_result_is_cut_at_its_front() {
        let text: String = (1..=30).map(|n| format!("{n}\n")).collect();
        let shown = set_in(&text, "|", "|", 3, str::to_owned);
        assert_eq!(shown, "  | (27 lines more)\n  | 28\n  | 29\n  | 30\n");
    }
}
