//! What every handler of a router shares.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use raworc_core::control::{ControlPlane, TokenRecord};
use raworc_core::error::Error;
use raworc_core::ids::UserName;
use raworc_core::principal::Principal;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::agents::Links;
use super::{ApiError, Options, Tokens};

/// For how long it is believed that a user is as they were: so long a removed user's token is still good.
const USER_MEMORY: Duration = Duration::from_secs(3);

/// Users that are remembered at one time.
const USERS_LIMIT: usize = 10_000;

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
    streams: Arc<Mutex<HashMap<String, usize>>>,
    logins: Semaphore,
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
            control,
            options,
            users: Mutex::default(),
            streams: Arc::default(),
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

    /// A place for one more stream of this principal, until the guard is dropped.
    ///
    /// # Errors
    /// Where they have as many open as they may.
    pub fn open_stream(&self, principal: &Principal) -> Result<StreamGuard, ApiError> {
        let limit = self.inner.options.streams_per_principal;
        let key = principal.to_string();
        let mut streams = self.inner.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let open = streams.entry(key.clone()).or_default();
        if *open >= limit {
            let message = format!("{limit} streams are open for {key} already; close some of them");
            return Err(ApiError::new("too_many_requests", message).with_detail("limit", limit).with_retry_after(5));
        }
        *open += 1;
        metrics::gauge!("raworc_http_streams").increment(1.0);
        Ok(StreamGuard { streams: Arc::clone(&self.inner.streams), key })
    }

    /// What comes of `work`, or none once the server is closing.
    pub async fn unless_closing<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.inner.options.closing.cancelled() => None,
        }
    }
}

/// One of the streams that a principal has open.
#[derive(Debug)]
pub struct StreamGuard {
    streams: Arc<Mutex<HashMap<String, usize>>>,
    key: String,
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        metrics::gauge!("raworc_http_streams").decrement(1.0);
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = streams.get_mut(&self.key) {
            *open -= 1;
            if *open == 0 {
                streams.remove(&self.key);
            }
        }
    }
}
