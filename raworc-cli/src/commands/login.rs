//! `raworc login`, `logout` and `status`.

use raworc_http::client::Client;
use serde::Serialize;

use super::context::Context;
use crate::args::{GlobalArgs, LoginArgs};
use crate::exit::{Exit, Failure};
use crate::output::{Console, Ink};
use crate::session::{Login, Session};
use crate::terminal;
use secrecy::SecretString;

/// Logs in to a server, and remembers it.
///
/// # Errors
/// Where the server cannot be reached, or the password is wrong.
pub async fn login(global: &GlobalArgs, console: &Console, args: LoginArgs) -> anyhow::Result<()> {
    let mut session = Session::load()?;
    let server = session.server(global.server.as_deref());
    let client = Client::new(&server)?;
    let password = match &args.password_file {
        Some(file) => {
            let text = std::fs::read_to_string(file).map_err(|error| {
                Failure::new(Exit::NotFound, format!("cannot read the password from {}", file.display())).because(error)
            })?;
            SecretString::from(text.trim_end_matches(['\n', '\r']).to_owned())
        }
        None => terminal::ask_password(&format!("Password of {} at {}", args.user, server))?,
    };
    let progress = console.progress("logging in");
    let reply = match client.login(&args.user, &password).await {
        // To log in again is no way out here.
        Err(error) if error.code == "unauthenticated" => {
            return Err(Failure::new(Exit::Denied, error.to_string()).into());
        }
        reply => reply?,
    };
    drop(progress);
    let login = Login { user: reply.user.to_string(), token: reply.token, expires_at: Some(reply.expires_at) };
    session.put(&server, login);
    session.save()?;
    console.note(format!("Logged in to {server} as {}.", console.err.paint(Ink::Bold, reply.user.as_str())));
    Ok(())
}

/// Logs out, here and at the server.
///
/// # Errors
/// Where the session cannot be written.
pub async fn logout(global: &GlobalArgs, console: &Console) -> anyhow::Result<()> {
    let mut session = Session::load()?;
    let server = session.server(global.server.as_deref());
    let Some(login) = session.forget(&server) else {
        console.note(format!("You are not logged in to {server}."));
        return Ok(());
    };
    // Here first: a server that is gone must not keep anybody logged in.
    session.save()?;
    let client = Client::new(&server)?.with_token(login.token);
    let progress = console.progress(format!("logging out of {server}"));
    let told = client.logout().await;
    drop(progress);
    match told.map_err(|error| Failure::of(&error)) {
        Ok(()) => console.note(format!("Logged out of {server}.")),
        Err(error) => console.note(format!(
            "Logged out of {server} here. The server was not told ({error}), so the token is good until it expires."
        )),
    }
    Ok(())
}

#[derive(Debug, Serialize)]
struct Status {
    server: String,
    version: String,
    ready: bool,
    checks: std::collections::BTreeMap<String, String>,
    user: String,
    tenant: String,
    admin: bool,
}

/// Tells whether the server is well, and who the user is to it.
///
/// # Errors
/// Where the server cannot be reached, is not ready, or does not know the user.
pub async fn status(context: &Context) -> anyhow::Result<()> {
    let client = &context.client;
    let asked = context.waiting(format!("asking {}", client.server()), async {
        Ok::<_, anyhow::Error>((client.version().await?, client.ready().await?, client.who_am_i().await?))
    });
    let (version, ready, who) = asked.await?;
    let status = Status {
        server: client.server().to_owned(),
        version: version.version,
        ready: ready.ready,
        checks: ready.checks,
        user: who.user.to_string(),
        tenant: who.tenant.to_string(),
        admin: who.admin,
    };
    let style = context.console.out;
    context.console.show(&status, &status.server, || {
        let well = if status.ready { style.paint(Ink::Green, "ready") } else { style.paint(Ink::Red, "not ready") };
        let mut text = format!("{} {well}, version {}\n", status.server, status.version);
        for (check, result) in status.checks.iter().filter(|(_, result)| *result != "ok") {
            text.push_str(&format!("  {check}: {result}\n"));
        }
        let admin = if status.admin { ", admin" } else { "" };
        text.push_str(&format!("you are {} in {}{admin}\n", status.user, status.tenant));
        text
    })?;
    if status.ready { Ok(()) } else { Err(Failure::new(Exit::Failed, "the server is not ready").into()) }
}
