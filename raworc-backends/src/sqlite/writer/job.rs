//! What the writer is asked for, and what it answers.

use bytes::Bytes;
use raworc_core::blob::BlobId;
use raworc_core::ids::{AgentId, Revision, TenantName};
use raworc_core::store::{Commit, Committed, Conflict, Lease, LeaseClaim, Stamped, StoreError, Touch};
use tokio::sync::oneshot;

use crate::sqlite::error::Fault;

/// Something to write.
#[derive(Debug)]
pub(in crate::sqlite) enum Work {
    Commit(Box<Commit>),
    Touch(Vec<Touch>),
    Claim(LeaseClaim),
    Put { tenant: TenantName, id: BlobId, content: Bytes },
    Unlink { tenant: TenantName, id: BlobId },
    ForgetLog { upto: Revision },
}

/// What came of it.
#[derive(Debug)]
pub(in crate::sqlite) enum Outcome {
    Committed(Box<Committed>),
    Refused(Conflict),
    /// Agents that the touches had no effect on.
    Untouched(Vec<AgentId>),
    Claimed(Stamped<Lease>),
    Done,
}

/// Some work, and who waits for it.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) work: Work,
    pub(super) reply: oneshot::Sender<Result<Outcome, StoreError>>,
}

impl Job {
    /// Tells who waits. Whoever has gone away meanwhile does not hear it.
    pub(super) fn answer(self, result: Result<Outcome, Fault>) {
        let result = match result {
            Ok(Outcome::Refused(conflict)) => Err(StoreError::Conflict(conflict)),
            Ok(outcome) => Ok(outcome),
            Err(fault) => Err(fault.into()),
        };
        drop(self.reply.send(result));
    }
}
