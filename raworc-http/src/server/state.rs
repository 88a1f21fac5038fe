//! What every handler of a router shares.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use raworc_core::agent::Agent;
use raworc_core::control::{ControlPlane, TokenRecord};
use raworc_core::error::Error;
use raworc_core::ids::UserName;
use raworc_core::principal::Principal;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::agents::Links;
use super::rooms::{Crowded, Room, RoomLimits, Rooms};
use super::{ApiError, Options, Tokens};

/// For how long it is believed that a user is as they were: so long a removed user's token is still good.
const USER_MEMORY: Duration = Duration::from_secs(3);

/// Users that are remembered at one time.
const USERS_LIMIT: usize = 10_000;

/// Calls that end or steer a command in one computer at one time: what its other calls leave of its link, less some.
const STEERING: usize = 100;

/// Room for a caller's body, until it is dropped.
pub(super) type BodyRoom = Room<String>;

/// What every handler of a router shares. Clones are one.
#[derive(Debug, Clone)]
pub struct ApiState {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    control: ControlPlane,
    tokens: Tokens,
    options: Options,
    users: Mutex<HashMap<UserName, (Principal, Instant)>>,
    /// How many streams each principal has open, and calls each computer.
    open: Arc<Mutex<HashMap<String, usize>>>,
    logins: Semaphore,
    rooms: Arc<Rooms<String>>,
    links: Links,
}

impl ApiState {
    /// The state of a router over this control plane.
    #[must_use]
    pub fn new(control: ControlPlane, options: Options) -> Self {
        let inner = Inner {
            links: options.links.clone().unwrap_or_else(|| Links::start(&control)),
            tokens: Tokens::new(&control),
            logins: Semaphore::new(options.logins_at_once.max(1)),
            // What one caller sends leaves room for others.
            rooms: Rooms::new(RoomLimits {
                bytes: options.bytes_in_bodies.max(options.body_limit),
                per_owner: (options.bytes_in_bodies / 4).max(options.body_limit),
                waits_for_own: true,
            }),
            control,
            options,
            users: Mutex::default(),
            open: Arc::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The use cases.
    #[must_use]
    pub fn control(&self) -> &ControlPlane {
        &self.inner.control
    }

    /// Makes tokens and checks them.
    #[must_use]
    pub fn tokens(&self) -> &Tokens {
        &self.inner.tokens
    }

    /// What was chosen about this router.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    /// The programs that are linked here.
    #[must_use]
    pub fn links(&self) -> &Links {
        &self.inner.links
    }

    pub(super) fn logins(&self) -> &Semaphore {
        &self.inner.logins
    }

    /// Whose token this is: the user as they are now, or were a moment ago.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] where the token is not good, or the user is no more.
    pub async fn authenticate(&self, token: &str) -> Result<(Principal, TokenRecord), Error> {
        let token = self.inner.tokens.verify_user(token)?;
        let principal = match self.remembered(&token.name) {
            Some(principal) => principal,
            None => {
                let principal = self.inner.control.system().user_principal(&token.name).await?;
                self.remember(&token.name, &principal);
                principal
            }
        };
        if principal.tenant() != &token.tenant {
            return Err(Error::Unauthenticated { reason: "the user has moved to another tenant; log in again" });
        }
        Ok((principal, token.record))
    }

    fn remembered(&self, name: &UserName) -> Option<Principal> {
        let users = self.inner.users.lock().unwrap_or_else(PoisonError::into_inner);
        let (principal, at) = users.get(name)?;
        (at.elapsed() < USER_MEMORY).then(|| principal.clone())
    }

    fn remember(&self, name: &UserName, principal: &Principal) {
        let mut users = self.inner.users.lock().unwrap_or_else(PoisonError::into_inner);
        if users.len() >= USERS_LIMIT {
            users.retain(|_, (_, at)| at.elapsed() < USER_MEMORY);
        }
        users.insert(name.clone(), (principal.clone(), Instant::now()));
    }

    /// Room for a large body of so many bytes.
    ///
    /// # Errors
    /// Where the caller's bodies take as much as they may, or no room comes in time.
    pub(super) async fn room(&self, whose: Option<String>, bytes: usize, wait: Duration) -> Result<BodyRoom, ApiError> {
        self.inner.rooms.take(whose.clone(), bytes, wait).await.map_err(|crowded| {
            let whose = whose.filter(|_| crowded != Crowded::All).unwrap_or_else(|| "all callers".into());
            let message =
                format!("the large requests of {whose} take what memory there is for them; try again in a moment");
            ApiError::new("busy", message).with_retry_after(1)
        })
    }

    /// A place for one more stream of this principal, until the guard is dropped.
    ///
    /// # Errors
    /// Where they have as many open as they may.
    pub fn open_stream(&self, principal: &Principal) -> Result<StreamGuard, ApiError> {
        let whose = principal.to_string();
        let limit = self.inner.options.streams_per_principal;
        let full = || format!("{limit} streams are open for {whose} already; close some of them");
        let place = self.take(whose.clone(), limit).ok_or_else(|| too_many(limit, full()))?;
        metrics::gauge!("raworc_http_streams").increment(1.0);
        Ok(StreamGuard { _place: place })
    }

    /// A place for one more call into the computer of this agent, until it is dropped.
    pub(super) fn open_call(&self, agent: &Agent) -> Result<OpenPlace, ApiError> {
        let limit = self.inner.options.calls_per_computer;
        let full = || format!("{limit} calls into the computer of {} are open already; close some of them", agent.name);
        self.take(format!("computer:{}", agent.id), limit).ok_or_else(|| too_many(limit, full()))
    }

    /// A place for a call that ends or steers a command in this computer. It has one also where the computer's calls and
    /// its caller's streams have all of theirs.
    pub(super) fn open_steering(&self, agent: &Agent) -> Result<OpenPlace, ApiError> {
        let full = || format!("{STEERING} calls to commands of {} wait for an answer already", agent.name);
        self.take(format!("steering:{}", agent.id), STEERING).ok_or_else(|| too_many(STEERING, full()))
    }

    fn take(&self, whose: String, limit: usize) -> Option<OpenPlace> {
        let mut taken = self.inner.open.lock().unwrap_or_else(PoisonError::into_inner);
        let open = taken.get(&whose).copied().unwrap_or_default();
        if open >= limit {
            return None;
        }
        taken.insert(whose.clone(), open + 1);
        Some(OpenPlace { open: Arc::clone(&self.inner.open), whose })
    }

    /// Is done once what was opened with this token has to end: no stream is good for longer than its token.
    pub(super) async fn ends(&self, token: &TokenRecord) -> Ends {
        let left = token.expires_at.duration_since(self.inner.control.now());
        tokio::select! {
            () = self.inner.options.closing.cancelled() => Ends::Closing,
            () = self.inner.control.system().revoked(token.id) => Ends::Revoked,
            () = tokio::time::sleep(Duration::try_from(left).unwrap_or_default()) => Ends::Expired,
        }
    }

    /// What comes of `work`, or why what was asked with this token is not waited for any longer.
    pub(super) async fn unless_it_ends<T>(
        &self,
        token: &TokenRecord,
        work: impl Future<Output = T>,
    ) -> Result<T, Ends> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            ends = self.ends(token) => Err(ends),
        }
    }
}

/// Why what was opened has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Ends {
    /// The server closes.
    #[error("the server is shutting down; try again in a moment")]
    Closing,
    /// The caller has logged out.
    #[error("the token was revoked meanwhile; log in again")]
    Revoked,
    /// The login is over.
    #[error("the token has expired meanwhile; log in again")]
    Expired,
}

impl From<Ends> for ApiError {
    fn from(ends: Ends) -> Self {
        match ends {
            Ends::Closing => Self::new("unreachable", ends.to_string()).with_retry_after(1),
            Ends::Revoked | Ends::Expired => Self::new("unauthenticated", ends.to_string()),
        }
    }
}

fn too_many(limit: usize, message: String) -> ApiError {
    ApiError::new("too_many_requests", message).with_detail("limit", limit).with_retry_after(5)
}

/// One of the streams that a principal has open.
#[derive(Debug)]
pub struct StreamGuard {
    _place: OpenPlace,
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        metrics::gauge!("raworc_http_streams").decrement(1.0);
    }
}

/// One of those that somebody has open.
#[derive(Debug)]
pub(super) struct OpenPlace {
    open: Arc<Mutex<HashMap<String, usize>>>,
    whose: String,
}

impl Drop for OpenPlace {
    fn drop(&mut self) {
        let mut taken = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = taken.get_mut(&self.whose) {
            *open -= 1;
            if *open == 0 {
                taken.remove(&self.whose);
            }
        }
    }
}
