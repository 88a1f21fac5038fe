//! `raworc server` and `raworc operator`: the halves of an installation, any number of each on one database.

use serde::Serialize;

use super::up;
use crate::args::{OperatorArgs, ServerArgs};
use crate::installation::{FirstAdmin, Installation, Role};
use crate::output::{Console, Ink};
use crate::settings::Settings;

#[derive(Debug, Serialize)]
struct Started<'a> {
    /// What it does.
    role: &'static str,
    /// The API, or where an operator says how it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<String>,
    internal: Option<&'a str>,
    data: &'a std::path::Path,
    runtimes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password_file: Option<&'a std::path::Path>,
}

/// Serves callers and programs until it is asked to end.
///
/// # Errors
/// Names what is in the way.
pub async fn server(console: &Console, args: ServerArgs) -> anyhow::Result<()> {
    let mut settings = Settings::load(&args.assembly)?;
    settings.with_first_admin(args.admin);
    let (installation, asked) = up::start(console, settings, Role::Server).await?;
    let (installation, made) = up::with_first_admin(console, installation).await?;
    tell(console, "server", &installation, made.as_ref())?;
    up::serve(console, installation, asked).await
}

/// Looks after agents until it is asked to end.
///
/// # Errors
/// Names what is in the way.
pub async fn operator(console: &Console, mut args: OperatorArgs) -> anyhow::Result<()> {
    let listen = args.assembly.listen.take();
    let mut settings = Settings::load(&args.assembly)?;
    // It has no API, and this is all that it answers.
    settings.operator.listen = listen.or(settings.operator.listen);
    let (installation, asked) = up::start(console, settings, Role::Operator).await?;
    tell(console, "operator", &installation, None)?;
    up::serve(console, installation, asked).await
}

fn tell(
    console: &Console,
    role: &'static str,
    installation: &Installation,
    made: Option<&FirstAdmin>,
) -> anyhow::Result<()> {
    let started = Started {
        role,
        server: installation.url(),
        health: installation.health_url(),
        internal: installation.internal(),
        data: &installation.settings().data,
        runtimes: installation.control().runtimes().iter().map(|(name, _)| name.to_string()).collect(),
        password_file: made.and_then(FirstAdmin::password_file),
    };
    let quiet = |started: &Started<'_>| started.server.clone().or(started.health.clone()).unwrap_or_default();
    console.show_next(&started, quiet, || page(console, &started, installation, made))
}

fn page(console: &Console, started: &Started<'_>, installation: &Installation, made: Option<&FirstAdmin>) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut lines = vec![match &started.server {
        Some(url) => format!("Raworc {version} serves at {}", console.out.paint(Ink::Bold, url)),
        None => format!("Raworc {version} looks after agents"),
    }];
    let mut line = |name: &str, text: String| lines.push(format!("  {name:<9} {text}"));
    line("data", installation.kept_in());
    line("runtime", installation.computers());
    if let Some(internal) = started.internal {
        line("internal", format!("{internal}, where the others reach it"));
    }
    if let Some(health) = &started.health {
        line("health", format!("{health}/readyz"));
    }
    if let Some(made) = made {
        line("admin", up::of_admin(console, made));
    }
    lines.push("Ctrl-C ends it.".to_owned());
    lines.join("\n")
}
