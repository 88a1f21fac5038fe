//! Logging in and out, and users.

use std::sync::atomic::{AtomicBool, Ordering};

use http::Method;
use raworc_core::control::User;
use raworc_core::ids::{TenantName, UserName};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;

use super::{ANSWER_LIMIT, Client, ClientError, json};
use crate::api::{LoginReply, WhoAmI};

#[derive(Serialize)]
struct Login<'a> {
    name: &'a str,
    password: &'a str,
}

#[derive(Serialize)]
struct New<'a> {
    name: &'a UserName,
    tenant: &'a TenantName,
    admin: bool,
    password: &'a str,
}

impl Client {
    /// Trades a name and a password for a token, to be given to [`with_token`](Self::with_token).
    ///
    /// # Errors
    /// `unauthenticated` where they are wrong.
    pub async fn login(&self, name: &str, password: &SecretString) -> Result<LoginReply, ClientError> {
        let request = self.request(Method::POST, self.api(&["auth", "login"]));
        let request = json(request, &Login { name, password: password.expose_secret() })?;
        self.fetch(request).await
    }

    /// Makes the token of this client worthless.
    ///
    /// # Errors
    /// `unauthenticated` where it was before.
    pub async fn logout(&self) -> Result<(), ClientError> {
        let url = self.api(&["auth", "logout"]);
        let lost = AtomicBool::new(false);
        self.again(|| async {
            let request = self.request(Method::POST, url.clone()).timeout(ANSWER_LIMIT);
            match self.send_once(request).await {
                // The attempt whose answer was lost did it.
                Err(error) if error.code == "unauthenticated" && lost.load(Ordering::Relaxed) => Ok(()),
                Err(error) => {
                    lost.fetch_or(error.is_lost(), Ordering::Relaxed);
                    Err(error)
                }
                Ok(_) => Ok(()),
            }
        })
        .await
    }

    /// Whose token this client has.
    ///
    /// # Errors
    /// `unauthenticated` where it is not good.
    pub async fn who_am_i(&self) -> Result<WhoAmI, ClientError> {
        self.fetch(self.request(Method::GET, self.api(&["auth"]))).await
    }

    /// Makes a user. For admins.
    ///
    /// # Errors
    /// `forbidden` where the caller is no admin; `invalid` where the name is taken or the password too short.
    pub async fn create_user(
        &self,
        name: &UserName,
        tenant: &TenantName,
        admin: bool,
        password: &SecretString,
    ) -> Result<User, ClientError> {
        let request = self.request(Method::POST, self.api(&["users"]));
        let request = json(request, &New { name, tenant, admin, password: password.expose_secret() })?;
        let response = self.send_once(request.timeout(ANSWER_LIMIT)).await?;
        self.read(response).await
    }
}

#[cfg(test)]
mod tests {
    use raworc_core::control::{LoginRequest, NewUser};

    use super::*;

    #[test]
    fn what_the_client_writes_is_what_the_server_reads() {
        let password = "\"\\\n\0é🦀 correct horse";
        let written = serde_json::to_string(&Login { name: "ada", password }).expect("written");
        let read: LoginRequest = serde_json::from_str(&written).expect("read");
        assert_eq!((read.name.as_str(), read.password.expose_secret()), ("ada", password));

        let (name, tenant) = (UserName::new("ada").expect("a name"), TenantName::new("other").expect("a name"));
        for admin in [true, false] {
            let new = New { name: &name, tenant: &tenant, admin, password };
            let read: NewUser = serde_json::from_str(&serde_json::to_string(&new).expect("written")).expect("read");
            assert_eq!((&read.name, &read.tenant, read.admin), (&name, &tenant, admin));
            assert_eq!(read.password.expose_secret(), password);
        }
        assert!(serde_json::from_str::<LoginRequest>(&written.replacen('{', r#"{"more":1,"#, 1)).is_err());
    }
}
