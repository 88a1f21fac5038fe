//! A store with something of everything in it.

use std::time::Duration;

use bytes::Bytes;
use raworc_core::agent::{AgentEvent, AgentSpec, Desired, Network, Resources};
use raworc_core::blob::{BlobId, BlobStore};
use raworc_core::entropy::{Clock, EntropyExt, SystemClock, SystemEntropy};
use raworc_core::ids::{AgentId, AgentName, RuntimeName, TenantName, UserName};
use raworc_core::message::{Part, Role};
use raworc_core::runtime::{ComputerSpec, StartId};
use raworc_core::step::{NewStep, StepKind};
use raworc_core::store::{
    AgentChange, AgentOp, AuditEntry, Change, Check, Commit, Ending, IdempotencyKey, IdempotencyRecord, LeaseClaim,
    NewAgent, NewComputer, NewMessage, RecordChange, RecordCheck, RecordKey, RecordKind, Reply, Store,
};

use crate::sql::commits::{accept, change, counted, message_id};

/// Texts that some database somewhere does not keep as they are.
pub(crate) const ODD: &str = "a\0b \u{1}\u{2} \"\\\n\r\t e\u{301} ß 🦀 \u{2028}\u{feff}\u{fffd}\u{10ffff} ";

/// What there is to be found again.
pub(crate) struct Content {
    /// An agent that works on a message.
    pub(crate) busy: AgentId,
    /// A commit that was made.
    pub(crate) made: Commit,
    /// A request with a key, which was answered.
    pub(crate) answered: Commit,
    /// A blob of several pieces, and its content.
    pub(crate) blob: (BlobId, Bytes),
}

pub(crate) fn tenant(name: &str) -> TenantName {
    TenantName::new(name).expect("a good name")
}

fn create(tenant: &TenantName, name: &str, labels: &[(&str, &str)]) -> (AgentId, Commit) {
    let agent = SystemEntropy.agent_id(SystemClock.now());
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let runtime = Some(RuntimeName::new("metal").expect("a good name"));
    let new = NewAgent {
        tenant: tenant.clone(),
        name: AgentName::new(name).expect("a good name"),
        owner: UserName::new("ada").expect("a good name"),
        spec: AgentSpec { labels, runtime, description: Some(ODD.trim().to_owned()), ..AgentSpec::default() },
    };
    (agent, counted(change(agent, Check::Absent, AgentOp::Create(Box::new(new))), tenant))
}

fn happens(event: AgentEvent) -> AgentOp {
    AgentOp::Transition { event, reason: "Test".into(), message: ODD.into(), backoff: None }
}

fn commit(changes: Vec<Change>) -> Commit {
    Commit::new(SystemEntropy.commit_id(SystemClock.now()), changes)
}

async fn start(store: &impl Store, agent: AgentId) {
    let spec = ComputerSpec {
        id: SystemEntropy.computer_id(SystemClock.now()),
        volume: SystemEntropy.volume_id(SystemClock.now()),
        image: None,
        resources: Resources::default(),
        network: Network::default(),
        root: false,
    };
    let runtime = RuntimeName::new("metal").expect("a good name");
    let begin = AgentOp::Begin {
        operator: SystemEntropy.process_id(SystemClock.now()),
        computer: Some(NewComputer { runtime, spec, disk_limit: false }),
        key_hash: "hash".into(),
        deadline: Duration::from_secs(120),
        generation: 1,
    };
    let started = AgentOp::Started { start_id: StartId("start".into()) };
    let boot = AgentOp::Boot { key_hash: "hash".into() };
    for op in [begin, started, boot, happens(AgentEvent::Ready)] {
        store.commit(change(agent, Check::Alive, op)).await.expect("goes through");
    }
}

/// Has an agent work on a message, and say so in steps.
async fn work(store: &impl Store, agent: AgentId, text: &str) -> raworc_core::ids::MessageId {
    let message = message_id();
    store.commit(accept(agent, message, text)).await.expect("goes through");
    store.commit(change(agent, Check::Alive, AgentOp::Lease(message))).await.expect("goes through");
    let step = |kind, text: &str| NewStep { kind, tool: Some("shell".into()), text: text.into() };
    let steps = vec![step(StepKind::ToolCall, ODD), step(StepKind::ToolResult, &"long ".repeat(5_000))];
    let add = AgentOp::AddSteps { message: Some(message), attempt: 0, steps };
    store.commit(change(agent, Check::Alive, add)).await.expect("goes through");
    message
}

/// Fills a store.
pub(crate) async fn fill(store: &(impl Store + BlobStore)) -> Content {
    let (home, other) = (TenantName::default_tenant(), tenant("other"));
    let (busy, mut made) = create(&home, "busy", &[("team", "a"), ("Stage", "Z")]);
    made.audit = Some(AuditEntry {
        tenant: Some(home.clone()),
        principal: "user:ada".into(),
        verb: "agents.create".into(),
        resource: "busy".into(),
        allowed: true,
        request: Some(ODD.into()),
    });
    store.commit(made.clone()).await.expect("goes through");

    let mut others = Vec::new();
    for (name, tenant) in [("created", &home), ("idle", &home), ("slept", &other), ("gone", &other)] {
        let (agent, create) = create(tenant, name, &[("team", "b")]);
        store.commit(create).await.expect("goes through");
        others.push(agent);
    }
    for agent in [busy, others[1], others[2], others[3]] {
        start(store, agent).await;
    }
    let first = work(store, busy, ODD).await;
    let parts = vec![Part::text(ODD)];
    let end = AgentOp::End { message: first, ending: Ending::Done, reply: Some(Reply { id: message_id(), parts }) };
    store.commit(change(busy, Check::Alive, end)).await.expect("goes through");
    work(store, busy, "again").await;
    for n in 0..20 {
        store.commit(accept(busy, message_id(), &format!("{n} waits"))).await.expect("goes through");
    }
    for (agent, desired, event) in
        [(others[2], Desired::Asleep, AgentEvent::SleepAsked), (others[3], Desired::Deleted, AgentEvent::DeleteAsked)]
    {
        let ops = vec![AgentOp::SetDesired { desired, retry: false }, happens(event)];
        let change = AgentChange { agent, when: vec![Check::Alive], ops };
        store.commit(commit(vec![Change::Agent(change)])).await.expect("goes through");
    }

    let answered = answered(others[1]);
    store.commit(answered.clone()).await.expect("goes through");
    for (name, tenant, ttl) in [("one", None, None), (ODD, Some(other.clone()), Some(Duration::from_secs(3600)))] {
        let key = RecordKey { kind: RecordKind::Setting, tenant, name: name.into() };
        let body = Some(serde_json::json!({ "sealed": ODD, "number": 0.1, "list": [null, true] }));
        let record = RecordChange { key, when: RecordCheck::Absent, body, ttl };
        store.commit(commit(vec![Change::Record(record)])).await.expect("goes through");
    }
    let claim = LeaseClaim {
        key: "operator".into(),
        holder: SystemEntropy.process_id(SystemClock.now()),
        ttl: Duration::from_secs(60),
    };
    store.claim(&claim).await.expect("is taken");
    let content: Bytes = (0..700_000_u32).map(|n| u8::try_from(n % 65_521 % 251).expect("small")).collect();
    let blob = store.put(&home, content.clone()).await.expect("is put");
    for content in [Bytes::new(), Bytes::from_static(b"small")] {
        store.put(&other, content).await.expect("is put");
    }
    let parts = vec![Part::text(ODD), Part::Blob { blob, media_type: "image/png".into() }];
    let refers = NewMessage { id: message_id(), role: Role::User, author: "user:ada".into(), parts, traceparent: None };
    store.commit(change(busy, Check::Alive, AgentOp::Accept(refers))).await.expect("goes through");
    Content { busy, made, answered, blob: (blob, content) }
}

/// A message that is sent with a key.
fn answered(agent: AgentId) -> Commit {
    let new = NewMessage {
        id: message_id(),
        role: Role::User,
        author: "user:ada".into(),
        parts: vec![Part::text(ODD)],
        traceparent: None,
    };
    let mut commit = change(agent, Check::Alive, AgentOp::Accept(new));
    commit.idempotency = Some(IdempotencyRecord {
        key: IdempotencyKey { principal: "user:ada".into(), key: ODD.into() },
        request: "request".into(),
        ttl: Duration::from_secs(3600),
    });
    commit
}
