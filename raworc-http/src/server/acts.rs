//! What a commit does, in a word each: for points of crash tests, and for traces.

use raworc_core::agent::Desired;
use raworc_core::store::{AgentOp, Change, Commit};

/// What a commit does, as far as there are words for it.
pub(super) fn of(commit: &Commit) -> Vec<&'static str> {
    let ops = commit.changes.iter().flat_map(|change| match change {
        Change::Agent(change) => change.ops.iter().filter_map(act).collect(),
        Change::Reclaimed(_) => vec!["reclaimed"],
        Change::Record(_) => Vec::new(),
    });
    ops.collect()
}

fn act(op: &AgentOp) -> Option<&'static str> {
    match op {
        AgentOp::Create(_) => Some("create"),
        AgentOp::Accept(_) => Some("accept"),
        AgentOp::Lease(_) => Some("lease"),
        AgentOp::AddSteps { .. } => Some("steps"),
        AgentOp::End { .. } => Some("reply"),
        AgentOp::SetDesired { desired: Desired::Asleep, .. } => Some("sleep"),
        AgentOp::SetDesired { desired: Desired::Awake, .. } => Some("wake"),
        AgentOp::SetDesired { desired: Desired::Deleted, .. } => Some("delete"),
        AgentOp::Begin { .. } => Some("begin"),
        AgentOp::Started { .. } => Some("started"),
        AgentOp::Boot { .. } => Some("boot"),
        AgentOp::SetSetup(_) => Some("setup"),
        AgentOp::RunEnded { .. } => Some("run-ended"),
        _ => None,
    }
}
