//! What it means to a person that a call of the server came to nothing.

use std::error::Error;

use raworc_http::client::ClientError;

use super::{Exit, Failure};

/// The client's error that a cause is, or that a reader or a writer has passed on.
pub(super) fn in_cause<'a>(cause: &'a (dyn Error + 'static)) -> Option<&'a ClientError> {
    let passed_on = || cause.downcast_ref::<std::io::Error>()?.get_ref()?.downcast_ref();
    cause.downcast_ref().or_else(passed_on)
}

pub(super) fn failure(error: &ClientError) -> Failure {
    let failure = Failure::new(exit_of(error), sentence(error));
    match (error.code.as_str(), error.status) {
        ("unreachable_server", None) if error.server().is_some_and(is_local) => {
            failure.hint("start one with `raworc up`, or name another with --server URL")
        }
        ("unreachable_server", None) => failure.hint("check the address, or name another with --server URL"),
        ("connection_lost", None) => failure.hint("nothing that was accepted is lost; try again"),
        ("timed_out", None) => failure.hint("what was asked for may still be done; try again in a while"),
        ("invalid", None) if error.details.get("field").is_some_and(|field| field == "server") => {
            failure.hint("a server is named as --server http://127.0.0.1:9000")
        }
        ("unreadable", _) => failure.hint("is it a Raworc server?"),
        ("unauthenticated", _) => failure.hint("log in again with `raworc login`"),
        ("gone", _) => match error.details.get("oldest") {
            Some(oldest) => failure.hint(format!(
                "the log goes on at revision {oldest}; `raworc events --since 0` prints all that is kept"
            )),
            None => failure,
        },
        ("agent_asleep", _) => failure.hint("wake it with `raworc agent wake NAME`"),
        ("not_found", _) if error.details.get("what").is_some_and(|what| what == "agent") => {
            failure.hint("`raworc agent list` shows the agents that there are")
        }
        _ => failure,
    }
}

/// What happened, and the one of its causes that says most: the deepest.
fn sentence(error: &ClientError) -> String {
    let deepest = std::iter::successors(error.source(), |&cause| cause.source()).last();
    match deepest {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

fn exit_of(error: &ClientError) -> Exit {
    match (error.code.as_str(), error.status.map(|status| status.as_u16())) {
        ("agent_asleep" | "generation_mismatch", _) => Exit::Conflict,
        ("unreachable_server" | "connection_lost", None) => Exit::Unreachable,
        ("timed_out", None) | (_, Some(408 | 504)) => Exit::TimedOut,
        ("invalid", None) | (_, Some(400 | 405 | 413 | 415 | 422)) => Exit::Usage,
        (_, Some(401 | 403)) => Exit::Denied,
        (_, Some(404 | 410)) => Exit::NotFound,
        (_, Some(409 | 412)) => Exit::Conflict,
        _ => Exit::Failed,
    }
}

fn is_local(server: &str) -> bool {
    let host = server.split_once("://").map_or(server, |(_, rest)| rest);
    ["127.", "localhost", "[::1]"].iter().any(|local| host.starts_with(local))
}

#[cfg(test)]
mod tests;
