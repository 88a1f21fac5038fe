//! What is done for an agent because of a message, before anybody holds that.

use tracing::Span;
use tracing::field::display;

use super::{is_on, part};
use crate::agent::Agent;
use crate::store::{MessageQuery, Store};

/// A span of what is done for an agent, in the trace of its oldest message that has not ended: that one is waited for. None
/// where there is no such message or nobody traces it.
pub(crate) async fn for_agent(name: &str, store: &dyn Store, agent: &Agent) -> Span {
    let waits = agent.inbox.queued > 0 || agent.status.message.is_some();
    // A look at the store, for those alone who want to know.
    if !is_on() || !waits {
        return Span::none();
    }
    let query = MessageQuery { open: true, limit: 1, ..MessageQuery::of(agent.id) };
    let message = match store.messages(&query).await {
        Ok(page) => page.items.into_iter().next(),
        Err(error) => {
            tracing::debug!(%error, "what an agent is started for cannot be read, and is not traced");
            None
        }
    };
    let Some(message) = message else { return Span::none() };
    let span = part(name, message.traceparent);
    span.record("raworc.agent", display(agent.id));
    span.record("raworc.message", display(message.id));
    span.record("raworc.incarnation", display(agent.status.incarnation));
    if let Some(computer) = agent.status.computer {
        span.record("raworc.computer", display(computer));
    }
    span
}
