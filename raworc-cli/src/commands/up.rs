//! `raworc up`: server and operator in one process.

use anyhow::Context as _;
use secrecy::ExposeSecret;
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::UpArgs;
use crate::exit::Silent;
use crate::installation::{FirstAdmin, Installation, Password, Role};
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
    settings.with_first_admin(args.admin);
    let (installation, asked) = start(console, settings, Role::Both).await?;
    let (installation, made) = with_first_admin(console, installation).await?;
    let logged_in = !args.no_login && logged_in(console, &installation).await;
    tell(console, &installation, made.as_ref(), logged_in)?;
    serve(console, installation, asked).await
}

/// Starts a process of an installation, and shows what takes long. Asked to end meanwhile, it ends at once.
pub(super) async fn start(
    console: &Console,
    settings: Settings,
    role: Role,
) -> anyhow::Result<(Installation, AskedToEnd)> {
    logging::start(&settings, role, console)?;
    let progress = console.progress("starting");
    let mut asked = AskedToEnd::listen()?;
    let tell = |what| progress.tell(console, what);
    tokio::select! {
        started = Installation::start(settings, role, &tell) => Ok((started?, asked)),
        code = asked.asked() => Err(Silent(code).into()),
    }
}

/// Makes the first admin where there is none.
pub(super) async fn with_first_admin(
    console: &Console,
    installation: Installation,
) -> anyhow::Result<(Installation, Option<FirstAdmin>)> {
    match installation.ensure_first_admin(console.out_is_terminal && console.format == Format::Table).await {
        Ok(made) => Ok((installation, made)),
        Err(error) => {
            installation.shutdown().await;
            Err(error)
        }
    }
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
    let started = Started {
        server: installation.url().unwrap_or_default(),
        data: &settings.data,
        isolated: settings.local.isolation,
        admin: settings.admin.as_str(),
        password_file: made.and_then(FirstAdmin::password_file),
        logged_in,
    };
    console.show_next(&started, |started| started.server.clone(), || page(console, installation, made, logged_in))
}

fn page(console: &Console, installation: &Installation, made: Option<&FirstAdmin>, logged_in: bool) -> String {
    let (style, settings) = (console.out, installation.settings());
    let url = installation.url().unwrap_or_default();
    let mut lines = vec![format!("Raworc {} serves at {}", env!("CARGO_PKG_VERSION"), style.paint(Ink::Bold, &url))];
    let mut line = |name: &str, text: String| lines.push(format!("  {name:<9} {text}"));
    line("data", installation.kept_in());
    line("runtime", installation.computers());
    if let Some(model) = settings.all_models().next() {
        line("model", format!("{} at {}", model.name, model.url));
    }
    if let Some(made) = made {
        line("admin", of_admin(console, made));
    }
    if logged_in {
        let command = style.paint(Ink::Cyan, "raworc agent create ada --wait && raworc send ada '!uname -a'");
        lines.push(format!("You are logged in. Try: {command}"));
    }
    lines.push("Ctrl-C ends it.".to_owned());
    lines.join("\n")
}

/// Who the first admin is, and how they log in.
pub(super) fn of_admin(console: &Console, made: &FirstAdmin) -> String {
    let name = &made.name;
    match &made.password {
        Password::Shown(secret) => {
            let secret = console.out.paint(Ink::Bold, secret.expose_secret());
            format!("{name}, password {secret} (shown this once)")
        }
        Password::Written(path) => format!("{name}, password in {}", path.display()),
        Password::Given => format!("{name}, with the password that was given"),
    }
}

/// The signals by which a process is asked to end. They are listened for before it says that it has begun: whoever asks then
/// sees it end in order.
pub(super) struct AskedToEnd {
    terminate: Signal,
    interrupt: Signal,
}

impl AskedToEnd {
    pub(super) fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("signals cannot be received");
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// Waits for one, and returns the exit code of a process that ends at once by it.
    async fn asked(&mut self) -> u8 {
        tokio::select! {
            _ = self.terminate.recv() => 143,
            _ = self.interrupt.recv() => 130,
        }
    }
}

/// Waits until the process is asked to end, and ends in order. Asked a second time, it ends at once.
pub(super) async fn serve(
    console: &Console,
    mut installation: Installation,
    mut asked: AskedToEnd,
) -> anyhow::Result<()> {
    let ended = tokio::select! {
        _ = asked.asked() => Ok(()),
        broken = installation.ended() => broken.context("the API cannot be served any longer"),
    };
    console.note(match installation.role() {
        Role::Both => "Stopping. Agents' files are kept, and messages that wait go on at the next start.",
        Role::Server => "Stopping. Agents go on: their programs find another server, or this one at its next start.",
        Role::Operator => "Stopping. Another operator of the same engines takes over, or this one at its next start.",
    });
    if installation.role() != Role::Server && installation.computers_go_on() {
        console.note("Agents that are awake go on in their containers; `raworc agent sleep NAME` stops one while a server is up.");
    }
    tokio::select! {
        () = installation.shutdown() => ended,
        code = asked.asked() => Err(Silent(code).into()),
    }
}
