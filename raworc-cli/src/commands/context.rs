//! What every command that speaks to a server is given.

use std::time::Duration;

use raworc_core::ids::AgentName;
use raworc_http::client::Client;

use crate::args::GlobalArgs;
use crate::exit::{Exit, Failure};
use crate::output::Console;
use crate::output::agent::obstacle;
use crate::session::Session;

/// Time between two looks at an agent that is waited for.
const LOOK: Duration = Duration::from_secs(1);

/// What every command that speaks to a server is given.
#[derive(Debug, Clone)]
pub struct Context {
    /// Where to print.
    pub console: Console,
    /// The server, as the user who is logged in.
    pub client: Client,
}

impl Context {
    /// Of a command line.
    ///
    /// # Errors
    /// Where nobody is logged in, or the server's address is none.
    pub fn new(global: &GlobalArgs, console: &Console) -> anyhow::Result<Self> {
        Ok(Self { console: console.clone(), client: client(global)? })
    }

    /// Waits for a call, and shows a person who waits longer than a moment for what.
    pub async fn waiting<T>(&self, what: impl Into<String>, call: impl Future<Output = T>) -> T {
        let _shown = self.console.progress(what);
        call.await
    }

    /// The same of a call that waits until an agent is up: says what is in the way meanwhile.
    pub async fn waiting_for<T>(&self, name: &AgentName, what: &str, call: impl Future<Output = T>) -> T {
        let shown = self.console.progress(what);
        tokio::pin!(call);
        loop {
            tokio::select! {
                done = &mut call => return done,
                () = tokio::time::sleep(LOOK), if shown.is_shown() => {}
            }
            tokio::select! {
                done = &mut call => return done,
                // It may not be there yet.
                seen = self.client.agent(name) => {
                    let obstacle = seen.ok().and_then(|agent| obstacle(&agent)).map(|obstacle| format!(": {obstacle}"));
                    shown.say(format!("{what}{}", obstacle.unwrap_or_default()));
                }
            }
        }
    }
}

/// The server of a command line, as the user who is logged in there.
pub(crate) fn client(global: &GlobalArgs) -> anyhow::Result<Client> {
    let token = std::env::var("RAWORC_TOKEN").ok().filter(|token| !token.is_empty());
    let session = Session::load()?;
    let server = session.server(global.server.as_deref());
    let token = token.or_else(|| session.login(&server).map(|login| login.token.clone()));
    let token = token.ok_or_else(|| not_logged_in(&server))?;
    let client = Client::new(&server)?.with_token(token);
    Ok(match &global.tenant {
        Some(tenant) => client.with_tenant(tenant.clone()),
        None => client,
    })
}

fn not_logged_in(server: &str) -> Failure {
    Failure::new(Exit::Denied, format!("you are not logged in to {server}"))
        .hint("log in with `raworc login`")
        .hint("or start a server on this machine with `raworc up`, which logs you in")
}

/// The time now, for ages.
#[must_use]
pub fn now() -> jiff::Timestamp {
    use raworc_core::entropy::{Clock, SystemClock};
    SystemClock.now()
}
