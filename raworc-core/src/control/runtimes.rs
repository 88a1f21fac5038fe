//! Which runtimes agents may ask for: those of this process, and those that operators elsewhere have told of.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

use super::feed::{Feed, Subscription};
use super::{Settings, System};
use crate::entropy::EntropyExt;
use crate::error::Error;
use crate::event::{Event, EventKind};
use crate::ids::{CommitId, RuntimeName};
use crate::runtime::{Capabilities, Runtimes};
use crate::store::{Change, Commit, Conflict, RecordChange, RecordCheck, RecordKey, RecordKind, Store, StoreError};

/// A runtime as its operators tell of it: the body of a record under its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Published {
    capabilities: Capabilities,
    /// Whether it serves where a spec names none.
    default: bool,
    /// The engine behind the name, where its operators know it.
    #[serde(default)]
    engine: Option<String>,
}

type List = Arc<[(RuntimeName, Capabilities)]>;

/// The runtimes that this process knows.
#[derive(Debug)]
pub(super) struct Known(watch::Receiver<List>);

impl Known {
    /// Knows its own engines, and follows what other processes tell.
    pub(super) async fn start(
        engines: &Runtimes,
        settings: &Settings,
        feed: &Feed,
        store: &Arc<dyn Store>,
    ) -> Result<Self, StoreError> {
        // Subscribed before the read, so that nothing falls between the two.
        let events = feed.subscribe();
        let own: Vec<_> = engines.iter().map(|e| (e.runtime.name().clone(), e.runtime.capabilities())).collect();
        let view = View { own, default: settings.default_runtime.clone(), store: Arc::clone(store) };
        let (told, known) = watch::channel(view.read().await?);
        tokio::spawn(view.follow(events, told));
        Ok(Self(known))
    }

    pub(super) fn all(&self) -> List {
        Arc::clone(&self.0.borrow())
    }
}

struct View {
    own: Vec<(RuntimeName, Capabilities)>,
    default: Option<RuntimeName>,
    store: Arc<dyn Store>,
}

impl View {
    /// Own engines first, then the default of others, then by name; whatever the settings name goes before all.
    async fn read(&self) -> Result<List, StoreError> {
        let mut others = BTreeMap::new();
        for record in self.store.records(RecordKind::Runtime, None).await? {
            match (RuntimeName::new(record.key.name.as_str()), serde_json::from_value::<Published>(record.body)) {
                (Ok(name), Ok(published)) => {
                    others.insert((!published.default, name), published.capabilities);
                }
                (_, Err(error)) => {
                    tracing::warn!(runtime = record.key.name, %error, "what is told of a runtime cannot be read");
                }
                (Err(_), _) => tracing::warn!(runtime = record.key.name, "this is no name of a runtime"),
            }
        }
        let mut all = self.own.clone();
        let others = others.into_iter().map(|((_, name), capabilities)| (name, capabilities));
        all.extend(others.filter(|(name, _)| self.own.iter().all(|(own, _)| own != name)));
        // Stable: the others stay in their order.
        all.sort_by_key(|(name, _)| Some(name) != self.default.as_ref());
        Ok(all.into())
    }

    async fn follow(self, mut events: Subscription, told: watch::Sender<List>) {
        loop {
            match events.recv().await {
                Ok(event) if !is_of_runtime(&event) => continue,
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
            loop {
                match self.read().await {
                    Ok(list) => {
                        told.send_replace(list);
                        break;
                    }
                    Err(error) => tracing::warn!(%error, "the runtimes cannot be read; trying again"),
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

fn key_of(runtime: &RuntimeName) -> RecordKey {
    RecordKey { kind: RecordKind::Runtime, tenant: None, name: runtime.to_string() }
}

/// Whether an event says that operators have told of a runtime.
pub(crate) fn is_of_runtime(event: &Event) -> bool {
    let kind = event.summary.get("kind").and_then(serde_json::Value::as_str);
    event.kind == EventKind::AccessChanged && kind == Some(RecordKind::Runtime.as_str())
}

/// Tells of a runtime once more, which calls its operators to look who of them is there.
pub(crate) async fn tell_again(
    store: &Arc<dyn Store>,
    runtime: &RuntimeName,
    commit: CommitId,
) -> Result<(), StoreError> {
    // Of what was never told nobody else is an operator.
    let Some(told) = store.record(&key_of(runtime)).await? else { return Ok(()) };
    let when = RecordCheck::Version(told.version);
    let change = RecordChange { key: told.key, when, body: Some(told.body), ttl: None };
    match store.commit(Commit::new(commit, vec![Change::Record(change)])).await {
        // Another one told in this moment, which calls them too.
        Ok(_) | Err(StoreError::Conflict(Conflict::Record { .. })) => Ok(()),
        Err(error) => Err(error),
    }
}

impl System<'_> {
    /// Tells servers in other processes of the runtimes whose engines this one reaches, so that agents may ask for them
    /// there. It stands in the store until an operator tells otherwise.
    ///
    /// # Errors
    /// [`Error::Invalid`] where operators of another engine that live have the name already; else where the store does not answer.
    pub async fn publish_runtimes(self) -> Result<(), Error> {
        let inner = &self.control.inner;
        for (place, entry) in inner.engines.iter().enumerate() {
            let published = Published {
                capabilities: entry.runtime.capabilities(),
                default: place == 0,
                engine: entry.engine.clone(),
            };
            self.publish(entry.runtime.name(), &published).await?;
        }
        Ok(())
    }

    async fn publish(self, name: &RuntimeName, published: &Published) -> Result<(), Error> {
        let inner = &self.control.inner;
        let key = key_of(name);
        loop {
            let there = inner.store.record(&key).await?;
            let mut body = published.clone();
            if let Some(there) = &there
                && let Ok(told) = serde_json::from_value::<Published>(there.body.clone())
            {
                if let (Some(theirs), Some(ours)) = (&told.engine, &published.engine)
                    && theirs != ours
                    && !inner.store.leases(&crate::operator::shards::prefix(name)).await?.value.is_empty()
                {
                    return Err(Error::invalid(
                        "runtime",
                        format!(
                            "{name} is the name of another engine in this installation ({theirs}, and here is {ours}): an \
                             agent's files would not be found here; give the engine of this machine another name"
                        ),
                    ));
                }
                // An engine that does not answer now is still the one that it was.
                body.engine = body.engine.or(told.engine.clone());
                if told == body {
                    return Ok(());
                }
            }
            let body = serde_json::to_value(&body).map_err(|error| Error::Internal(error.to_string()))?;
            let when = there.map_or(RecordCheck::Absent, |there| RecordCheck::Version(there.version));
            let change = RecordChange { key: key.clone(), when, body: Some(body), ttl: None };
            let commit = Commit::new(inner.entropy.commit_id(inner.clock.now()), vec![Change::Record(change)]);
            match inner.store.commit(commit).await {
                Ok(_) => return Ok(()),
                // Another operator told in this moment.
                Err(StoreError::Conflict(Conflict::Record { .. })) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
