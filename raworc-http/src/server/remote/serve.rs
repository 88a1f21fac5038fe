//! The process of an engine: whoever dials is answered by a runtime of this process.

use std::sync::Arc;

use futures::StreamExt;
use raworc_core::ids::ComputerId;
use raworc_core::runtime::{Boot, LogsOptions, Runtime, RuntimeError, RuntimeEvent, RuntimeExt};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::BEAT;
use super::wire::{Answer, Ask, Seen};

/// Told of all that was done.
type Told = dyn Fn(&Ask) + Send + Sync;

/// Answers for as long as it is polled, and tells of each call that came to its end well.
///
/// # Errors
/// Where nobody can be accepted any more.
pub async fn serve(listener: TcpListener, runtime: Arc<dyn Runtime>, told: Arc<Told>) -> std::io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        // In a task of its own: it goes on where whoever asked is gone.
        tokio::spawn(one(stream, Arc::clone(&runtime), Arc::clone(&told)));
    }
}

async fn one(stream: TcpStream, runtime: Arc<dyn Runtime>, told: Arc<Told>) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    if stream.read_line(&mut line).await.is_err() {
        return;
    }
    // Whoever was ended in the middle of asking has asked nothing.
    let Ok(ask) = serde_json::from_str::<Ask>(&line) else { return };
    if ask == Ask::Watch {
        return watch(stream.into_inner(), &*runtime).await;
    }
    let answer = match answer(&*runtime, &ask).await {
        Ok(value) => {
            told(&ask);
            Answer::Done(value)
        }
        Err(error) => Answer::from(error),
    };
    // Nobody may be there any more.
    let _ = say(stream.get_mut(), &answer).await;
}

async fn say(stream: &mut TcpStream, what: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    stream.write_all(&line).await
}

async fn answer(runtime: &dyn Runtime, ask: &Ask) -> Result<Value, RuntimeError> {
    let value = match ask {
        Ask::Ensure(spec) => json!(runtime.ensure(spec).await?.limits_missing),
        Ask::Start { id, line } => {
            let boot = Boot::from_line(line).map_err(|error| RuntimeError::Unavailable(error.to_string()))?;
            json!(runtime.start(*id, &boot).await?)
        }
        Ask::Stop { id, start, grace } => json!(runtime.stop(*id, start, *grace).await?),
        Ask::Remove { id } => json!(runtime.remove(*id).await?),
        Ask::Observe { id } => json!(runtime.observe(*id).await?.map(Seen::from)),
        Ask::List => json!(runtime.list().await?.into_iter().map(Seen::from).collect::<Vec<_>>()),
        Ask::Logs { id, tail } => {
            // That it is there.
            drop(runtime.logs(*id, LogsOptions::default()).await?);
            json!(runtime.log_tail(*id, tail.unwrap_or(u64::MAX)).await)
        }
        Ask::HasVolume { id } => json!(runtime.has_volume(*id).await?),
        Ask::RemoveVolume { id } => json!(runtime.remove_volume(*id).await?),
        Ask::Watch => Value::Null,
    };
    Ok(value)
}

/// Tells what happens, and now and then that the engine lives.
async fn watch(mut stream: TcpStream, runtime: &dyn Runtime) {
    let Ok(mut events) = runtime.watch().await else { return };
    let mut told = None::<ComputerId>;
    while say(&mut stream, &told).await.is_ok() {
        told = match tokio::time::timeout(BEAT, events.next()).await {
            Ok(Some(RuntimeEvent::Changed(computer))) => Some(computer),
            // Whoever watches looks at all where the stream ends.
            Ok(Some(RuntimeEvent::Relist) | None) => return,
            Err(_) => None,
        };
    }
}
