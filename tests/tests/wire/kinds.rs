//! How a value of each type is made. The fields of a struct and the variants of an enum are named here, and one that is
//! missing does not compile.

use raworc_core::agent::{
    Agent, AgentEvent, AgentSpec, Condition, ConditionKind, Conditions, Desired, EgressRule, Inbox, KeptLog, Network,
    NetworkMode, Port, Resources, Run, SetupRecord, SetupRun, SpecChange, State, Status,
};
use raworc_core::blob::BlobId;
use raworc_core::computer::Computer;
use raworc_core::control::{
    ActivityKind, ActivityReason, CreateAgent, Delta, EditAgent, Explanation, SendMessage, User,
};
use raworc_core::event::{Event, EventKind};
use raworc_core::ids::{
    AgentId, AgentName, CommitId, ComputerId, Incarnation, MessageId, ProcessId, Revision, RuntimeName, SecretName,
    TenantName, TokenId, UserName, VolumeId,
};
use raworc_core::labels::Selector;
use raworc_core::message::{Message, MessageEvent, MessageState, Part, Role};
use raworc_core::principal::{Action, Principal};
use raworc_core::program::{
    BootReply, BootRequest, CancelRequest, ComputerStats, DeltaReport, EndReport, ExecRequest, ExecStarted, ExecStatus,
    FileEntry, HeartbeatReply, HeartbeatReport, LeaseReply, ModelSpec, ModelWire, ProgramSpec, Protocol, SetupReport,
    SetupTask, StepsReport, TerminalSize, TokenReply, WorkLimits, WorkSpec,
};
use raworc_core::quantity::{Bytes, Cpu};
use raworc_core::runtime::{Capabilities, ComputerSpec, LimitsReached, StartId};
use raworc_core::seal::Sealed;
use raworc_core::step::{NewStep, Step, StepKind};
use raworc_core::store::{Answer, AuditEntry, AuditRow, Committed, Ending, QuotaKind, RecordKind};
use raworc_core::trace::TraceParent;
use raworc_http::api::{
    DeltaData, EgressCount, ErrorBody, ErrorInfo, ExecResult, KeepAwake, LoginReply, Page, ReadyReply, VersionReply,
    WhoAmI,
};
use raworc_http::server::agents::gateway::ModelUsage;

use super::given::{Given, Source};

macro_rules! structs {
    ($($name:ident { $($field:tt),* $(,)? })*) => {$(
        impl Given for $name {
            fn given(source: &mut Source<'_>) -> Self {
                Self { $($field: source.given()),* }
            }
        }
    )*};
}

macro_rules! words {
    ($($name:ident { $($variant:ident),* $(,)? })*) => {$(
        impl Given for $name {
            fn given(source: &mut Source<'_>) -> Self {
                let one = source.one_of(&[$(Self::$variant),*]);
                match one {
                    $(Self::$variant => one,)*
                }
            }
        }
    )*};
}

macro_rules! ids {
    ($($name:ident),*) => {$(
        impl Given for $name {
            fn given(source: &mut Source<'_>) -> Self {
                format!("{:032x}", source.plain::<u128>()).parse().expect("a UUID")
            }
        }
    )*};
}

macro_rules! names {
    ($($name:ident),*) => {$(
        impl Given for $name {
            fn given(source: &mut Source<'_>) -> Self {
                const INNER: &[u8] = b"a0z9-";
                let mut name: String = (0..source.below(62)).map(|_| char::from(source.one_of(INNER))).collect();
                name.insert(0, char::from(source.one_of(b"ab0")));
                name.push('z');
                Self::new(name).expect("a name")
            }
        }
    )*};
}

ids!(AgentId, CommitId, ComputerId, MessageId, ProcessId, TokenId, VolumeId);
names!(AgentName, RuntimeName, SecretName, TenantName, UserName);

words! {
    Action { Create, Get, List, Update, Operate, Message, Exec, Delete, Serve }
    ActivityKind { Message, ModelCall, Command, Files, Setup, KeepAwake }
    ConditionKind { Ready, SleepPending, RestartNeeded, NetworkIsolated, LimitsEnforced, RootMapped, LimitReached, DiskFull }
    Desired { Awake, Asleep, Deleted }
    EventKind {
        AgentCreated, AgentEdited, AgentDesired, AgentState, AgentStatus, MessageAccepted, MessageState, MessageCancel,
        MessageReply, StepsAdded, AccessChanged,
    }
    MessageState { Queued, Leased, Parked, Done, Failed, Cancelled }
    ModelWire { Ollama, Openai }
    NetworkMode { Closed, Open }
    QuotaKind { Agents }
    RecordKind { User, SigningKey, RevokedToken, Setting, DeathLog, Runtime }
    Role { User, Agent, System }
    State { Init, Idle, Busy, Slept, Deleted }
    StepKind { Thought, ToolCall, ToolResult, Screenshot, Log }
}

structs! {
    ActivityReason { kind, since, until }
    Agent { id, tenant, name, owner, spec, desired, status, generation, revision, created_at, inbox }
    AgentSpec {
        runtime, image, model, instructions, setup, env, secrets, resources, root, idle_timeout, busy_timeout, network,
        ports, labels, description, metadata,
    }
    Answer { request, expires, committed }
    AuditEntry { tenant, principal, verb, resource, allowed, request }
    AuditRow { commit, revision, at, entry }
    BootReply { token, spec }
    BootRequest { computer, incarnation, key, protocol }
    CancelRequest { message }
    Committed { revision, now, agents, messages, replayed }
    Computer { tenant, agent, runtime, spec, reclaim_since, keep_volume, unsettled, disk_limit }
    ComputerSpec { id, volume, image, resources, network, root }
    ComputerStats { processes, memory_bytes, cpu_seconds, disk_bytes }
    Condition { kind, status, reason, message, since }
    CreateAgent { name, spec }
    Delta { agent, message, text }
    DeltaData { message, text }
    DeltaReport { message, text }
    EditAgent { spec }
    EgressRule { host, ports }
    EgressCount { target, connections, refused, sent_bytes, received_bytes }
    EndReport { commit, message, ending, reply, steps }
    ErrorBody { error }
    ErrorInfo { code, message, details }
    Event { revision, at, tenant, kind, agent, name, message, summary }
    ExecRequest { command, cwd, env, terminal, stdin }
    ExecResult { exit_code, stdout, stderr, truncated, timed_out }
    ExecStarted { id }
    ExecStatus { exit_code }
    Explanation { state, desired, because, activity, sleeps_at, retry_at, queued, conditions }
    FileEntry { name, kind, size, mode, modified_at }
    HeartbeatReply { cancel, disk_limit }
    HeartbeatReport { disk_used }
    Inbox { last_seq, queued, queued_bytes, last_step }
    Incarnation { 0 }
    KeepAwake { seconds }
    KeptLog { incarnation, at, bytes }
    LeaseReply { message, earlier_steps, work }
    LoginReply { token, expires_at, user, tenant, admin }
    Message {
        id, tenant, agent, seq, role, author, parts, reply_to, state, attempt, incarnation, cancel_requested, reason,
        created_at, leased_at, ended_at, traceparent,
    }
    ModelSpec { name, wire, context, vision }
    ModelUsage { calls, failed, prompt_tokens, completion_tokens }
    Network { mode, egress }
    NewStep { kind, tool, text }
    Port { name, port }
    ProgramSpec { agent, name, tenant, computer, incarnation, setup, proxied, disk_limit, work }
    Protocol { major, minor }
    ReadyReply { ready, checks }
    Resources { cpu, memory, disk, pids }
    Revision { 0 }
    Run {
        incarnation, began_at, operator, deadline, start_id, key_hash, booted_at, ready_at, setup, step_bytes, ending,
        settled, log_wanted,
    }
    Sealed { key, data }
    SendMessage { role, parts }
    SetupRecord { computer, hash, failure }
    SetupReport { hash, failure }
    SetupRun { hash, began_at }
    SetupTask { script, hash, limit }
    SpecChange { 0 }
    StartId { 0 }
    Step { tenant, agent, seq, message, attempt, incarnation, kind, tool, text, at }
    StepsReport { commit, message, steps }
    TerminalSize { rows, cols }
    TokenReply { token, expires_at }
    User { name, tenant, admin, created_at }
    VersionReply { version, api }
    WhoAmI { user, tenant, admin, token, expires_at }
    WorkLimits { rounds, tokens, tool_seconds }
    WorkSpec { instructions, env, model, limits }
}

impl<T: Given> Given for Page<T> {
    fn given(source: &mut Source<'_>) -> Self {
        Self { items: source.given(), next: source.given() }
    }
}

impl Given for BlobId {
    fn given(source: &mut Source<'_>) -> Self {
        Self::of(&source.plain::<u64>().to_be_bytes())
    }
}

impl Given for TraceParent {
    fn given(source: &mut Source<'_>) -> Self {
        let (trace, span) = (source.plain::<u128>().max(1), source.plain::<u64>().max(1));
        Self::new(trace, span, source.plain::<bool>().into()).expect("ids")
    }
}

impl Given for Cpu {
    fn given(source: &mut Source<'_>) -> Self {
        Self::from_millis(source.plain::<u32>().max(1))
    }
}

impl Given for Bytes {
    fn given(source: &mut Source<'_>) -> Self {
        let unit = source.below(41);
        Self::new(source.plain::<u64>().max(1) >> unit << unit | 1 << unit)
    }
}

impl Given for Selector {
    fn given(source: &mut Source<'_>) -> Self {
        let label = |source: &mut Source<'_>, least: usize| -> String {
            (0..least + source.below(5)).map(|_| char::from(source.one_of(b"aZ0-_./"))).collect()
        };
        let requirements: Vec<_> = (0..source.below(17))
            .map(|_| {
                let key = label(source, 1);
                match source.below(4) {
                    0 => format!("{key}={}", label(source, 0)),
                    1 => format!("{key}!={}", label(source, 0)),
                    2 => key,
                    _ => format!("!{key}"),
                }
            })
            .collect();
        requirements.join(",").parse().expect("a selector")
    }
}

impl Given for Conditions {
    fn given(source: &mut Source<'_>) -> Self {
        // Only core makes them otherwise.
        let mut conditions: Vec<Condition> = source.given();
        conditions.sort_by_key(|condition| condition.kind);
        conditions.dedup_by_key(|condition| condition.kind);
        serde_json::to_value(conditions).and_then(serde_json::from_value).expect("conditions")
    }
}

impl Given for Status {
    fn given(source: &mut Source<'_>) -> Self {
        let mut status = Self::new(source.given());
        status.version = source.given();
        status.incarnation = source.given();
        status.computer = source.given();
        status.observed_generation = source.given();
        status.conditions = source.given();
        status.awake_until = source.given();
        status.heard_at = source.given();
        status.keep_awake_until = source.given();
        status.restarts = source.given();
        status.retry_at = source.given();
        status.message = source.given();
        status.busy_until = source.given();
        status.cancel_by = source.given();
        status.run = source.given();
        status.has_booted = source.given();
        status.setup = source.given();
        status.kept_log = source.given();
        status.unsettled = source.given();
        status.clock_known_at = source.given();
        // Its state is changed by the transition function alone, but for this.
        let mut json = serde_json::to_value(&status).expect("written");
        json["state"] = serde_json::to_value(source.given::<State>()).expect("written");
        serde_json::from_value(json).expect("a status")
    }
}

impl Given for Capabilities {
    fn given(source: &mut Source<'_>) -> Self {
        let mut able = Self::default();
        able.images = source.given();
        able.root = source.given();
        able.open_network = source.given();
        able.closed_network = source.given();
        able.disk_limit = source.given();
        able.limits = source.given();
        able.tells_limits = source.given();
        able.keeps_root = source.given();
        able.copy_volume = source.given();
        able
    }
}

impl Given for LimitsReached {
    fn given(source: &mut Source<'_>) -> Self {
        let mut reached = Self::default();
        reached.memory = source.given();
        reached.pids = source.given();
        reached
    }
}

impl Given for Part {
    fn given(source: &mut Source<'_>) -> Self {
        match source.plain() {
            false => Self::Text { text: source.given() },
            true => Self::Blob { blob: source.given(), media_type: source.given() },
        }
    }
}

impl Given for Principal {
    fn given(source: &mut Source<'_>) -> Self {
        let tenant = source.given();
        match source.plain() {
            false => Self::User { name: source.given(), tenant, admin: source.given() },
            true => {
                Self::Agent { tenant, agent: source.given(), computer: source.given(), incarnation: source.given() }
            }
        }
    }
}

impl Given for Ending {
    fn given(source: &mut Source<'_>) -> Self {
        let reason = source.given();
        source.one_of(&[Self::Done, Self::Failed { reason }, Self::Cancelled, Self::Parked])
    }
}

impl Given for AgentEvent {
    fn given(source: &mut Source<'_>) -> Self {
        let message = source.given();
        source.one_of(&Self::all(message))
    }
}

impl Given for MessageEvent {
    fn given(source: &mut Source<'_>) -> Self {
        let (incarnation, reason): (Incarnation, String) = (source.given(), source.given());
        source.one_of(&[
            Self::Lease(incarnation),
            Self::Park,
            Self::Resume(incarnation),
            Self::Requeue { reason: reason.clone() },
            Self::Finish,
            Self::Fail { reason: reason.clone() },
            Self::Cancel { reason },
        ])
    }
}
