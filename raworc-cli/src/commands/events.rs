//! `raworc events`.

use std::time::Duration;

use futures::StreamExt;
use raworc_core::event::Event;
use raworc_core::ids::Revision;
use raworc_http::client::Told;

use super::context::Context;
use crate::args::EventsArgs;
use crate::output::{Ink, Style};

/// The log tells no end: after so long without an event, all of it has been read.
const QUIET: Duration = Duration::from_millis(700);

/// Prints the log.
///
/// # Errors
/// Where the server cannot be reached.
pub async fn run(context: &Context, args: EventsArgs) -> anyhow::Result<()> {
    let since = if args.follow { args.since } else { Some(args.since.unwrap_or(Revision(0))) };
    let mut told = context.client.follow(args.agent.as_ref(), since).await?;
    let console = &context.console;
    loop {
        let next = match args.follow {
            true => told.next().await,
            false => tokio::time::timeout(QUIET, told.next()).await.unwrap_or(None),
        };
        match next {
            Some(Ok(Told::Event(event))) => {
                console.show_next(&event, |event| event.revision.to_string(), || line(&event, console.out))?;
            }
            Some(Ok(Told::Delta(_))) => {}
            Some(Err(error)) => return Err(error.into()),
            None => return Ok(()),
        }
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
