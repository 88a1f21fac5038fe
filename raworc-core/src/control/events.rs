//! Following the log: what a caller may see of it, from a revision on and for as long as they listen.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

use super::agents::visible_owner;
use super::call::Call;
use super::feed::{Reached, Told};
use super::{ControlPlane, Delta, DeltaStream, Subscription};
use crate::error::Error;
use crate::event::Event;
use crate::ids::{AgentId, AgentName, Revision, TenantName, UserName};
use crate::principal::{Action, Resource};
use crate::store::{EventFilter, Store, StoreError};

/// How far back it is looked for the latest events of an agent at most: all of a long log would take a minute for one that is
/// quiet.
const LOOKED_BACK: u64 = 1 << 16;

/// What somebody who follows the log is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Followed {
    /// Something changed.
    Event(Arc<Event>),
    /// A model writes, best effort: only to those who follow this one agent.
    Delta(Arc<Delta>),
}

/// The log as a caller may see it, from a revision on. It ends with an error, or when the control plane does.
pub struct Following {
    store: Arc<dyn Store>,
    /// Of the one agent, where it is one.
    live: Subscription,
    /// How far the feed has told.
    reached: watch::Receiver<Reached>,
    /// How often the log had gone back when this was opened.
    returns: u64,
    deltas: Option<DeltaStream>,
    backlog: Option<BoxStream<'static, Result<Vec<Event>, StoreError>>>,
    /// All up to here was looked at.
    last: Revision,
    /// All up to here is read from the store; what comes later comes from the feed.
    target: Revision,
    /// It ends once all up to `target` is told.
    ends: bool,
    /// The feed has told something that was not heard here.
    missed: bool,
    ready: VecDeque<Arc<Event>>,
    filter: EventFilter,
    owner: Option<UserName>,
    owned: HashMap<AgentId, bool>,
}

impl fmt::Debug for Following {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Following").field("last", &self.last).field("filter", &self.filter).finish_non_exhaustive()
    }
}

impl ControlPlane {
    /// Follows a tenant's log, or one agent's part of it, after the revision `since`; from now on where it is absent.
    ///
    /// # Errors
    /// Where the caller may not see it; [`Error::Gone`] where the log no longer goes back that far, or is not that long, since it
    /// went back; [`StoreError::Unavailable`] where it is shorter than what this process has told of it.
    pub async fn follow(
        &self,
        call: &Call,
        tenant: &TenantName,
        agent: Option<&AgentName>,
        since: Option<Revision>,
    ) -> Result<Following, Error> {
        let (agent, owner) = match agent {
            Some(name) => (Some(self.find(call, tenant, name, Action::Get).await?.id), None),
            None => {
                self.allow(call, Action::List, Resource::Events { tenant }).await?;
                (None, visible_owner(&call.principal))
            }
        };
        let feed = &self.inner.feed;
        let reached = feed.reached();
        let before = *reached.borrow();
        let live = agent.map_or_else(|| feed.subscribe(), |agent| feed.subscribe_to(agent));
        let deltas = agent.map(|agent| feed.deltas().of(agent));
        // After the subscription: what the feed has told before it is in the store up to this revision.
        let head = self.inner.store.head().await?.value;
        // It went back, which the feed is about to learn.
        if head < before.revision {
            let reason = format!("the log went back to revision {head}, of which this server does not know all yet");
            return Err(StoreError::Unavailable { reason }.into());
        }
        let last = since.unwrap_or(head);
        if last > head {
            return Err(Error::Gone { oldest: head.next() });
        }
        let mut following = Following {
            store: Arc::clone(&self.inner.store),
            live,
            reached,
            returns: before.returns,
            deltas,
            backlog: None,
            last,
            target: head,
            ends: false,
            missed: false,
            ready: VecDeque::new(),
            filter: EventFilter { tenant: Some(tenant.clone()), agent },
            owner,
            owned: HashMap::new(),
        };
        if last < head {
            following.open().await?;
        }
        Ok(following)
    }

    /// The revision after which the log has the latest `count` events of a tenant, or of one agent, that the caller may
    /// see; that before its beginning where there are no more, and one further back than which it is not looked where what
    /// else has happened since is much: 65,536 events of whomever.
    ///
    /// # Errors
    /// As [`follow`](Self::follow): `Gone` only where the log is cut while it is read.
    pub async fn before_latest(
        &self,
        call: &Call,
        tenant: &TenantName,
        agent: Option<&AgentName>,
        count: usize,
    ) -> Result<Revision, Error> {
        let mut back = count as u64;
        loop {
            let head = self.inner.store.head().await?.value;
            let mut since = Revision(head.0.saturating_sub(back));
            let mut following = match self.follow(call, tenant, agent, Some(since)).await {
                // The log is cut in pieces: the next one may be cut before it is read.
                Err(Error::Gone { oldest }) => {
                    since = Revision(oldest.0.saturating_sub(1));
                    match self.follow(call, tenant, agent, Some(since)).await {
                        Err(Error::Gone { .. }) => continue,
                        following => following?.to_its_end(),
                    }
                }
                following => following?.to_its_end(),
            };
            let whole = since.0 == 0 || since.0 > head.0.saturating_sub(back);
            let mut latest = VecDeque::new();
            while let Some(told) = following.next().await {
                match told {
                    Ok(Followed::Event(event)) => latest.push_back(event.revision),
                    Ok(Followed::Delta(_)) => {}
                    Err(error) => return Err(error),
                }
                if latest.len() > count {
                    since = latest.pop_front().unwrap_or(since);
                }
            }
            if whole || latest.len() >= count || back >= LOOKED_BACK {
                return Ok(since);
            }
            // Most of the log is about others.
            back = back.saturating_mul(8).clamp(1, LOOKED_BACK);
        }
    }
}

impl Following {
    /// Only to where the log ended when this was opened.
    #[must_use]
    pub fn to_its_end(mut self) -> Self {
        self.ends = true;
        self.deltas = None;
        self
    }

    /// All up to here was looked at: who follows anew after it misses nothing.
    #[must_use]
    pub fn position(&self) -> Revision {
        match self.ready.front() {
            Some(event) => Revision(event.revision.0.saturating_sub(1)),
            None => {
                // Before it is looked whether there is something to hear: it was told before this is.
                let told = self.reached.borrow().revision;
                let heard = self.last >= self.target && !self.missed && self.live.is_empty();
                if heard { self.last.max(told) } else { self.last }
            }
        }
    }

    /// What comes next; none at the end that was asked for, or once the control plane is gone. Nothing is lost where the future is dropped.
    ///
    /// # Errors
    /// Where the store fails. The caller may follow anew from the last revision that it saw.
    pub async fn next(&mut self) -> Option<Result<Followed, Error>> {
        loop {
            while let Some(event) = self.ready.front().cloned() {
                if self.ends && event.revision > self.target {
                    return None;
                }
                let visible = self.is_visible(&event).await;
                self.ready.pop_front();
                match visible {
                    Ok(true) => return Some(Ok(Followed::Event(event))),
                    Ok(false) => {}
                    Err(error) => return Some(Err(error.into())),
                }
            }
            if self.missed {
                let reached = *self.reached.borrow();
                if reached.returns > self.returns {
                    return Some(Err(Error::Gone { oldest: reached.revision.next() }));
                }
                match self.store.head().await {
                    Ok(head) => self.target = head.value,
                    Err(error) => return Some(Err(error.into())),
                }
                self.missed = false;
            }
            if self.last < self.target {
                if let Err(error) = self.read_back().await {
                    return Some(Err(error.into()));
                }
                continue;
            }
            if self.ends {
                return None;
            }
            // Where some is missed after this, less has to be read.
            self.last = self.position();
            tokio::select! {
                biased;
                told = self.live.told() => match told {
                    Ok(Told::Event(event)) if event.revision <= self.last => {}
                    Ok(Told::Event(event)) => self.look_at(event),
                    Ok(Told::Skipped(_)) | Err(RecvError::Lagged(_)) => self.missed = true,
                    // What this one was told last may be in no log any more, or another event by now.
                    Ok(Told::WentBack(head)) => return Some(Err(Error::Gone { oldest: head.next() })),
                    Err(RecvError::Closed) => return None,
                },
                delta = next_delta(&mut self.deltas) => return Some(Ok(Followed::Delta(delta))),
            }
        }
    }

    /// As a stream that ends after its first error.
    #[must_use]
    pub fn into_stream(self) -> BoxStream<'static, Result<Followed, Error>> {
        stream::unfold(Some(self), |following| async {
            let mut following = following?;
            let next = following.next().await?;
            let rest = next.is_ok().then_some(following);
            Some((next, rest))
        })
        .boxed()
    }

    /// Reads without a filter, so that the end of what is past is seen for sure.
    async fn open(&mut self) -> Result<(), StoreError> {
        self.backlog = Some(self.store.watch(self.last, EventFilter::default()).await?);
        Ok(())
    }

    async fn read_back(&mut self) -> Result<(), StoreError> {
        if self.backlog.is_none() {
            self.open().await?;
        }
        let Some(backlog) = &mut self.backlog else { return Ok(()) };
        match backlog.next().await {
            Some(burst) => {
                for event in burst? {
                    if event.revision > self.last.next() {
                        return Err(StoreError::Gone { oldest: event.revision });
                    }
                    if event.revision > self.last {
                        self.look_at(Arc::new(event));
                    }
                }
            }
            None => return Err(StoreError::Unavailable { reason: "the log ended".into() }),
        }
        if self.last >= self.target {
            self.backlog = None;
        }
        Ok(())
    }

    fn look_at(&mut self, event: Arc<Event>) {
        self.last = event.revision;
        if self.filter.matches(&event) {
            self.ready.push_back(event);
        }
    }

    /// Whether the agent that an event is about belongs to the owner whose agents alone are seen.
    async fn is_visible(&mut self, event: &Event) -> Result<bool, StoreError> {
        let Some(owner) = &self.owner else { return Ok(true) };
        let Some(id) = event.agent else { return Ok(false) };
        if let Some(&owned) = self.owned.get(&id) {
            return Ok(owned);
        }
        let agent = self.store.agent_by_id(id).await?.value;
        let owned = agent.is_some_and(|agent| agent.owner == *owner);
        self.owned.insert(id, owned);
        Ok(owned)
    }
}

/// The next delta; never, where none are wanted.
async fn next_delta(deltas: &mut Option<DeltaStream>) -> Arc<Delta> {
    match deltas {
        Some(deltas) => deltas.next().await,
        None => std::future::pending().await,
    }
}
