//! `raworc up`, and why `server` and `operator` are not apart yet.

use anyhow::Context as _;
use secrecy::ExposeSecret;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{AssemblyArgs, UpArgs};
use crate::exit::{Exit, Failure, Silent};
use crate::installation::{FirstAdmin, Installation, Password};
use crate::logging;
use crate::output::{Console, Format, Ink};
use crate::settings::Settings;

#[derive(Debug, Serialize)]
struct Started<'a> {
    server: String,
    data: &'a std::path::Path,
    isolated: bool,
    admin: &'a str,
    password_file: Option<&'a std::path::Path>,
    logged_in: bool,
}

/// Serves an installation until it is asked to end.
///
/// # Errors
/// Names what is in the way.
pub async fn run(console: &Console, args: UpArgs) -> anyhow::Result<()> {
    let mut settings = Settings::load(&args.assembly)?;
    settings.admin = args.admin.unwrap_or(settings.admin);
    settings.admin_password_file = args.admin_password_file.or(settings.admin_password_file);
    logging::start(&settings, console)?;
    let progress = console.progress("starting");
    let installation = Installation::start(settings, &|what| progress.tell(console, what)).await?;
    drop(progress);
    let made = match installation.ensure_first_admin(console.out_is_terminal && console.format == Format::Table).await {
        Ok(made) => made,
        Err(error) => {
            installation.shutdown().await;
            return Err(error);
        }
    };
    let logged_in = !args.no_login && logged_in(console, &installation).await;
    tell(console, &installation, made.as_ref(), logged_in)?;
    serve(console, installation).await
}

/// Logs this user in; an installation without a session is still one.
pub(super) async fn logged_in(console: &Console, installation: &Installation) -> bool {
    match installation.log_in().await {
        Ok(login) => login.is_some(),
        Err(error) => {
            console.note(format!("You are not logged in here, because the session cannot be kept: {error:#}"));
            false
        }
    }
}

fn tell(
    console: &Console,
    installation: &Installation,
    made: Option<&FirstAdmin>,
    logged_in: bool,
) -> anyhow::Result<()> {
    let settings = installation.settings();
    let password_file = match made.map(|made| &made.password) {
        Some(Password::Written(path)) => Some(path.as_path()),
        Some(Password::Given | Password::Shown(_)) | None => None,
    };
    let started = Started {
        server: installation.url(),
        data: &settings.data,
        isolated: settings.local.isolation,
        admin: settings.admin.as_str(),
        password_file,
        logged_in,
    };
    console.show_next(&started, |started| started.server.clone(), || page(console, installation, made, logged_in))
}

fn page(console: &Console, installation: &Installation, made: Option<&FirstAdmin>, logged_in: bool) -> String {
    let (style, settings) = (console.out, installation.settings());
    let mut lines =
        vec![format!("Raworc {} serves at {}", env!("CARGO_PKG_VERSION"), style.paint(Ink::Bold, &installation.url()))];
    let mut line = |name: &str, text: String| lines.push(format!("  {name:<9} {text}"));
    line("data", installation.kept_in());
    line("runtime", installation.computers().to_owned());
    if let Some(model) = settings.all_models().next() {
        line("model", format!("{} at {}", model.name, model.url));
    }
    match made.map(|made| (made.name.as_str(), &made.password)) {
        Some((name, Password::Shown(secret))) => {
            let secret = style.paint(Ink::Bold, secret.expose_secret());
            line("admin", format!("{name}, password {secret} (shown this once)"));
        }
        Some((name, Password::Written(path))) => line("admin", format!("{name}, password in {}", path.display())),
        Some((name, Password::Given)) => line("admin", format!("{name}, with the password that was given")),
        None => {}
    }
    if logged_in {
        let command = style.paint(Ink::Cyan, "raworc agent create ada --wait && raworc send ada '!uname -a'");
        lines.push(format!("You are logged in. Try: {command}"));
    }
    lines.push("Ctrl-C ends it.".to_owned());
    lines.join("\n")
}

/// Waits until the process is asked to end, and ends in order. Asked a second time, it ends at once.
pub(super) async fn serve(console: &Console, mut installation: Installation) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("signals cannot be received")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("signals cannot be received")?;
    let ended = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        broken = installation.ended() => broken.context("the API cannot be served any longer"),
    };
    console.note("Stopping. Agents' files are kept, and messages that wait go on at the next start.");
    if installation.computers_go_on() {
        console.note("Agents that are awake go on in their containers; `raworc agent sleep NAME` stops one while a server is up.");
    }
    tokio::select! {
        () = installation.shutdown() => ended,
        _ = terminate.recv() => Err(Silent(143).into()),
        _ = interrupt.recv() => Err(Silent(130).into()),
    }
}

/// Says why one half alone cannot be started.
///
/// # Errors
/// Always, in this release.
pub fn apart(args: &AssemblyArgs, half: &str) -> anyhow::Result<()> {
    Settings::load(args)?;
    Err(Failure::new(
        Exit::Usage,
        format!("`raworc {half}` alone is not in this release: links are not forwarded between servers yet"),
    )
    .hint("start `raworc up`: server and operator in one process, on SQLite or a database (`store`)")
    .into())
}
