//! `raworc history`.

use std::collections::HashMap;

use raworc_core::ids::MessageId;
use raworc_core::step::Step;

use super::context::{Context, now};
use crate::args::HistoryArgs;
use crate::output::talk;

/// Prints what was said.
///
/// # Errors
/// Where the agent is not there.
pub async fn run(context: &Context, args: HistoryArgs) -> anyhow::Result<()> {
    let name = &args.agent.name;
    let limit = if args.limit == 0 { usize::MAX } else { args.limit };
    let read = context.waiting(format!("reading what was said with {name}"), async {
        let messages = context.client.newest_messages(name, limit).await?;
        let mut steps: HashMap<MessageId, Vec<Step>> = HashMap::new();
        if args.steps {
            for message in messages.iter().filter(|message| message.reply_to.is_none()) {
                steps.insert(message.id, context.client.all_steps(name, Some(message.id), 0).await?);
            }
        }
        Ok::<_, anyhow::Error>((messages, steps))
    });
    let (messages, steps) = read.await?;
    let (console, now) = (&context.console, now());
    console.show_all(
        &messages,
        |message| message.id.to_string(),
        || {
            let mut text = String::new();
            for message in &messages {
                text.push_str(&talk::message(message, name.as_str(), now, console.out));
                for step in steps.get(&message.id).into_iter().flatten() {
                    text.push_str(&talk::step(step, console.out));
                }
                text.push('\n');
            }
            text
        },
    )?;
    if messages.is_empty() {
        console.note(format!("Nothing was said yet. Begin with: raworc send {name} '!uname -a'"));
    }
    Ok(())
}
