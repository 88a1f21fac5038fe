//! Whether what a store holds is sound: each row is one that this release can read, and agrees with the others.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use raworc_core::agent::{Agent, State};
use raworc_core::blob::BlobId;
use raworc_core::computer::Computer;
use raworc_core::event::Event;
use raworc_core::ids::{AgentId, CommitId, ComputerId, TenantName};
use raworc_core::message::{Message, MessageState};
use raworc_core::step::Step;
use raworc_core::store::{Answer, AuditRow, Committed, QuotaKind};
use sha2::{Digest, Sha256};

use super::status::{fit, run};
use super::table::{Sum, TABLES, Table};
use super::words::Words;
use super::{Contents, Count, Told, Verified, WholeError, fault};
use crate::sql::batch::Head;
use crate::sql::blobs::PIECE;
use crate::sql::convert::{agent, broken, count, doc, int, micros, number, record, tenant_key, text, to_doc};
use crate::sql::dialect::Columns;
use crate::sql::pending::{agent_row, audit_row, computer_row, message_row, record_row, step_row};
use crate::sql::script::Cell;

/// Flaws that are told.
const TOLD: usize = 50;

/// Reads every row, as the database is at one moment.
pub(super) async fn verify<D: Words>(
    conn: &mut D::Connection,
    place: &str,
    told: Told<'_>,
) -> Result<Verified, WholeError> {
    let failed = |error: sqlx::Error| fault::<D>(&error, place);
    run::<D>(conn, D::PATIENT).await.map_err(failed)?;
    run::<D>(conn, D::SNAPSHOT).await.map_err(failed)?;
    let looked = async {
        fit::<D>(conn, place).await?;
        look::<D>(conn, told).await.map_err(failed)
    };
    let looked = looked.await;
    drop(run::<D>(conn, D::ROLLBACK).await);
    looked
}

async fn look<D: Words>(conn: &mut D::Connection, told: Told<'_>) -> Result<Verified, sqlx::Error> {
    let mut progress = Count::new(told);
    let mut checks = Checks::default();
    let mut contents = Contents::default();
    for table in TABLES {
        let mut sum = Sum::default();
        let mut rows = D::stream(conn, table.select());
        while let Some(row) = rows.try_next().await? {
            let cells = match table.cells(&row) {
                Ok(cells) => cells,
                // A text that is none, or a NULL where there is to be something.
                Err(error) => {
                    checks.flaws.add(format!("{}: row {}: {error}", table.name(), sum.rows() + 1));
                    continue;
                }
            };
            sum.add(&cells)?;
            progress.row(table.name());
            checks.row(table, Row(cells));
        }
        checks.end(table.name());
        contents.tables.push(sum.of(table.name()));
    }
    let Flaws { told: flaws, all: flawed } = checks.flaws;
    Ok(Verified { contents, flaws, flawed })
}

/// A row as it was read.
struct Row(Vec<Cell>);

impl Columns for Row {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn int(&self, at: usize) -> Result<Option<i64>, sqlx::Error> {
        match self.0.get(at) {
            Some(Cell::Int(number)) => Ok(*number),
            _ => Err(broken(format!("no number in column {at}"))),
        }
    }

    fn text(&self, at: usize) -> Result<Option<std::borrow::Cow<'_, str>>, sqlx::Error> {
        match self.0.get(at) {
            Some(Cell::Text(text)) => Ok(text.as_deref().map(Into::into)),
            _ => Err(broken(format!("no text in column {at}"))),
        }
    }

    fn bytes(&self, at: usize) -> Result<&[u8], sqlx::Error> {
        match self.0.get(at) {
            Some(Cell::Bytes(bytes)) => Ok(bytes),
            _ => Err(broken(format!("no bytes in column {at}"))),
        }
    }
}

/// What is wrong, the first of it.
#[derive(Default)]
struct Flaws {
    told: Vec<String>,
    all: u64,
}

impl Flaws {
    fn add(&mut self, flaw: String) {
        self.all += 1;
        if self.told.len() < TOLD {
            self.told.push(flaw);
        }
    }
}

/// What an agent's row says of other rows, and what was seen of them.
#[derive(Default)]
struct Facts {
    last_message: u64,
    last_step: u64,
    queued: u64,
    seen_message: u64,
    seen_step: u64,
    seen_queued: u64,
    /// Its computer, until that was seen.
    computer: Option<ComputerId>,
}

/// A blob whose pieces are being read.
struct Pieces {
    tenant: String,
    id: String,
    hash: Sha256,
    size: u64,
    last: usize,
    next: i64,
}

/// What was seen so far. It takes some words for each agent, and nothing for any other row.
#[derive(Default)]
struct Checks {
    flaws: Flaws,
    head: Option<Head>,
    agents: BTreeMap<AgentId, Facts>,
    /// The labels that agents have by their documents, and those that are there.
    labels: (Sum, Sum),
    /// What the quotas are to be by the rows, less what was seen of them.
    used: BTreeMap<TenantName, u64>,
    revision: Option<u64>,
    /// The blobs that have to have pieces, and those that pieces make.
    blobs: (Sum, Sum),
    pieces: Option<Pieces>,
    /// The references that messages make by their documents, and those that are there.
    references: (Sum, Sum),
}

impl Checks {
    fn row(&mut self, table: &Table, row: Row) {
        let name = table.name();
        let key: Vec<_> = table.order.iter().map(|column| shown(table, &row, column)).collect();
        let checked = match name {
            "head" => self.head(&row),
            "agents" => self.agent(table, &row),
            "agent_labels" => self.labels.1.add(&row.0).map(drop).map(|()| None),
            "messages" => self.message(table, &row),
            "steps" => self.step(table, &row),
            "computers" => self.computer(table, &row),
            "records" => record(&row).and_then(|record| Ok(differs(table, &row, &record_row(&record)?))),
            "quotas" => self.quota(&row),
            "answers" => answer(&row),
            "log" => self.event(table, &row),
            "commits" => self.commit(&row),
            "audit" => number(&row, 0).and_then(|seq| {
                let seq = u64::try_from(seq).map_err(broken)?;
                of_doc::<AuditRow>(table, &row, |audited| Ok(audit_row(&audited, seq)?.into()))
            }),
            "blobs" => self.blob(&row),
            "blob_refs" => self.references.1.add(&row.0).map(drop).map(|()| None),
            _ => self.piece(&row),
        };
        match checked {
            Ok(None) => {}
            Ok(Some(flaw)) => self.flaws.add(format!("{name} {}: {flaw}", key.join(" "))),
            Err(error) => self.flaws.add(format!("{name} {}: {error}", key.join(" "))),
        }
    }

    /// When all rows of a table were seen.
    fn end(&mut self, table: &str) {
        match table {
            "head" if self.head.is_none() => self.flaws.add("head: there is none".to_owned()),
            "agent_labels" => {
                let (wanted, found) = std::mem::take(&mut self.labels);
                if wanted.of("") != found.of("") {
                    self.flaws.add("agent_labels: they are not those of the agents' documents".to_owned());
                }
            }
            "messages" => self.each_agent(|facts| {
                if facts.seen_message != 0 && facts.seen_message != facts.last_message {
                    return Some(format!(
                        "its last message is {}, and {} was to be",
                        facts.seen_message, facts.last_message
                    ));
                }
                (facts.seen_queued != facts.queued)
                    .then(|| format!("{} messages are queued, and {} were to be", facts.seen_queued, facts.queued))
            }),
            "steps" => self.each_agent(|facts| {
                (facts.seen_step != 0 && facts.seen_step != facts.last_step)
                    .then(|| format!("its last step is {}, and {} was to be", facts.seen_step, facts.last_step))
            }),
            "computers" => {
                self.each_agent(|facts| facts.computer.map(|computer| format!("its computer {computer} is not there")))
            }
            "quotas" => {
                for (tenant, used) in std::mem::take(&mut self.used) {
                    self.flaws.add(format!("quotas {tenant}: it is not there, and {used} agents are to be counted"));
                }
            }
            "log" => self.log_end(),
            "blob_refs" => {
                let (wanted, found) = std::mem::take(&mut self.references);
                if wanted.of("") != found.of("") {
                    self.flaws.add("blob_refs: they are not those of the messages' documents".to_owned());
                }
            }
            "blob_chunks" => {
                self.blob_end();
                let (wanted, found) = std::mem::take(&mut self.blobs);
                if wanted.of("") != found.of("") {
                    self.flaws
                        .add("blob_chunks: their sizes are not those of the blobs, or some are missing".to_owned());
                }
            }
            _ => {}
        }
    }

    fn each_agent(&mut self, flaw: impl Fn(&Facts) -> Option<String>) {
        for (id, facts) in &self.agents {
            if let Some(flaw) = flaw(facts) {
                self.flaws.add(format!("agents {id}: {flaw}"));
            }
        }
    }

    fn head(&mut self, row: &Row) -> Checked {
        let head = Head::of(row)?;
        self.head = Some(head);
        Ok((head.oldest.0 == 0 || head.oldest.0 > head.revision.0 + 1)
            .then(|| format!("its log begins at {} and ends at {}", head.oldest, head.revision)))
    }

    fn agent(&mut self, table: &Table, row: &Row) -> Checked {
        // The columns of the two times are more than the document.
        let times_and_doc = Row([7, 8, 9].map(|at| row.0[at].clone()).into());
        let agent: Agent = agent(&times_and_doc, 0)?;
        let inbox = agent.inbox;
        let facts = Facts {
            last_message: inbox.last_seq,
            last_step: inbox.last_step,
            queued: inbox.queued,
            computer: agent.status.computer.filter(|_| agent.status.state() != State::Deleted),
            ..Facts::default()
        };
        self.agents.insert(agent.id, facts);
        if agent.status.state() != State::Deleted {
            *self.used.entry(agent.tenant.clone()).or_default() += 1;
            for (label, value) in &agent.spec.labels {
                self.labels.0.add(&[agent.id.to_string().into(), label.as_str().into(), value.as_str().into()])?;
            }
        }
        Ok(differs(table, row, &agent_row(&agent, String::new())))
    }

    fn message(&mut self, table: &Table, row: &Row) -> Checked {
        let message: Message = doc(row, 5)?;
        let Some(facts) = self.agents.get_mut(&message.agent) else { return Ok(Some("its agent is not there".into())) };
        let before = std::mem::replace(&mut facts.seen_message, message.seq);
        facts.seen_queued += u64::from(message.state == MessageState::Queued);
        for blob in message.blobs() {
            let (agent, tenant) = (message.agent.to_string(), message.tenant.to_string());
            self.references.0.add(&[agent.into(), int(message.seq).into(), tenant.into(), blob.to_string().into()])?;
        }
        // The oldest may have been taken away.
        if before != 0 && message.seq != before + 1 {
            return Ok(Some(format!("the one before it is {before}")));
        }
        Ok(differs(table, row, &message_row(&message, String::new())))
    }

    fn step(&mut self, table: &Table, row: &Row) -> Checked {
        let step: Step = doc(row, 4)?;
        let Some(facts) = self.agents.get_mut(&step.agent) else { return Ok(Some("its agent is not there".into())) };
        let before = std::mem::replace(&mut facts.seen_step, step.seq);
        if before != 0 && step.seq != before + 1 {
            return Ok(Some(format!("the one before it is {before}")));
        }
        Ok(differs(table, row, &step_row(&step)?))
    }

    fn computer(&mut self, table: &Table, row: &Row) -> Checked {
        let computer: Computer = doc(row, row.count() - 1)?;
        let owner = self.agents.get_mut(&computer.agent);
        let owned = owner.and_then(|facts| facts.computer.take_if(|own| *own == computer.id())).is_some();
        if owned == computer.reclaim_since.is_some() {
            let told = if owned { "its agent has it, and it is to be reclaimed" } else { "no agent has it" };
            return Ok(Some(told.into()));
        }
        // An agent is counted until its volume is gone.
        if !owned && !computer.keep_volume {
            *self.used.entry(computer.tenant.clone()).or_default() += 1;
        }
        Ok(differs(table, row, &computer_row(&computer)?))
    }

    fn quota(&mut self, row: &Row) -> Checked {
        let tenant = TenantName::new(text(row, 0)?.into_owned()).map_err(broken)?;
        let QuotaKind::Agents = serde_json::from_value(text(row, 1)?.into_owned().into()).map_err(broken)?;
        let (used, wanted) = (count(row, 2)?, self.used.remove(&tenant).unwrap_or_default());
        Ok((used != wanted).then(|| format!("{used} agents are counted, and {wanted} were to be")))
    }

    fn event(&mut self, table: &Table, row: &Row) -> Checked {
        let event: Event = doc(row, 3)?;
        let revision = event.revision.0;
        let wanted = match (self.revision, self.head) {
            (Some(before), _) => before + 1,
            (None, Some(head)) => head.oldest.0,
            (None, None) => revision,
        };
        self.revision = Some(count(row, 0)?);
        if self.revision != Some(wanted) {
            return Ok(Some(format!("revision {wanted} was to be there first")));
        }
        let expected = [
            int(revision).into(),
            tenant_key(event.tenant.as_ref()).into(),
            event.agent.map(|agent| agent.to_string()).into(),
            Cell::Text(None),
        ];
        Ok(differs(table, row, &expected))
    }

    fn log_end(&mut self) {
        let Some(head) = self.head else { return };
        let last = self.revision.unwrap_or_else(|| head.oldest.0.saturating_sub(1));
        if last != head.revision.0 {
            self.flaws.add(format!("log: it ends at revision {last}, and its head is {}", head.revision));
        }
    }

    fn commit(&self, row: &Row) -> Checked {
        let (seq, id) = (count(row, 0)?, text(row, 1)?);
        id.parse::<CommitId>().map_err(broken)?;
        let committed: Committed = doc(row, 3)?;
        let Some(head) = self.head else { return Ok(None) };
        Ok(if seq > head.commits {
            Some(format!("{} commits were made", head.commits))
        } else if committed.revision > head.revision {
            Some(format!("it made revision {}, and the head is {}", committed.revision, head.revision))
        } else {
            None
        })
    }

    fn blob(&mut self, row: &Row) -> Checked {
        TenantName::new(text(row, 0)?.into_owned()).map_err(broken)?;
        text(row, 1)?.parse::<BlobId>().map_err(broken)?;
        if count(row, 2)? > 0 {
            self.blobs.0.add(&row.0[..3])?;
        }
        Ok(None)
    }

    fn piece(&mut self, row: &Row) -> Checked {
        let (tenant, id, n, data) = (text(row, 0)?, text(row, 1)?, number(row, 2)?, row.bytes(3)?);
        if self.pieces.as_ref().is_none_or(|pieces| (&*pieces.tenant, &*pieces.id) != (&*tenant, &*id)) {
            self.blob_end();
        }
        let pieces = self.pieces.get_or_insert_with(|| Pieces {
            tenant: tenant.into_owned(),
            id: id.into_owned(),
            hash: Sha256::default(),
            size: 0,
            last: PIECE,
            next: 0,
        });
        let (wanted, before) = (pieces.next, std::mem::replace(&mut pieces.last, data.len()));
        pieces.next = n + 1;
        pieces.size += data.len() as u64;
        pieces.hash.update(data);
        Ok(if n != wanted {
            Some(format!("piece {wanted} was to be there first"))
        } else if before != PIECE || data.is_empty() {
            Some("a piece is shorter than it was to be".to_owned())
        } else {
            None
        })
    }

    /// When all pieces of a blob were seen.
    fn blob_end(&mut self) {
        let Some(Pieces { tenant, id, hash, size, .. }) = self.pieces.take() else { return };
        let content = format!("sha256:{}", hex::encode(hash.finalize()));
        if content != id {
            self.flaws.add(format!("blobs {tenant} {id}: its content is that of {content}"));
        }
        if let Err(error) = self.blobs.1.add(&[tenant.into(), id.into(), int(size).into()]) {
            self.flaws.add(error.to_string());
        }
    }
}

/// What is wrong with a row, if anything.
type Checked = Result<Option<String>, sqlx::Error>;

fn answer(row: &Row) -> Checked {
    let answer: Answer = doc(row, 3)?;
    Ok((row.int(2)? != Some(micros(answer.expires))).then(|| "column expires is not what its document says".to_owned()))
}

/// Compares a row whose last column is a document with what that document comes to.
fn of_doc<T: serde::de::DeserializeOwned>(
    table: &Table,
    row: &Row,
    cells: impl FnOnce(T) -> Result<Vec<Cell>, sqlx::Error>,
) -> Checked {
    let read: T = doc(row, row.count() - 1)?;
    Ok(differs(table, row, &cells(read)?))
}

/// The first column beside the document that is not what it was to be.
fn differs(table: &Table, row: &Row, expected: &[Cell]) -> Option<String> {
    let beside = row.0.len() - 1;
    let at = (0..beside).find(|at| row.0.get(*at) != expected.get(*at))?;
    let column = table.columns().nth(at)?;
    Some(format!("column {column} is not what its document says"))
}

/// A cell of a key, as people are told.
fn shown(table: &Table, row: &Row, column: &str) -> String {
    match table.columns().position(|name| name == column).and_then(|at| row.0.get(at)) {
        Some(Cell::Int(Some(number))) => number.to_string(),
        // It may be any text.
        Some(Cell::Text(Some(text))) => {
            to_doc(&text).map_or_else(|_| String::new(), |text| text.trim_matches('"').to_owned())
        }
        Some(Cell::Int(None) | Cell::Text(None) | Cell::Bytes(_)) | None => "-".to_owned(),
    }
}
