//! Requests, and what their failures mean to a person.

use std::time::Duration;

use anyhow::Context as _;
use raworc_http::api::ErrorBody;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;

use crate::exit::{Exit, Failure};
use crate::session::normalise;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(10);

/// A server and a token.
#[derive(Debug, Clone)]
pub(super) struct Wire {
    server: String,
    token: Option<SecretString>,
    client: Option<Client>,
}

impl Wire {
    pub(super) fn new(server: &str, token: Option<SecretString>) -> Self {
        // A token goes where it was given, whatever an answer says.
        let client = Client::builder().connect_timeout(CONNECT).redirect(reqwest::redirect::Policy::none());
        Self { server: normalise(server), token, client: client.build().ok() }
    }

    pub(super) fn server(&self) -> &str {
        &self.server
    }

    pub(super) async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        shape: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> anyhow::Result<T> {
        let response = self.send(method, path, shape).await?;
        self.read(response).await
    }

    /// What stands in an answer that says as much by its status as by its body.
    pub(super) async fn json_of_any_status<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let response = self.request(Method::GET, path)?.send().await.map_err(|error| self.lost(error))?;
        self.read(response).await
    }

    async fn read<T: DeserializeOwned>(&self, response: Response) -> anyhow::Result<T> {
        let bytes = response.bytes().await.map_err(|error| self.lost(error))?;
        serde_json::from_slice(&bytes).with_context(|| {
            format!("{} answered something else than this release understands; is it a Raworc server?", self.server)
        })
    }

    /// Sends a request, and fails where the answer is no success.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        shape: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> anyhow::Result<Response> {
        let response = shape(self.request(method, path)?).send().await.map_err(|error| self.lost(error))?;
        if response.status().is_success() { Ok(response) } else { Err(self.refused(response).await.into()) }
    }

    fn request(&self, method: Method, path: &str) -> anyhow::Result<RequestBuilder> {
        let client = self.client.as_ref().context("this machine's certificates cannot be read")?;
        let request = client.request(method, format!("{}{path}", self.server));
        Ok(match &self.token {
            Some(token) => request.bearer_auth(token.expose_secret()),
            None => request,
        })
    }

    /// A server that gives no answer.
    pub(super) fn lost(&self, error: reqwest::Error) -> Failure {
        let server = &self.server;
        if error.is_builder() {
            return Failure::new(Exit::Usage, format!("{server:?} is no address of a server"))
                .hint("write it as http://127.0.0.1:9000");
        }
        let cause = root_cause(&error);
        if error.is_connect() {
            let failure = Failure::new(Exit::Unreachable, format!("no server answers at {server}: {cause}"));
            return match is_local(server) {
                true => failure.hint("start one with `raworc up`, or name another with --server URL"),
                false => failure.hint("check the address, or name another with --server URL"),
            };
        }
        Failure::new(Exit::Unreachable, format!("the connection to {server} was lost: {cause}"))
            .hint("nothing that was accepted is lost; try again")
    }

    async fn refused(&self, response: Response) -> Failure {
        let status = response.status();
        let body = response.bytes().await.unwrap_or_default();
        let Ok(ErrorBody { error }) = serde_json::from_slice(&body) else {
            return Failure::new(exit_of(status, ""), format!("{} answered {status}", self.server))
                .hint("is it a Raworc server?");
        };
        let failure = Failure::new(exit_of(status, &error.code), error.message);
        match error.code.as_str() {
            "unauthenticated" if self.token.is_some() => failure.hint("log in again with `raworc login`"),
            "agent_asleep" => failure.hint("wake it with `raworc agent wake NAME`"),
            "not_found" if error.details.get("what").is_some_and(|what| what == "agent") => {
                failure.hint("`raworc agent list` shows the agents that there are")
            }
            _ => failure,
        }
    }
}

fn exit_of(status: StatusCode, code: &str) -> Exit {
    match (code, status.as_u16()) {
        ("agent_asleep" | "generation_mismatch", _) => Exit::Conflict,
        (_, 400 | 405 | 413 | 415 | 422) => Exit::Usage,
        (_, 401 | 403) => Exit::Denied,
        (_, 404 | 410) => Exit::NotFound,
        (_, 409 | 412) => Exit::Conflict,
        (_, 408 | 504) => Exit::TimedOut,
        _ => Exit::Failed,
    }
}

fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn is_local(server: &str) -> bool {
    let host = server.split_once("://").map_or(server, |(_, rest)| rest);
    ["127.", "localhost", "[::1]"].iter().any(|local| host.starts_with(local))
}
