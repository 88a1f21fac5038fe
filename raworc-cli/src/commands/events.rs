//! `raworc events`.

use futures::StreamExt;
use raworc_core::event::Event;
use raworc_core::ids::Revision;
use raworc_http::client::{ClientError, EventStream, Told};

use super::context::Context;
use crate::args::EventsArgs;
use crate::output::{Ink, Style};

/// Prints the log.
///
/// # Errors
/// Where the server cannot be reached.
pub async fn run(context: &Context, args: EventsArgs) -> anyhow::Result<()> {
    let mut told = match context.waiting("reading the log", open(context, &args, args.since)).await {
        // All that is kept was asked for, and that is not all that ever was.
        Err(error) if error.code == "gone" && args.since == Some(Revision(0)) => {
            let Some(since) = before_oldest(&error) else { return Err(error.into()) };
            context.waiting("reading the log", open(context, &args, Some(since))).await?
        }
        told => told?,
    };
    let console = &context.console;
    while let Some(next) = told.next().await {
        match next {
            Ok(Told::Event(event)) => {
                console.show_next(&event, |event| event.revision.to_string(), || line(&event, console.out))?;
            }
            Ok(Told::Delta(_)) => {}
            // It was away for longer than the log goes back.
            Err(error) if error.code == "gone" && args.follow => {
                let Some(since) = before_oldest(&error) else { return Err(error.into()) };
                console.note(format!("Events up to revision {since} are no longer there; it goes on after them."));
                told = open(context, &args, Some(since)).await?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// After what the log goes on with its oldest event, where this is what an error speaks of.
fn before_oldest(error: &ClientError) -> Option<Revision> {
    let oldest = error.details.get("oldest").and_then(serde_json::Value::as_u64)?;
    Some(Revision(oldest.saturating_sub(1)))
}

async fn open(context: &Context, args: &EventsArgs, since: Option<Revision>) -> Result<EventStream, ClientError> {
    match args.follow {
        true => context.client.follow(args.agent.as_ref(), since).await,
        false => context.client.read_events(args.agent.as_ref(), since).await,
    }
}

fn line(event: &Event, style: Style) -> String {
    let name = event.name.as_ref().map_or("", |name| name.as_str());
    let summary = match &event.summary {
        serde_json::Value::Object(map) => map
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| format!("{key}={}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
            .collect::<Vec<_>>()
            .join(" "),
        other => other.to_string(),
    };
    let time = event.at.strftime("%H:%M:%S");
    format!(
        "{} {} {:<16} {} {}",
        style.paint(Ink::Dim, &format!("{:>6}", event.revision.0)),
        style.paint(Ink::Dim, &time.to_string()),
        event.kind.as_str(),
        style.paint(Ink::Bold, name),
        crate::output::talk::printable(&summary),
    )
    .trim_end()
    .to_owned()
}
