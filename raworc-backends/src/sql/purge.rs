//! What is old is found by readers, and taken away by whoever may.
//!
//! Rows that are found never change again: messages that have ended, steps, audit rows, agents that are deleted. So it does
//! no harm that time passes between, nor that another finds the same. Only what moves the beginning of the log, takes away agents,
//! of which the writer may hold a copy, or has to do with blobs, to which a commit may refer, waits for the writer's turn.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use raworc_core::agent::Agent;
use raworc_core::blob::BlobId;
use raworc_core::computer::Computer;
use raworc_core::ids::{AgentId, Revision, RuntimeName, TenantName};
use raworc_core::message::Message;
use raworc_core::step::Step as Taken;
use raworc_core::store::{
    ComputerQuery, Cutoffs, MAX_PAGE, MessageQuery, PURGE_LOOKS, PageRows, Purge, PurgeFrom, PurgedRows, StepQuery,
    is_past,
};
use serde::Deserialize;
use sqlx::Connection;

use super::Shared;
use super::blobs::PIECE;
use super::convert::{broken, count, doc, int, micros, number, text, time};
use super::dialect::{Columns, Dialect};
use super::fault::{is_of_a_row, what_is_wrong};
use super::read::{plain, within};
use super::script::{Cell, Script};
use super::statements as sql;

/// Rows that are to be taken away.
#[derive(Debug, Default)]
pub(crate) struct Stale {
    /// The log up to here.
    pub(crate) log: Option<Revision>,
    audit: Option<i64>,
    /// Of each of these agents, up to this number.
    messages: Vec<(AgentId, u64)>,
    steps: Vec<(AgentId, u64)>,
    /// The same for those whose messages refer to blobs, and these.
    referring: Vec<(AgentId, u64)>,
    left: BTreeSet<(TenantName, BlobId)>,
    /// Blobs that nothing refers to since before a time.
    blobs: Vec<(String, String)>,
    idle: Option<Timestamp>,
    /// Agents with nothing left of theirs.
    pub(crate) agents: Vec<AgentId>,
    /// How many rows these are.
    pub(crate) counted: PurgedRows,
}

impl Stale {
    /// Whether there are rows that nobody looks at who writes.
    pub(crate) const fn has_rows(&self) -> bool {
        self.audit.is_some() || !self.messages.is_empty() || !self.steps.is_empty()
    }

    /// Whether some of it is the writer's to take away.
    pub(crate) const fn needs_the_head(&self) -> bool {
        self.log.is_some() || !self.agents.is_empty() || !self.referring.is_empty() || !self.blobs.is_empty()
    }

    /// Takes away the rows that nobody looks at who writes.
    pub(crate) fn rows(&self) -> Script {
        let mut script = Script::default();
        for (statement, upto) in [(sql::FORGET_STEPS, &self.steps), (sql::FORGET_MESSAGES, &self.messages)] {
            for (agent, seq) in upto {
                script.add(statement, [agent.to_string().into(), int(*seq).into()]);
            }
        }
        if let Some(seq) = self.audit {
            script.add(sql::FORGET_AUDIT, [seq.into()]);
        }
        script
    }

    /// Takes away what has to do with blobs. A message that refers to one is accepted by who writes, before that or after it.
    pub(crate) fn references(&self, now: Timestamp) -> Script {
        let mut script = Script::default();
        for (agent, seq) in &self.referring {
            for statement in [sql::FORGET_REFERENCES, sql::FORGET_MESSAGES] {
                script.add(statement, [agent.to_string().into(), int(*seq).into()]);
            }
        }
        for (tenant, blob) in &self.left {
            script.add(sql::LEAVE_BLOB, [micros(now).into(), tenant.to_string().into(), blob.to_string().into()]);
        }
        for (tenant, blob) in &self.blobs {
            let key = [Cell::from(tenant.clone()), Cell::from(blob.clone())];
            script.add(sql::FORGET_BLOB, [&key[..], &[self.idle.map(micros).into()]].concat());
            script.add(sql::FORGET_PIECES, key);
        }
        script
    }

    fn left(&self, most: usize) -> usize {
        most.saturating_sub(usize::try_from(self.counted.all()).unwrap_or(usize::MAX))
    }
}

/// Tells that something of an agent stays since it cannot be read, each time that all is gone through.
fn stays(agent: AgentId, error: &sqlx::Error) {
    let error = what_is_wrong(error);
    tracing::warn!(%agent, error, "what is old of this agent cannot be read, and is not taken away");
}

/// When an event was. What else it says may be what this release does not know.
#[derive(Deserialize)]
struct When {
    at: Timestamp,
}

/// What there is of an agent that may be old.
struct Oldest {
    agent: AgentId,
    message: Option<Message>,
    step: Option<Taken>,
    /// The agent, where it is deleted.
    deleted: Option<Agent>,
}

impl Oldest {
    fn of(row: &impl Columns) -> Result<(Self, usize), sqlx::Error> {
        let mut bytes = 0;
        for at in 1..=3 {
            bytes += row.text(at)?.map_or(0, |text| text.len());
        }
        let agent = text(row, 0)?.parse().map_err(broken)?;
        let oldest = Self::read(agent, row).unwrap_or_else(|error| {
            stays(agent, &error);
            Self { agent, message: None, step: None, deleted: None }
        });
        Ok((oldest, bytes))
    }

    fn read(agent: AgentId, row: &impl Columns) -> Result<Self, sqlx::Error> {
        Ok(Self {
            agent,
            message: row.text(1)?.map(|_| doc(row, 1)).transpose()?,
            step: row.text(2)?.map(|_| doc(row, 2)).transpose()?,
            deleted: row.text(3)?.map(|_| doc(row, 3)).transpose()?,
        })
    }

    fn deleted_at(&self) -> Option<Timestamp> {
        self.deleted.as_ref().map(|agent| agent.status.since)
    }

    fn may_go(&self, mine: &Cutoffs) -> bool {
        self.message.as_ref().is_some_and(|message| mine.take_message(message))
            || self.step.as_ref().is_some_and(|step| mine.take_step(step))
            || self.deleted_at().is_some_and(|at| is_past(mine.deleted_agents, at))
    }
}

/// For each runtime, whose computers are to be reclaimed; none where those are too many to be gone through.
type Reclaimed = BTreeMap<RuntimeName, BTreeSet<AgentId>>;

impl<D: Dialect> Shared<D> {
    /// Finds some of what is old, and where to go on after it.
    pub(crate) async fn stale(&self, purge: &Purge) -> Result<(Stale, Option<PurgeFrom>), sqlx::Error> {
        let cutoffs = purge.retention.cutoffs(self.time.now());
        let mut stale = Stale::default();
        let Some(part) = purge.from.part(&cutoffs) else { return Ok((stale, None)) };
        let most = purge.most();
        let (ends, next) = match part {
            PurgeFrom::Events => (self.stale_events(&cutoffs, most, &mut stale).await?, part),
            PurgeFrom::Audit => (self.stale_audit(&cutoffs, most, &mut stale).await?, part),
            PurgeFrom::Agents(after) => {
                let (ends, done) = self.stale_agents(after, &cutoffs, most, &mut stale).await?;
                (ends, PurgeFrom::Agents(done))
            }
            PurgeFrom::Blobs => (self.stale_blobs(&cutoffs, most, &mut stale).await?, part),
        };
        Ok((stale, if ends { part.next_part(&cutoffs) } else { Some(next) }))
    }

    /// Takes away what nobody looks at who writes, in a transaction beside the writer's.
    pub(crate) async fn forget_rows(&self, stale: &Stale) -> Result<(), sqlx::Error> {
        self.insist(async || {
            let mut conn = self.answering().await?;
            let forget = async {
                let mut transaction = conn.get()?.begin().await?;
                D::run(&mut transaction, stale.rows()).await?;
                transaction.commit().await
            };
            within(forget).await?;
            conn.give_back();
            Ok(())
        })
        .await
    }

    /// Whether these are all that are old.
    async fn stale_events(&self, cutoffs: &Cutoffs, most: usize, stale: &mut Stale) -> Result<bool, sqlx::Error> {
        // Mostly nothing is old, and the first event says so.
        for rows in [1, most] {
            let events = self.log(Revision(0), rows).await?;
            let events = events.iter().map(|row| Ok((Revision(count(row, 0)?), doc::<When>(row, 3).ok())));
            let events: Vec<_> = events.collect::<Result<_, sqlx::Error>>()?;
            // One that cannot be read is as old as the next one that can.
            let is_old = |at: &Option<When>| at.as_ref().is_none_or(|when| is_past(cutoffs.events, when.at));
            let mut old: Vec<_> = events.iter().take_while(|(_, at)| is_old(at)).collect();
            let may_be_old = !old.is_empty();
            while old.pop_if(|(_, at)| at.is_none()).is_some() {}
            stale.log = old.last().map(|(revision, _)| *revision);
            stale.counted.events = old.len() as u64;
            if !may_be_old {
                return Ok(true);
            }
        }
        Ok(stale.left(most) > 0)
    }

    async fn stale_audit(&self, cutoffs: &Cutoffs, most: usize, stale: &mut Stale) -> Result<bool, sqlx::Error> {
        let step = plain(sql::AUDIT_TIMES, [0.into(), int(most as u64).into()]);
        let rows = self.all(step, |row| Ok((number(row, 0)?, time(number(row, 1)?)?))).await?;
        let old: Vec<_> = rows.iter().take_while(|(_, at)| is_past(cutoffs.audit, *at)).collect();
        stale.audit = old.last().map(|(seq, _)| *seq);
        stale.counted.audit = old.len() as u64;
        Ok(stale.left(most) > 0)
    }

    /// Whether these are all that are old. What a blob takes counts by its pieces, and one goes in any case.
    async fn stale_blobs(&self, cutoffs: &Cutoffs, most: usize, stale: &mut Stale) -> Result<bool, sqlx::Error> {
        stale.idle = cutoffs.blobs;
        let step = plain(sql::IDLE_BLOBS, [cutoffs.blobs.map(micros).into(), int(most as u64).into()]);
        let key = |row: &D::Row| Ok(((text(row, 0)?.into_owned(), text(row, 1)?.into_owned()), count(row, 2)?));
        let rows = self.all(step, key).await?;
        let (found, mut room) = (rows.len(), most as u64);
        for (key, size) in rows {
            let pieces = 1 + size.div_ceil(PIECE as u64);
            if pieces > room && !stale.blobs.is_empty() {
                break;
            }
            room = room.saturating_sub(pieces);
            stale.blobs.push(key);
        }
        // In one order, whoever takes them away.
        stale.blobs.sort_unstable();
        stale.counted.blobs = stale.blobs.len() as u64;
        Ok(stale.blobs.len() == found && found < most)
    }

    /// Whether these were the last agents, and the last of them that is done with.
    async fn stale_agents(
        &self,
        after: Option<AgentId>,
        cutoffs: &Cutoffs,
        most: usize,
        stale: &mut Stale,
    ) -> Result<(bool, Option<AgentId>), sqlx::Error> {
        let page = PageRows::new(PURGE_LOOKS);
        let place = after.map(|after| after.to_string()).unwrap_or_default();
        let step = plain(sql::OLDEST_OF_AGENTS, [place.into(), int(page.wanted() as u64).into()]);
        let page = self.rows(step, page, Oldest::of).await?.page(|oldest| oldest.agent.to_string());
        let (mut reclaimed, mut done) = (Reclaimed::new(), after);
        for oldest in &page.items {
            let mine = cutoffs.of_agent(oldest.deleted_at());
            if oldest.may_go(&mine) {
                match self.stale_agent(oldest, &mine, most, &mut reclaimed, stale).await {
                    Ok(true) => {}
                    Ok(false) => return Ok((false, done)),
                    Err(error) if is_of_a_row(&error) => stays(oldest.agent, &error),
                    Err(error) => return Err(error),
                }
            }
            done = Some(oldest.agent);
        }
        Ok((page.next.is_none(), done))
    }

    /// Whether all of this agent is found that may go.
    async fn stale_agent(
        &self,
        oldest: &Oldest,
        mine: &Cutoffs,
        most: usize,
        reclaimed: &mut Reclaimed,
        stale: &mut Stale,
    ) -> Result<bool, sqlx::Error> {
        let agent = oldest.agent;
        let left = stale.left(most);
        if left == 0 {
            return Ok(false);
        }
        let page = self.messages(&MessageQuery { limit: left, ..MessageQuery::of(agent) }).await?;
        let old: Vec<_> = page.items.iter().take_while(|message| mine.take_message(message)).collect();
        let left = old.iter().flat_map(|message| message.blobs().into_iter().map(|id| (message.tenant.clone(), id)));
        let left: Vec<_> = left.collect();
        let upto = if left.is_empty() { &mut stale.messages } else { &mut stale.referring };
        upto.extend(old.last().map(|message| (agent, message.seq)));
        stale.left.extend(left);
        stale.counted.messages += old.len() as u64;
        let left = stale.left(most);
        if left == 0 || old.len() == page.items.len() && page.next.is_some() {
            return Ok(false);
        }
        let page = self.steps(&StepQuery { agent, message: None, after: 0, limit: left }).await?;
        let old: Vec<_> = page.items.iter().take_while(|step| mine.take_step(step)).collect();
        let open = self.open_among(&old).await?;
        let is_over = |step: &Taken| !step.message.is_some_and(|message| open.contains(&message.to_string()));
        let old: Vec<_> = old.into_iter().take_while(|step| is_over(step)).collect();
        stale.steps.extend(old.last().map(|step| (agent, step.seq)));
        stale.counted.steps += old.len() as u64;
        if stale.left(most) == 0 || old.len() == page.items.len() && page.next.is_some() {
            return Ok(false);
        }
        if let Some(deleted) = &oldest.deleted
            && is_past(mine.deleted_agents, deleted.status.since)
            && self.is_reclaimed(deleted, reclaimed).await?
        {
            stale.agents.push(agent);
            stale.counted.agents += 1;
        }
        Ok(true)
    }

    /// Which of the messages that steps were taken for have not ended.
    async fn open_among(&self, steps: &[&Taken]) -> Result<BTreeSet<String>, sqlx::Error> {
        let messages: BTreeSet<_> = steps.iter().filter_map(|step| step.message).collect();
        let mut script = Script::default();
        script.ask(sql::WHICH_ARE_OPEN, messages.into_iter().map(|message| message.to_string().into()).collect());
        if script.is_empty() {
            return Ok(BTreeSet::new());
        }
        self.run(script).await?.iter().map(|row| Ok(text(row, 0)?.into_owned())).collect()
    }

    /// Whether no computer of a deleted agent waits to be taken away.
    async fn is_reclaimed(&self, agent: &Agent, known: &mut Reclaimed) -> Result<bool, sqlx::Error> {
        let Some(runtime) = &agent.spec.runtime else { return Ok(true) };
        if !known.contains_key(runtime) {
            let mut query = ComputerQuery { runtime: runtime.clone(), reclaim: true, after: None, limit: MAX_PAGE };
            let mut whose = BTreeSet::new();
            loop {
                let page = self.computers(&query).await?;
                query.after = page.items.last().map(Computer::id);
                whose.extend(page.items.iter().map(|computer| computer.agent));
                if page.next.is_none() {
                    break;
                }
            }
            known.insert(runtime.clone(), whose);
        }
        Ok(known.get(runtime).is_some_and(|whose| !whose.contains(&agent.id)))
    }
}
