//! All types that travel or are kept as JSON, and how each is tried.

use std::fmt::Debug;

use arbitrary::Unstructured;
use raworc_core::agent::*;
use raworc_core::blob::BlobId;
use raworc_core::computer::Computer;
use raworc_core::control::{
    ActivityKind, ActivityReason, CreateAgent, Delta, EditAgent, Explanation, SendMessage, User,
};
use raworc_core::event::{Event, EventKind};
use raworc_core::ids::*;
use raworc_core::labels::Selector;
use raworc_core::message::{Message, MessageEvent, MessageState, Part, Role};
use raworc_core::principal::{Action, Principal};
use raworc_core::program::*;
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
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::given::{Given, Source};

/// What becomes of a field that a reader does not know.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Unknown {
    /// It is a mistake of who asks.
    Refused,
    /// Who wrote it may be newer.
    PassedOver,
    /// It is no object with fields of its own.
    NoObject,
}

/// A type, and how it is tried with a value that is made of some bytes.
pub(crate) struct Wire {
    pub(crate) name: &'static str,
    pub(crate) unknown: Unknown,
    pub(crate) round_trip: fn(&[u8]) -> Result<(), String>,
    /// Whether it is taken with a field that nobody knows; none where this value is no object.
    pub(crate) with_unknown_field: fn(&[u8]) -> Option<bool>,
    /// The fields of this value, where it is an object.
    pub(crate) fields: fn(&[u8]) -> Vec<(String, String)>,
}

macro_rules! wire {
    ($($unknown:ident: $($name:ty),+ ;)+) => {
        pub(crate) const TYPES: &[Wire] = &[$($(Wire {
            name: stringify!($name),
            unknown: Unknown::$unknown,
            round_trip: round_trip::<$name>,
            with_unknown_field: with_unknown_field::<$name>,
            fields: fields::<$name>,
        }),+),+];
    };
}

wire! {
    // What clients and programs ask, and what an owner writes.
    Refused: AgentSpec, BootRequest, CreateAgent, DeltaReport, EditAgent, EgressRule, EndReport, ExecRequest, KeepAwake,
        Network, NewStep, Part, Port, Resources, SendMessage, SetupReport, StepsReport, TerminalSize;
    // What is answered, kept or told.
    PassedOver: ActivityReason, Agent, Answer, AuditEntry, AuditRow, BootReply, CancelRequest, Capabilities, Committed, Computer,
        ComputerSpec, ComputerStats, Condition, Delta, DeltaData, EgressCount, ErrorBody, ErrorInfo, Event, ExecResult, ExecStarted, ExecStatus,
        Explanation, FileEntry, HeartbeatReply, HeartbeatReport, Inbox, KeptLog, LeaseReply, LimitsReached, LoginReply, Message, ModelSpec,
        ModelUsage, Page<Agent>, Page<EgressCount>, Page<Message>, Page<Step>, Principal, ProgramSpec, Protocol, ReadyReply, Run, Sealed,
        SetupRecord, SetupRun, SetupTask, Status, Step, TokenReply, User, VersionReply, WhoAmI, WorkLimits, WorkSpec;
    NoObject: Action, ActivityKind, AgentEvent, AgentId, AgentName, BlobId, Bytes, CommitId, ComputerId, ConditionKind,
        Conditions, Cpu, Desired, Ending, EventKind, Incarnation, MessageEvent, MessageId, MessageState, ModelWire,
        NetworkMode, ProcessId, QuotaKind, RecordKind, Revision, Role, RuntimeName, SecretName, Selector, SpecChange,
        StartId, State, StepKind, TenantName, TokenId, TraceParent, UserName, VolumeId;
}

fn made<T: Given>(bytes: &[u8]) -> T {
    Source(Unstructured::new(bytes)).given()
}

fn round_trip<T: Given + Debug + Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<(), String> {
    let value: T = made(bytes);
    let text = serde_json::to_string(&value).map_err(|error| format!("{value:?} is not written: {error}"))?;
    let read: T = serde_json::from_str(&text).map_err(|error| format!("{text} is not read: {error}"))?;
    let again = serde_json::to_string(&read).map_err(|error| format!("{read:?} is not written again: {error}"))?;
    if again != text {
        return Err(format!("{text} became {again}"));
    }
    // Not all of them can be compared, and all of them can be shown.
    if format!("{read:?}") != format!("{value:?}") {
        return Err(format!("{value:?} became {read:?}"));
    }
    // By way of a value, as in a column of JSON or a part of something else.
    let tree: Value = serde_json::from_str(&text).map_err(|error| format!("{text} is no JSON: {error}"))?;
    let read: T = serde_json::from_value(tree.clone()).map_err(|error| format!("{tree} is not read: {error}"))?;
    let again = serde_json::to_value(&read).map_err(|error| format!("{read:?} is not written: {error}"))?;
    if again == tree { Ok(()) } else { Err(format!("{tree} became {again}")) }
}

fn with_unknown_field<T: Given + Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<bool> {
    let mut tree = serde_json::to_value(made::<T>(bytes)).ok()?;
    tree.as_object_mut()?.insert("that_nobody_knows".into(), Value::Bool(true));
    Some(serde_json::from_value::<T>(tree).is_ok())
}

fn fields<T: Given + Serialize>(bytes: &[u8]) -> Vec<(String, String)> {
    match serde_json::to_value(made::<T>(bytes)) {
        Ok(Value::Object(fields)) => fields.into_iter().map(|(name, value)| (name, value.to_string())).collect(),
        _ => Vec::new(),
    }
}
