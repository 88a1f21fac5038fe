//! A commit: what must hold, and what is to change.

mod conflict;

pub use conflict::Conflict;

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::agent::{Agent, AgentEvent, AgentSpec, ClockMove, ConditionKind, Desired, SetupRecord};
use crate::ids::{
    AgentId, AgentName, CommitId, ComputerId, Incarnation, MessageId, ProcessId, Revision, RuntimeName, TenantName,
    UserName,
};
use crate::message::{Message, Part, Role};
use crate::runtime::{ComputerSpec, StartId};
use crate::step::NewStep;
use crate::trace::TraceParent;

/// Changes that happen all or not at all.
#[derive(Debug, Clone)]
pub struct Commit {
    /// The same for every resend of this commit.
    pub id: CommitId,
    /// What changes, in this order.
    pub changes: Vec<Change>,
    /// What the tenants use more, or less, after it.
    pub quota: Vec<QuotaDelta>,
    /// The caller's key, so that a request that is sent again has no second effect.
    pub idempotency: Option<IdempotencyRecord>,
    /// Who asked for it, if a person or a service did.
    pub audit: Option<AuditEntry>,
}

impl Commit {
    /// A commit of these changes that nobody has to account for.
    #[must_use]
    pub const fn new(id: CommitId, changes: Vec<Change>) -> Self {
        Self { id, changes, quota: Vec::new(), idempotency: None, audit: None }
    }

    /// A commit of one agent's change.
    #[must_use]
    pub fn of(id: CommitId, change: AgentChange) -> Self {
        Self::new(id, vec![Change::Agent(change)])
    }
}

/// A change of what belongs to one lock.
#[derive(Debug, Clone)]
pub enum Change {
    /// Of an agent and all that belongs to it.
    Agent(AgentChange),
    /// A computer on the reclaim list is gone, with its volume.
    Reclaimed(ComputerId),
    /// Of a record.
    Record(RecordChange),
}

/// A change of an agent's row and of what belongs to it. The row is the lock of all of it.
#[derive(Debug, Clone)]
pub struct AgentChange {
    /// The agent.
    pub agent: AgentId,
    /// What must hold before any op; never empty.
    pub when: Vec<Check>,
    /// What changes, in this order.
    pub ops: Vec<AgentOp>,
}

/// What must hold of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// No such agent, and no living agent of its tenant has its name.
    Absent,
    /// It is there and not deleted, nor about to be.
    Alive,
    /// Its generation is this one.
    Generation(u64),
    /// The version of its status is this one.
    Status(u64),
    /// Its incarnation is this one.
    Incarnation(Incarnation),
    /// Its owner wants this of it.
    Desired(Desired),
    /// No message is queued that its program may take up: none is queued at all, or its volume is full.
    NothingToDo,
    /// Fewer messages than this are queued.
    InboxBelow(u64),
    /// The messages that are queued hold fewer bytes of text than this.
    InboxBytesBelow(u64),
    /// Its time without activity is over by the store's clock.
    Quiet,
    /// Its program has not been heard since the writer looked, when it was last heard at this time, if ever.
    SilentSince(Option<Timestamp>),
    /// It holds this message.
    Holds(MessageId),
    /// This condition does not hold.
    Without(ConditionKind),
}

/// A change of an agent or of what belongs to it.
#[derive(Debug, Clone)]
pub enum AgentOp {
    /// Make it.
    Create(Box<NewAgent>),
    /// Its owner writes another spec.
    SetSpec(Box<AgentSpec>),
    /// Its owner wants something else of it. `retry` counts as a change even where nothing else is new.
    SetDesired {
        /// What.
        desired: Desired,
        /// Try again at once what waits to be tried.
        retry: bool,
    },
    /// Something happened to it: the transition function decides what comes of it.
    Transition {
        /// What.
        event: AgentEvent,
        /// One word for programs.
        reason: String,
        /// A sentence for people.
        message: String,
        /// How long the next start waits, if the transition asks for that; where absent not at all, and it counts as no
        /// failure.
        backoff: Option<Backoff>,
    },
    /// A start is decided on: the next incarnation begins.
    Begin {
        /// The operator that decides on it.
        operator: ProcessId,
        /// Another computer than before, on the same volume where it has one.
        computer: Option<NewComputer>,
        /// SHA-256 of the one-time key, in hexadecimal.
        key_hash: String,
        /// How long the program has to be ready.
        deadline: Duration,
        /// The generation that it takes account of.
        generation: u64,
    },
    /// The start has longer than it had: an image is being pulled.
    Extend {
        /// How long from now.
        deadline: Duration,
    },
    /// Its program is told to run a setup script, once in a run: the start has longer than it had.
    SetupBegun {
        /// SHA-256 of the script, in hexadecimal.
        hash: String,
        /// How long from now.
        deadline: Duration,
    },
    /// The engine is not at work for the present run any more: it was not asked, or has refused.
    Settled,
    /// The engine has started it.
    Started {
        /// The engine's identity of the start.
        start_id: StartId,
    },
    /// The program trades in its key.
    Boot {
        /// SHA-256 of the key, in hexadecimal.
        key_hash: String,
    },
    /// The engine has confirmed that the run is over.
    RunEnded {
        /// Which run.
        incarnation: Incarnation,
    },
    /// The end of the present run's log is to be kept, before another one begins.
    WantLog,
    /// The end of a run's log is kept, in a record of the same commit.
    KeepLog {
        /// Which run: the present one where it died, else the one before it.
        incarnation: Incarnation,
        /// How many bytes of it.
        bytes: u64,
        /// What is told of it beside the reason why the agent does not run.
        told: String,
    },
    /// The setup script was run.
    SetSetup(SetupRecord),
    /// The setup script has to run again: what it did outside of the volume is gone.
    ForgetSetup,
    /// A condition is so.
    SetCondition {
        /// Which.
        kind: ConditionKind,
        /// Whether it holds.
        status: bool,
        /// One word for programs.
        reason: String,
        /// A sentence for people.
        message: String,
    },
    /// A condition is of no interest any more.
    ClearCondition(ConditionKind),
    /// Keep it awake for so long, or no longer.
    KeepAwake(Option<Duration>),
    /// The store's clock was moved: its times move along.
    ClockMoved(Vec<ClockMove>),
    /// Accept a message. It wants the agent awake.
    Accept(NewMessage),
    /// Its program takes up a message.
    Lease(MessageId),
    /// The message in hand ends.
    End {
        /// Which.
        message: MessageId,
        /// How.
        ending: Ending,
        /// The answer.
        reply: Option<Reply>,
    },
    /// Somebody wants a message cancelled: at once where it is queued, by its program where it is held.
    RequestCancel {
        /// Which.
        message: MessageId,
        /// How long the program has to obey.
        obey: Duration,
    },
    /// A message is cancelled that waits, with its agent; nothing is done where it has been taken up meanwhile or has ended.
    CancelQueued {
        /// Which.
        message: MessageId,
        /// Why.
        reason: String,
    },
    /// Somebody wants the message cancelled that it holds at this moment, if it holds any.
    CancelHeld {
        /// How long the program has to obey.
        obey: Duration,
    },
    /// Its program took steps.
    AddSteps {
        /// For which message; for the setup where absent.
        message: Option<MessageId>,
        /// Which attempt at it.
        attempt: u32,
        /// What it did.
        steps: Vec<NewStep>,
    },
}

/// How long to wait before a start is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backoff {
    /// So long from now, and it counts as a failure.
    After(Duration),
    /// Until its owner changes something.
    UntilChanged,
}

/// An agent that is to be made.
#[derive(Debug, Clone)]
pub struct NewAgent {
    /// Its tenant.
    pub tenant: TenantName,
    /// Its name.
    pub name: AgentName,
    /// Who makes it.
    pub owner: UserName,
    /// What is asked for.
    pub spec: AgentSpec,
}

/// A computer that is to be made.
#[derive(Debug, Clone)]
pub struct NewComputer {
    /// By which runtime.
    pub runtime: RuntimeName,
    /// What the engine is asked for.
    pub spec: ComputerSpec,
    /// Whether its engine limits the disk of a volume.
    pub disk_limit: bool,
}

/// A message that is to be accepted.
#[derive(Debug, Clone)]
pub struct NewMessage {
    /// Its id.
    pub id: MessageId,
    /// Who speaks.
    pub role: Role,
    /// Who wrote it.
    pub author: String,
    /// What it says.
    pub parts: Vec<Part>,
    /// Where in which trace it goes on.
    pub traceparent: Option<TraceParent>,
}

/// How a message ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// Answered.
    Done,
    /// Without an answer.
    Failed {
        /// Why.
        reason: String,
    },
    /// Because somebody asked for that.
    Cancelled,
    /// It waits for an approval: not an end, but the agent is free.
    Parked,
}

/// An answer that is to be recorded.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Its id.
    pub id: MessageId,
    /// What it says.
    pub parts: Vec<Part>,
}

/// What a tenant can have only so much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuotaKind {
    /// Agents, until their computers are reclaimed.
    Agents,
}

impl fmt::Display for QuotaKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agents => f.write_str("agents"),
        }
    }
}

/// What a tenant uses more, or less.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaDelta {
    /// Which tenant.
    pub tenant: TenantName,
    /// Of what.
    pub kind: QuotaKind,
    /// How much.
    pub delta: i64,
    /// What it may use in all; anything where absent.
    pub limit: Option<u64>,
}

/// A caller's key of idempotency.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdempotencyKey {
    /// Who uses it.
    pub principal: String,
    /// Their key, up to 255 characters.
    pub key: String,
}

/// A caller's key with the request that it stands for.
#[derive(Debug, Clone)]
pub struct IdempotencyRecord {
    /// The key.
    pub key: IdempotencyKey,
    /// SHA-256 of the request: verb, thing and body.
    pub request: String,
    /// For how long it is remembered.
    pub ttl: Duration,
}

/// What a request came to, kept for those who send it again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// SHA-256 of the request.
    pub request: String,
    /// Until when it is remembered.
    pub expires: Timestamp,
    /// The first result.
    pub committed: Committed,
}

/// Who asked for a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// The tenant that it concerns; none for the installation.
    pub tenant: Option<TenantName>,
    /// Who.
    pub principal: String,
    /// What they did, such as `agents.create`.
    pub verb: String,
    /// To what, such as an agent's name.
    pub resource: String,
    /// Whether they were allowed to.
    pub allowed: bool,
    /// The request that it came with.
    pub request: Option<String>,
}

/// An entry in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRow {
    /// The commit that it belongs to.
    pub commit: CommitId,
    /// The last revision of that commit, or the head where it changed nothing.
    pub revision: Revision,
    /// When.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub entry: AuditEntry,
}

/// What kind of record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordKind {
    /// A user.
    User,
    /// A sealed signing key.
    SigningKey,
    /// A token that is no longer good.
    RevokedToken,
    /// Something that the installation remembers about itself.
    Setting,
    /// The end of the log of an agent's start that died, under the agent's id.
    DeathLog,
    /// What operators tell of a runtime, under its name.
    Runtime,
}

impl RecordKind {
    /// Whether its changes stand in the log by themselves. What is kept of a log is told with its agent's death.
    pub(super) const fn is_told(self) -> bool {
        match self {
            Self::User | Self::SigningKey | Self::RevokedToken | Self::Setting | Self::Runtime => true,
            Self::DeathLog => false,
        }
    }

    /// The word for it in a store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::SigningKey => "signing_key",
            Self::RevokedToken => "revoked_token",
            Self::Setting => "setting",
            Self::DeathLog => "death_log",
            Self::Runtime => "runtime",
        }
    }
}

/// Where a record stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey {
    /// What it is.
    pub kind: RecordKind,
    /// Whose; the installation's where absent.
    pub tenant: Option<TenantName>,
    /// Its name.
    pub name: String,
}

/// A small document with a version: users, keys, roles, settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Where it stands.
    pub key: RecordKey,
    /// Counts its changes, from 1.
    pub version: u64,
    /// What it says.
    pub body: serde_json::Value,
    /// When it may be forgotten.
    pub expires: Option<Timestamp>,
}

/// A change of a record.
#[derive(Debug, Clone)]
pub struct RecordChange {
    /// Which.
    pub key: RecordKey,
    /// What must hold.
    pub when: RecordCheck,
    /// What it says from now on; none to take it away.
    pub body: Option<serde_json::Value>,
    /// After how long it may be forgotten.
    pub ttl: Option<Duration>,
}

/// What must hold of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordCheck {
    /// It is not there.
    Absent,
    /// Its version is this one.
    Version(u64),
}

/// What a commit came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Committed {
    /// The revision of its last event; the head where it had none.
    pub revision: Revision,
    /// The store's time.
    pub now: Timestamp,
    /// The agents that it changed, as they are after it.
    pub agents: Vec<Agent>,
    /// The messages that it changed, as they are after it; not the inbox of an agent that it deleted, which may be as
    /// large as an inbox gets.
    pub messages: Vec<Message>,
    /// Whether this is the answer to an earlier request with the same key.
    pub replayed: bool,
}
