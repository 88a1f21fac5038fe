//! [`System`]: what the process that assembles an installation needs beside the use cases.

use std::sync::Arc;

use secrecy::SecretSlice;

use super::activity::{ActivityGuard, ActivityKind};
use super::{ControlPlane, Feed};
use crate::agent::Agent;
use crate::blob::BlobStore;
use crate::error::Error;
use crate::ids::{RuntimeName, TokenId};
use crate::store::Store;

/// What has no principal: the machinery that finds out who calls, and that carries what a use case has allowed.
///
/// It is for the code that assembles a server or a program around the control plane, which is trusted with everything:
/// it verifies tokens, hands out the first password, follows the log, and holds an agent awake for a stream that a use
/// case let through. Nothing of it asks what somebody may do, so it is never to be used on behalf of a caller: what
/// they ask for is a method of [`ControlPlane`], with their [`Call`](super::Call).
#[derive(Debug, Clone, Copy)]
pub struct System<'a> {
    pub(super) control: &'a ControlPlane,
}

impl<'a> System<'a> {
    /// The store: whether it answers, and reads whose results no caller sees.
    #[must_use]
    pub fn store(self) -> &'a Arc<dyn Store> {
        &self.control.inner.store
    }

    /// Where content is kept.
    #[must_use]
    pub fn blobs(self) -> &'a Arc<dyn BlobStore> {
        &self.control.inner.blobs
    }

    /// What happens, as it happens, in all tenants.
    #[must_use]
    pub fn feed(self) -> &'a Feed {
        &self.control.inner.feed
    }

    /// The runtimes after whose agents no operator looks now, in whatever process.
    ///
    /// # Errors
    /// Where the store does not answer.
    pub async fn runtimes_without_operator(self) -> Result<Vec<RuntimeName>, Error> {
        let mut without = Vec::new();
        for (runtime, _) in self.control.runtimes().iter() {
            let live = self.store().leases(&crate::operator::shards::prefix(runtime)).await?;
            if live.value.is_empty() {
                without.push(runtime.clone());
            }
        }
        Ok(without)
    }

    /// The key that tokens are signed with.
    #[must_use]
    pub fn signing_key(self) -> &'a SecretSlice<u8> {
        &self.control.inner.access.signing_key
    }

    /// A new token's id.
    #[must_use]
    pub fn token_id(self) -> TokenId {
        self.control.token_id()
    }

    /// Keeps an agent awake for something that is done in its computer, while the guard is held. That it may be done
    /// is what [`ControlPlane::rouse`] has said before.
    ///
    /// # Errors
    /// [`Error::AgentAsleep`] where it went to sleep meanwhile.
    pub async fn hold(self, agent: &Agent, kind: ActivityKind) -> Result<ActivityGuard, Error> {
        self.control.inner.activity.hold(agent, kind, self.control.now()).await
    }
}
