//! Users, how they prove who they are, and the keys that tokens are signed with.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::call::Call;
use super::{ControlPlane, Feed, System};
use crate::entropy::{Clock, Entropy, EntropyExt};
use crate::error::Error;
use crate::event::EventKind;
use crate::ids::{TenantName, TokenId, UserName};
use crate::principal::{Action, Principal, Resource};
use crate::seal::{MasterKey, Sealed};
use crate::store::{Change, Commit, Conflict, RecordChange, RecordCheck, RecordKey, RecordKind, Store, StoreError};

/// Characters that a password has at least.
const PASSWORD_MIN: usize = 10;

/// Bytes that a password has at most, so that hashing one stays cheap.
const PASSWORD_MAX: usize = 1024;

const SIGNING_KEY: &str = "jwt";

/// A user, as others see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct User {
    /// Their name.
    pub name: UserName,
    /// Their home tenant.
    pub tenant: TenantName,
    /// Whether they administer the installation.
    pub admin: bool,
    /// When they were made.
    pub created_at: Timestamp,
}

#[derive(Debug, Serialize, Deserialize)]
struct UserRecord {
    tenant: TenantName,
    admin: bool,
    created_at: Timestamp,
    password_hash: String,
}

/// A user who is to be made.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    /// Their name.
    pub name: UserName,
    /// Their home tenant; `default` where absent.
    #[serde(default)]
    pub tenant: TenantName,
    /// Whether they administer the installation.
    #[serde(default)]
    pub admin: bool,
    /// Their password: 10 to 1024 characters.
    #[cfg_attr(feature = "openapi", schema(value_type = String, min_length = 10, max_length = 1024))]
    pub password: SecretString,
}

/// Who somebody says they are.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct LoginRequest {
    /// The user's name.
    pub name: String,
    /// Their password.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub password: SecretString,
}

/// What must be known of a token to revoke it, as the token itself says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenRecord {
    /// Its id.
    pub id: TokenId,
    /// When it expires anyway.
    pub expires_at: Timestamp,
}

#[derive(Debug)]
pub(super) struct Access {
    pub(super) signing_key: SecretSlice<u8>,
    pub(super) revoked: Arc<Revoked>,
}

/// The ids of tokens that were revoked, each with the time after which nobody need know, where that is known.
#[derive(Debug, Default)]
pub(super) struct Revoked(watch::Sender<HashMap<String, Option<Timestamp>>>);

impl Revoked {
    /// Adds some, tells who waits for one that is new, and forgets those whose time is over.
    fn add(&self, tokens: impl IntoIterator<Item = (String, Option<Timestamp>)>, now: Timestamp) {
        self.0.send_if_modified(|known| {
            known.retain(|_, until| until.is_none_or(|until| until > now));
            let before = known.len();
            for (token, until) in tokens {
                let known = known.entry(token).or_default();
                *known = until.or(*known);
            }
            known.len() > before
        });
    }

    fn contains(&self, token: TokenId) -> bool {
        self.0.borrow().contains_key(&token.to_string())
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.borrow().len()
    }
}

impl Access {
    /// Opens the signing key, or makes one where there is none yet.
    pub(super) async fn open(
        store: &Arc<dyn Store>,
        master: &MasterKey,
        entropy: &dyn Entropy,
        clock: &dyn Clock,
    ) -> Result<Self, Error> {
        let key = RecordKey { kind: RecordKind::SigningKey, tenant: None, name: SIGNING_KEY.into() };
        let record = match store.record(&key).await? {
            Some(record) => record,
            None => {
                let sealed = master.seal(SIGNING_KEY, &entropy.bytes::<32>(), entropy);
                let body = serde_json::to_value(sealed).map_err(|error| Error::Internal(error.to_string()))?;
                let change = RecordChange { key: key.clone(), when: RecordCheck::Absent, body: Some(body), ttl: None };
                let commit = Commit::new(entropy.commit_id(clock.now()), vec![Change::Record(change)]);
                // Another server may have been quicker: then its key is the key.
                match store.commit(commit).await {
                    Ok(_) | Err(StoreError::Conflict(_)) => {}
                    Err(error) => return Err(error.into()),
                }
                let found = store.record(&key).await?;
                found.ok_or_else(|| Error::Internal("the signing key was not kept".into()))?
            }
        };
        let sealed: Sealed =
            serde_json::from_value(record.body).map_err(|error| Error::Internal(format!("signing key: {error}")))?;
        let signing_key = master
            .open(SIGNING_KEY, &sealed)
            .map_err(|error| Error::Internal(format!("the signing key cannot be opened: {error}")))?;
        Ok(Self { signing_key, revoked: Arc::default() })
    }

    /// Learns of the tokens that were revoked, and of those that are, in whatever process.
    pub(super) async fn follow(
        &self,
        feed: &Feed,
        store: &Arc<dyn Store>,
        clock: &Arc<dyn Clock>,
    ) -> Result<(), StoreError> {
        // Subscribed before the read, so that nothing falls between the two.
        let (mut events, revoked, store) = (feed.subscribe(), Arc::clone(&self.revoked), Arc::clone(store));
        let clock = Arc::clone(clock);
        read_revoked(&store, &revoked, clock.now()).await?;
        tokio::spawn(async move {
            use tokio::sync::broadcast::error::RecvError;
            loop {
                match events.recv().await {
                    Ok(event) if event.kind == EventKind::AccessChanged => {
                        let word = |key: &str| event.summary.get(key).and_then(serde_json::Value::as_str);
                        if word("kind") == Some(RecordKind::RevokedToken.as_str())
                            && let Some(name) = word("name")
                        {
                            let add = |until| revoked.add([(name.to_owned(), until)], clock.now());
                            // First of all it is refused.
                            add(None);
                            let key = revoked_key(name.to_owned());
                            if let Ok(Some(record)) = store.record(&key).await {
                                add(record.expires);
                            }
                        }
                    }
                    Ok(_) => {}
                    Err(RecvError::Lagged(missed)) => {
                        tracing::info!(missed, "revocations may have been missed; they are read anew");
                        while let Err(error) = read_revoked(&store, &revoked, clock.now()).await {
                            tracing::warn!(%error, "revoked tokens cannot be read; trying again");
                            tokio::time::sleep(Duration::from_secs(1)).await;
                        }
                    }
                    Err(RecvError::Closed) => break,
                }
            }
        });
        Ok(())
    }
}

async fn read_revoked(store: &Arc<dyn Store>, revoked: &Revoked, now: Timestamp) -> Result<(), StoreError> {
    let records = store.records(RecordKind::RevokedToken, None).await?;
    let tokens = records.into_iter().map(|record| (record.key.name, record.expires));
    revoked.add(tokens, now);
    Ok(())
}

const fn revoked_key(name: String) -> RecordKey {
    RecordKey { kind: RecordKind::RevokedToken, tenant: None, name }
}

fn user_key(name: &UserName) -> RecordKey {
    RecordKey { kind: RecordKind::User, tenant: None, name: name.to_string() }
}

async fn hash_password(password: SecretString) -> Result<String, Error> {
    let hash = tokio::task::spawn_blocking(move || {
        Argon2::default().hash_password(password.expose_secret().as_bytes()).map(|hash| hash.to_string())
    });
    let hash = hash.await.map_err(|error| Error::Internal(error.to_string()))?;
    hash.map_err(|error| Error::Internal(error.to_string()))
}

/// A hash that no password meets, so that a login of nobody takes as long as another.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$\
                      q1W0jJ0Z9vR2m1v5m4b8h0Yd0o2m5b7n8c9x0z1y2w4";

impl System<'_> {
    /// Makes the first admin where there is no user yet. Returns whether it did.
    ///
    /// # Errors
    /// Where the password is too short, or the store does not answer.
    pub async fn ensure_first_admin(self, name: &UserName, password: SecretString) -> Result<bool, Error> {
        if self.has_users().await? {
            return Ok(false);
        }
        let new = NewUser { name: name.clone(), tenant: TenantName::default(), admin: true, password };
        match self.control.put_user(new, None).await {
            Ok(_) => Ok(true),
            // Another server that began in this moment was quicker.
            Err(Error::Invalid { .. }) if self.has_users().await? => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether there is any user.
    ///
    /// # Errors
    /// Where the store does not answer.
    pub async fn has_users(self) -> Result<bool, Error> {
        Ok(!self.control.inner.store.records(RecordKind::User, None).await?.is_empty())
    }

    /// The user of this name as a principal, as they are now: removed users are gone and demoted ones demoted.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] where there is no such user any more.
    pub async fn user_principal(self, name: &UserName) -> Result<Principal, Error> {
        let record = self.control.inner.store.record(&user_key(name)).await?;
        let record = record.ok_or(Error::Unauthenticated { reason: "this user is no more" })?;
        let user: UserRecord =
            serde_json::from_value(record.body).map_err(|error| Error::Internal(format!("user: {error}")))?;
        Ok(Principal::User { name: name.clone(), tenant: user.tenant, admin: user.admin })
    }

    /// Whether the token was revoked, as far as this process has heard.
    #[must_use]
    pub fn is_revoked(self, token: TokenId) -> bool {
        self.control.inner.access.revoked.contains(token)
    }

    /// Is done once this process hears that the token was revoked.
    pub async fn revoked(self, token: TokenId) {
        let token = token.to_string();
        let mut revoked = self.control.inner.access.revoked.0.subscribe();
        // Its sender lives as long as the control plane.
        let _ = revoked.wait_for(|revoked| revoked.contains_key(&token)).await;
    }
}

impl ControlPlane {
    /// Makes a user.
    ///
    /// # Errors
    /// Where the caller is no admin, the name is taken, or the password is too short.
    pub async fn create_user(&self, call: &Call, new: NewUser) -> Result<User, Error> {
        self.allow(call, Action::Create, Resource::Users { name: None }).await?;
        self.put_user(new, Some(call)).await
    }

    async fn put_user(&self, new: NewUser, call: Option<&Call>) -> Result<User, Error> {
        let length = new.password.expose_secret().chars().count();
        if length < PASSWORD_MIN || new.password.expose_secret().len() > PASSWORD_MAX {
            return Err(Error::invalid("password", format!("use {PASSWORD_MIN} to {PASSWORD_MAX} characters")));
        }
        let created_at = self.inner.clock.now();
        let record = UserRecord {
            tenant: new.tenant.clone(),
            admin: new.admin,
            created_at,
            password_hash: hash_password(new.password).await?,
        };
        let body = serde_json::to_value(record).map_err(|error| Error::Internal(error.to_string()))?;
        let key = user_key(&new.name);
        let change = RecordChange { key, when: RecordCheck::Absent, body: Some(body), ttl: None };
        let mut commit = Commit::new(self.commit_id(), vec![Change::Record(change)]);
        commit.audit = call.map(|call| call.audit(None, "users.create", new.name.as_str(), true));
        match self.inner.store.commit(commit).await {
            Ok(_) => Ok(User { name: new.name, tenant: new.tenant, admin: new.admin, created_at }),
            Err(StoreError::Conflict(Conflict::Record { .. })) => {
                Err(Error::invalid("name", format!("a user named {} exists already", new.name)))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Who this is, if the password is theirs.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`], the same for an unknown user and a wrong password.
    pub async fn login(&self, request: LoginRequest) -> Result<Principal, Error> {
        const REFUSED: Error = Error::Unauthenticated { reason: "wrong user or password" };
        let name = UserName::new(request.name).ok();
        let record = match &name {
            Some(name) => self.inner.store.record(&user_key(name)).await?,
            None => None,
        };
        let user: Option<UserRecord> = match record {
            Some(record) => {
                Some(serde_json::from_value(record.body).map_err(|error| Error::Internal(format!("user: {error}")))?)
            }
            None => None,
        };
        let hash = user.as_ref().map_or_else(|| NOBODY.to_owned(), |user| user.password_hash.clone());
        let verify = tokio::task::spawn_blocking(move || {
            let password = request.password.expose_secret().as_bytes();
            password.len() <= PASSWORD_MAX
                && PasswordHash::new(&hash).is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok())
        });
        let good = verify.await.map_err(|error| Error::Internal(error.to_string()))?;
        match (name, user) {
            (Some(name), Some(user)) if good => Ok(Principal::User { name, tenant: user.tenant, admin: user.admin }),
            _ => Err(REFUSED),
        }
    }

    pub(super) fn token_id(&self) -> TokenId {
        self.inner.entropy.token_id(self.inner.clock.now())
    }

    /// The time that tokens are stamped with and checked against.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    /// From now on the token that this call came with is refused, on every server. Whoever was let in by a token may give
    /// it up, and no other.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the call came with none, or the store does not answer.
    pub async fn revoke(&self, call: &Call) -> Result<(), Error> {
        let token = call.token.ok_or_else(|| Error::invalid("token", "this call came with no token to revoke"))?;
        let left = token.expires_at.duration_since(self.now());
        let ttl = Duration::try_from(left).unwrap_or_default() + Duration::from_secs(60);
        let key = revoked_key(token.id.to_string());
        let body = Some(serde_json::json!({}));
        let change = RecordChange { key, when: RecordCheck::Absent, body, ttl: Some(ttl) };
        let mut commit = Commit::new(self.commit_id(), vec![Change::Record(change)]);
        commit.audit = Some(call.audit(None, "tokens.revoke", &token.id.to_string(), true));
        match self.inner.store.commit(commit).await {
            Ok(_) | Err(StoreError::Conflict(Conflict::Record { .. })) => {
                let until = self.now().checked_add(SignedDuration::try_from(ttl).unwrap_or(SignedDuration::MAX)).ok();
                self.inner.access.revoked.add([(token.id.to_string(), until)], self.now());
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_whose_end_is_known_is_not_remembered_for_ever_by_a_word_without_it() {
        let (revoked, now) = (Revoked::default(), Timestamp::UNIX_EPOCH);
        let later = |hours| now + SignedDuration::from_hours(hours);
        revoked.add([("a".to_owned(), Some(later(1)))], now);
        revoked.add([("a".to_owned(), None)], now);
        revoked.add([("b".to_owned(), None)], now);
        revoked.add([("b".to_owned(), Some(later(3)))], now);
        revoked.add([], later(2));
        assert_eq!(revoked.0.borrow().keys().collect::<Vec<_>>(), ["b"]);
        revoked.add([], later(4));
        assert_eq!(revoked.len(), 0);
    }

    #[test]
    fn a_login_of_nobody_is_verified_like_any_other() {
        let hash = PasswordHash::new(NOBODY).expect("a hash that can be verified, so that it takes as long");
        assert!(Argon2::default().verify_password(b"anything", &hash).is_err());
    }
}
