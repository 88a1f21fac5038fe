//! Tokens: JWTs under the installation's own key, checked without a look into the store.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use raworc_core::control::{ControlPlane, TokenRecord};
use raworc_core::error::Error;
use raworc_core::ids::{AgentId, ComputerId, Incarnation, TenantName, TokenId, UserName};
use raworc_core::principal::Principal;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};

/// For whom tokens of people are: the API.
pub const API_AUDIENCE: &str = "raworc-api";

/// For whom tokens of programs in computers are: the agents' listener.
pub const AGENT_AUDIENCE: &str = "raworc-agent";

const ISSUER: &str = "raworc";

/// Names the signing key, so that there can be another one day.
const KEY_ID: &str = "1";

/// Servers' clocks may differ by so many seconds before a fresh token seems to come from the future.
const SKEW: i64 = 60;

const NOT_GOOD: Error = Error::Unauthenticated { reason: "the token is not good; log in again" };
const EXPIRED: Error = Error::Unauthenticated { reason: "the token has expired; log in again" };
const REVOKED: Error = Error::Unauthenticated { reason: "the token was revoked; log in again" };

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    kind: Kind,
    tenant: TenantName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    computer: Option<ComputerId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    incarnation: Option<Incarnation>,
    iat: i64,
    nbf: i64,
    exp: i64,
    jti: TokenId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    User,
    Agent,
}

/// A token that was made.
#[derive(Clone)]
pub struct IssuedToken {
    /// The token. Whoever has it is its owner.
    pub token: String,
    /// Its id, and when it expires.
    pub record: TokenRecord,
}

impl fmt::Debug for IssuedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedToken").field("record", &self.record).finish_non_exhaustive()
    }
}

/// What a good token of a user says. Whether the user is still there, and an admin, only the store knows.
#[derive(Debug, Clone)]
pub struct UserToken {
    /// Whose it is.
    pub name: UserName,
    /// Their tenant when it was made.
    pub tenant: TenantName,
    /// Its id, and when it expires.
    pub record: TokenRecord,
}

/// What a good token of a program says. Whether its incarnation is the present one, only the store knows.
#[derive(Debug, Clone)]
pub struct AgentToken {
    /// The program.
    pub principal: Principal,
    /// Its computer.
    pub computer: ComputerId,
    /// Its id, and when it expires.
    pub record: TokenRecord,
}

/// Makes tokens and checks them.
#[derive(Clone)]
pub struct Tokens {
    control: ControlPlane,
    encoding: EncodingKey,
    decoding: DecodingKey,
    user: Validation,
    agent: Validation,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

/// Everything but the times, which are checked against the control plane's clock.
fn validation(audience: &str) -> Validation {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.set_audience(&[audience]);
    validation.set_issuer(&[ISSUER]);
    validation.set_required_spec_claims(&["aud", "exp", "iss", "nbf", "sub"]);
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation
}

impl Tokens {
    /// Tokens under this control plane's key and by its clock.
    #[must_use]
    pub fn new(control: &ControlPlane) -> Self {
        let key = control.system().signing_key().expose_secret();
        Self {
            control: control.clone(),
            encoding: EncodingKey::from_secret(key),
            decoding: DecodingKey::from_secret(key),
            user: validation(API_AUDIENCE),
            agent: validation(AGENT_AUDIENCE),
        }
    }

    /// A token for a principal: a user's is good at the API, a program's at the agents' listener.
    ///
    /// # Errors
    /// [`Error::Internal`] where it cannot be signed.
    pub fn issue(&self, principal: &Principal, ttl: Duration) -> Result<IssuedToken, Error> {
        let now = self.control.now().as_second();
        let exp = now.saturating_add(i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX));
        let expires_at = Timestamp::from_second(exp).map_err(|error| Error::Internal(error.to_string()))?;
        let record = TokenRecord { id: self.control.system().token_id(), expires_at };
        let (kind, aud, sub, computer, incarnation) = match principal {
            Principal::User { name, .. } => (Kind::User, API_AUDIENCE, name.to_string(), None, None),
            Principal::Agent { agent, computer, incarnation, .. } => {
                (Kind::Agent, AGENT_AUDIENCE, agent.to_string(), Some(*computer), Some(*incarnation))
            }
        };
        let claims = Claims {
            iss: ISSUER.into(),
            aud: aud.into(),
            sub,
            kind,
            tenant: principal.tenant().clone(),
            computer,
            incarnation,
            iat: now,
            nbf: now,
            exp,
            jti: record.id,
        };
        let header = Header { kid: Some(KEY_ID.into()), ..Header::new(Algorithm::HS256) };
        let token = jsonwebtoken::encode(&header, &claims, &self.encoding)
            .map_err(|error| Error::Internal(format!("a token could not be signed: {error}")))?;
        Ok(IssuedToken { token, record })
    }

    /// What a user's token says, if it is good at the API.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] says what is wrong with it.
    pub fn verify_user(&self, token: &str) -> Result<UserToken, Error> {
        let claims = self.verify(token, &self.user)?;
        let name = UserName::new(claims.sub.as_str()).map_err(|_| NOT_GOOD)?;
        match claims.kind {
            Kind::User => Ok(UserToken { name, record: record(&claims)?, tenant: claims.tenant }),
            Kind::Agent => Err(NOT_GOOD),
        }
    }

    /// What a program's token says, if it is good at the agents' listener.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] says what is wrong with it.
    pub fn verify_agent(&self, token: &str) -> Result<AgentToken, Error> {
        let claims = self.verify(token, &self.agent)?;
        let agent: AgentId = claims.sub.parse().map_err(|_| NOT_GOOD)?;
        let record = record(&claims)?;
        match (claims.kind, claims.computer, claims.incarnation) {
            (Kind::Agent, Some(computer), Some(incarnation)) => {
                let principal = Principal::Agent { tenant: claims.tenant, agent, computer, incarnation };
                Ok(AgentToken { principal, computer, record })
            }
            _ => Err(NOT_GOOD),
        }
    }

    fn verify(&self, token: &str, validation: &Validation) -> Result<Claims, Error> {
        let decoded = jsonwebtoken::decode::<Claims>(token, &self.decoding, validation).map_err(|_| NOT_GOOD)?;
        let (header, claims) = (decoded.header, decoded.claims);
        let now = self.control.now().as_second();
        if header.kid.as_deref() != Some(KEY_ID) || claims.nbf > now + SKEW || claims.iat > now + SKEW {
            return Err(NOT_GOOD);
        }
        if claims.exp <= now {
            return Err(EXPIRED);
        }
        if self.control.system().is_revoked(claims.jti) {
            return Err(REVOKED);
        }
        Ok(claims)
    }
}

fn record(claims: &Claims) -> Result<TokenRecord, Error> {
    let expires_at = Timestamp::from_second(claims.exp).map_err(|_| NOT_GOOD)?;
    Ok(TokenRecord { id: claims.jti, expires_at })
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::{Value, json};

    use super::*;
    use crate::server::testing::{Api, user};

    const HOUR: Duration = Duration::from_secs(3600);

    fn program() -> Principal {
        let id = "018f0000-0000-7000-8000-000000000000";
        Principal::Agent {
            tenant: TenantName::default(),
            agent: id.parse().expect("valid"),
            computer: id.parse().expect("valid"),
            incarnation: Incarnation(3),
        }
    }

    fn claims_of(token: &str) -> Value {
        let body = token.split('.').nth(1).expect("three parts");
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).expect("base64")).expect("JSON")
    }

    #[tokio::test]
    async fn a_token_says_whose_it_is_and_is_good_in_its_own_place_alone() {
        let tokens = Tokens::new(&Api::start().await.control);
        let users = tokens.issue(&user("ada"), HOUR).expect("issued");
        let verified = tokens.verify_user(&users.token).expect("good");
        assert_eq!((verified.name.as_str(), verified.record.id), ("ada", users.record.id));
        assert!(tokens.verify_agent(&users.token).is_err());
        let programs = tokens.issue(&program(), HOUR).expect("issued");
        assert_eq!(tokens.verify_agent(&programs.token).expect("good").principal, program());
        assert!(tokens.verify_user(&programs.token).is_err());
    }

    #[tokio::test]
    async fn a_token_of_another_installation_is_refused() {
        let (one, other) = (Api::start().await, Api::start().await);
        let foreign = Tokens::new(&other.control).issue(&user("root"), HOUR).expect("issued");
        assert!(Tokens::new(&one.control).verify_user(&foreign.token).is_err());
    }

    #[tokio::test]
    async fn every_claim_and_the_algorithm_are_checked() {
        let tokens = Tokens::new(&Api::start().await.control);
        let good = claims_of(&tokens.issue(&user("ada"), HOUR).expect("issued").token);
        let header = Header { kid: Some(KEY_ID.into()), ..Header::new(Algorithm::HS256) };
        let sign =
            |header: &Header, claims: &Value| jsonwebtoken::encode(header, claims, &tokens.encoding).expect("signed");
        assert!(tokens.verify_user(&sign(&header, &good)).is_ok());
        let now = tokens.control.now().as_second();
        for (claim, value) in [
            ("iss", json!("somebody")),
            ("aud", json!(AGENT_AUDIENCE)),
            ("aud", json!([])),
            ("sub", json!("Not A Name")),
            ("kind", json!("agent")),
            ("kind", json!("root")),
            ("tenant", json!("")),
            ("exp", json!(now)),
            ("exp", json!("tomorrow")),
            ("nbf", json!(now + 120)),
            ("iat", json!(now + 120)),
            ("jti", json!("x")),
        ] {
            let mut claims = good.clone();
            claims[claim] = value.clone();
            assert!(tokens.verify_user(&sign(&header, &claims)).is_err(), "{claim} = {value}");
            claims.as_object_mut().expect("an object").remove(claim);
            assert!(tokens.verify_user(&sign(&header, &claims)).is_err(), "without {claim}");
        }
        let nameless = Header { kid: None, ..header.clone() };
        let other_key = Header { kid: Some("2".into()), ..header.clone() };
        let other_algorithm = Header { alg: Algorithm::HS512, ..header };
        for header in [nameless, other_key, other_algorithm] {
            assert!(tokens.verify_user(&sign(&header, &good)).is_err(), "{header:?}");
        }
    }

    #[tokio::test]
    async fn a_token_that_nobody_signed_is_refused() {
        let tokens = Tokens::new(&Api::start().await.control);
        let good = tokens.issue(&user("root"), HOUR).expect("issued").token;
        let body = good.split('.').nth(1).expect("three parts");
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","kid":"1"}"#);
        let signed = good.rsplit_once('.').expect("three parts").0;
        for token in [format!("{none}.{body}."), format!("{signed}."), signed.into(), String::new(), ". .".into()] {
            assert!(tokens.verify_user(&token).is_err(), "{token}");
        }
    }
}
