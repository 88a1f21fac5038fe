//! Commits with a flaw.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::{Flaw, Flawed, commit_id};
use crate::ids::Revision;
use crate::message::Part;
use crate::store::{
    AgentOp, Change, Check, Commit, Committed, Evaluated, RecordChange, RecordCheck, RecordKey, RecordKind, Rows,
    Store, StoreError,
};

/// A commit that nobody asked for.
pub(super) fn noise() -> Commit {
    let id = commit_id();
    let key = RecordKey { kind: RecordKind::Setting, tenant: None, name: format!("noise {id}") };
    Commit::new(id, vec![record(key, RecordCheck::Absent)])
}

fn record(key: RecordKey, when: RecordCheck) -> Change {
    Change::Record(RecordChange { key, when, body: Some(json!(0)), ttl: None })
}

impl Flawed {
    pub(super) async fn flawed_commit(&self, mut commit: Commit) -> Result<Committed, StoreError> {
        self.change_commit(&mut commit).await?;
        if self.is(Flaw::QuotaBeforeCommit) && !commit.quota.is_empty() {
            let quota = std::mem::take(&mut commit.quota);
            self.inner.commit(Commit { quota, ..Commit::new(commit_id(), vec![]) }).await?;
        }
        if self.is(Flaw::NotAtomic) && commit.changes.len() > 1 {
            let mut last = None;
            for change in commit.changes {
                last = Some(self.inner.commit(Commit::new(commit_id(), vec![change])).await?);
            }
            return Ok(last.expect("there are changes"));
        }
        let audit = commit.audit.clone();
        let names = commit.footprint().names;
        let result = self.write(commit).await;
        // The next one that would go through is taken down with the one that failed.
        if self.is(Flaw::FailsTheBatch)
            && result.is_ok()
            && let Some(failed) = self.memory().failed.take()
        {
            return Err(failed.into());
        }
        match &result {
            Ok(_) => self.memory().names.extend(names),
            Err(_) if self.is(Flaw::FailureTakesARevision) => self.noise().await?,
            Err(_) if self.is(Flaw::AuditOnFailure) => {
                self.inner.commit(Commit { audit, ..Commit::new(commit_id(), vec![]) }).await?;
            }
            Err(StoreError::Conflict(conflict)) => self.memory().failed = Some(conflict.clone()),
            Err(_) => {}
        }
        result
    }

    /// What is wrong with the commit before anything is read.
    async fn change_commit(&self, commit: &mut Commit) -> Result<(), StoreError> {
        if self.is(Flaw::NoDedupe) || self.is(Flaw::ForgetsCommitsAtRestart) && self.memory().restarted {
            commit.id = commit_id();
        }
        if self.is(Flaw::QuotaNeverShrinks) {
            commit.quota.retain(|delta| delta.delta > 0);
        }
        if self.is(Flaw::KeysOfAllPrincipals)
            && let Some(record) = &mut commit.idempotency
        {
            record.key.principal.clear();
        }
        for change in &mut commit.changes {
            match change {
                Change::Agent(change) if self.is(Flaw::PreconditionsAreIgnored) => {
                    if !matches!(change.ops.first(), Some(AgentOp::Create(_))) {
                        change.when = vec![Check::Alive];
                    }
                }
                Change::Record(change) if self.is(Flaw::VersionIsIgnored) => {
                    let found = self.inner.record(&change.key).await?;
                    change.when = found.map_or(RecordCheck::Absent, |record| RecordCheck::Version(record.version));
                }
                Change::Agent(_) | Change::Record(_) | Change::Reclaimed(_) => {}
            }
        }
        Ok(())
    }

    async fn write(&self, commit: Commit) -> Result<Committed, StoreError> {
        let rows = {
            let (tables, now) = self.inner.lock();
            if let Some(first) = tables.committed(commit.id) {
                let mut answer = first.clone();
                if self.is(Flaw::ResendIsAnsweredAnew) {
                    answer.agents = answer.agents.iter().filter_map(|agent| tables.agent(agent.id)).cloned().collect();
                }
                return Ok(answer);
            }
            tables.rows(&commit.footprint(), now)
        };
        if self.is(Flaw::LosesUpdates) {
            // Others load the same rows meanwhile.
            tokio::task::yield_now().await;
        }
        let (mut tables, now) = self.inner.lock();
        let mut rows = if self.is(Flaw::LosesUpdates) { rows } else { tables.rows(&commit.footprint(), now) };
        self.change_rows(&commit, &mut rows);
        let mut evaluated = commit.evaluate(rows)?;
        let head = tables.head();
        self.change_result(&mut evaluated);
        evaluated.seal(if self.is(Flaw::RevisionsHaveGaps) { Revision(head.0 + 1) } else { head });
        self.change_written(&mut evaluated, head);
        let committed = tables.write(commit.id, evaluated);
        drop(tables);
        let _ = self.inner.grown.send(());
        Ok(committed)
    }

    /// What is wrong with the rows that are read.
    fn change_rows(&self, commit: &Commit, rows: &mut Rows) {
        let names = &commit.footprint().names;
        match self.flaw {
            Flaw::NamesAreNotUnique => rows.taken.clear(),
            Flaw::NamesStayTaken => {
                let memory = self.memory();
                rows.taken.extend(names.intersection(&memory.names).cloned());
            }
            Flaw::NamesOfAllTenants => {
                let memory = self.memory();
                let seen = |name| memory.names.iter().any(|(_, seen)| seen == name);
                rows.taken.extend(names.iter().filter(|(_, name)| seen(name)).cloned());
            }
            Flaw::InboxIsNotLoaded => {
                let held: Vec<_> = rows.agents.values().filter_map(|agent| agent.status.message).collect();
                let asked = commit.footprint().messages;
                rows.messages.retain(|id, _| held.contains(id) || asked.contains(id));
            }
            Flaw::KeysAreForgotten => rows.answer = None,
            Flaw::MismatchIsReplayed => {
                if let (Some(answer), Some(record)) = (&mut rows.answer, &commit.idempotency) {
                    answer.request.clone_from(&record.request);
                }
            }
            _ => {}
        }
    }

    /// What is wrong with what the commit comes to.
    fn change_result(&self, evaluated: &mut Evaluated) {
        match self.flaw {
            Flaw::MessagesHaveGaps if !evaluated.messages.is_empty() => {
                evaluated.agents.iter_mut().for_each(|agent| agent.inbox.last_seq += 1);
            }
            Flaw::StepsHaveGaps if !evaluated.steps.is_empty() => {
                evaluated.agents.iter_mut().for_each(|agent| agent.inbox.last_step += 1);
            }
            Flaw::TellsAllThatItWrites => evaluated.untold.clear(),
            Flaw::TimesOfTheWriter => {
                evaluated.agents.iter_mut().for_each(|agent| agent.created_at = Timestamp::UNIX_EPOCH);
            }
            Flaw::KeysNeverExpire => {
                evaluated.answer.iter_mut().for_each(|(_, answer)| answer.expires = Timestamp::MAX);
            }
            Flaw::RecordsNeverExpire => {
                evaluated.records.iter_mut().flat_map(|(_, record)| record).for_each(|record| record.expires = None);
            }
            _ => {}
        }
    }

    /// What is wrong with what is written, while the answer is right.
    fn change_written(&self, evaluated: &mut Evaluated, head: Revision) {
        let texts = |change: fn(&mut String)| {
            move |evaluated: &mut Evaluated| {
                for part in evaluated.messages.iter_mut().flat_map(|message| &mut message.parts) {
                    if let Part::Text { text } = part {
                        change(text);
                    }
                }
            }
        };
        match self.flaw {
            Flaw::AuditOneTooEarly => evaluated.audit.iter_mut().for_each(|row| row.revision = head),
            Flaw::AuditIsLossy if evaluated.committed.revision.0.is_multiple_of(7) => evaluated.audit = None,
            Flaw::TimesDrift => {
                for agent in &mut evaluated.agents {
                    agent.created_at += SignedDuration::from_micros(1);
                }
            }
            Flaw::TextLosesNul => texts(|text| *text = text.replace('\0', ""))(evaluated),
            Flaw::TextIsCut => texts(|text| text.truncate(text.floor_char_boundary(65_535)))(evaluated),
            Flaw::EmptyIsNothing => {
                for agent in &mut evaluated.agents {
                    agent.spec.model = agent.spec.model.take().filter(|text| !text.is_empty());
                }
            }
            _ => {}
        }
    }
}
