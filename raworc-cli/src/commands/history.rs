//! `raworc history`.

use raworc_core::message::Message;
use raworc_core::step::Step;
use serde::Serialize;

use super::context::{Context, now};
use crate::args::HistoryArgs;
use crate::output::talk;

/// A message, with the steps that its agent took for it where they were asked for.
#[derive(Serialize)]
struct Told {
    #[serde(flatten)]
    message: Message,
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<Vec<Step>>,
}

/// Prints what was said.
///
/// # Errors
/// Where the agent is not there.
pub async fn run(context: &Context, args: HistoryArgs) -> anyhow::Result<()> {
    let name = &args.agent.name;
    let limit = if args.limit == 0 { usize::MAX } else { args.limit };
    let read = context.waiting(format!("reading what was said with {name}"), async {
        let mut told = Vec::new();
        for message in context.client.newest_messages(name, limit).await? {
            let steps = match args.steps && message.reply_to.is_none() {
                true => Some(context.client.all_steps(name, Some(message.id), 0).await?),
                false => None,
            };
            told.push(Told { message, steps });
        }
        Ok::<_, anyhow::Error>(told)
    });
    let told = read.await?;
    let (console, now) = (&context.console, now());
    console.show_all(
        &told,
        |told| told.message.id.to_string(),
        || {
            let mut text = String::new();
            for Told { message, steps } in &told {
                text.push_str(&talk::message(message, name.as_str(), now, console.out));
                for step in steps.iter().flatten() {
                    text.push_str(&talk::step(step, console.out));
                }
                text.push('\n');
            }
            text
        },
    )?;
    if told.is_empty() {
        console.note(format!("Nothing was said yet. Begin with: raworc send {name} '!uname -a'"));
    }
    Ok(())
}
