//! `raworc bench`: what Raworc takes beside a floor that is measured in the same run.
//!
//! An installation runs in a process of its own, so that its processor time and memory are its own; this process offers
//! the load and measures the floor while the other one rests. Each round measures floor and ours one after the other,
//! and a figure is compared with the floor of its own round.

mod accept;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod database;
#[cfg(feature = "docker")]
mod docker;
mod egress;
mod figures;
mod fleet;
mod floor;
mod life;
mod load;
mod process;
mod reply;
mod server;

pub use server::serve;

use anyhow::Context as _;

use self::figures::{Figure, held, table};
use self::floor::Floor;
use self::process::Site;
use crate::args::{BenchArgs, Subject};
use crate::output::Console;

/// What every message says.
const TEXT: &str =
    "Please look at the report of last week, and tell me in three sentences what has changed since then.";

/// Measures what was asked for, and prints it.
///
/// # Errors
/// Where the installation that is measured does not start, or refuses a call; with `--strict` where a bound is missed.
pub async fn run(console: &Console, args: BenchArgs) -> anyhow::Result<()> {
    if cfg!(debug_assertions) {
        console.note("This is a debug build, whose figures say nothing; build with --release.");
    }
    let wanted = |subject| args.what.is_empty() || args.what.contains(&subject);
    let dir = match &args.dir {
        Some(dir) => tempfile::tempdir_in(dir).with_context(|| format!("cannot write in {}", dir.display()))?,
        None => tempfile::tempdir().context("cannot write in the directory for temporary files")?,
    };
    let mut figures: Vec<Figure> = Vec::new();
    if wanted(Subject::Accept) || wanted(Subject::Reply) || wanted(Subject::Life) {
        figures.extend(rounds(console, &args, dir.path(), wanted).await?);
    }
    if wanted(Subject::Fleet) {
        figures.extend(fleet::measure(console, &args, dir.path()).await?);
    }
    if args.what.contains(&Subject::Egress) {
        figures.extend(egress::measure(console, &args, dir.path()).await?);
    }
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    if args.what.contains(&Subject::Database) {
        figures.extend(database::measure(console, &args, dir.path()).await?);
    }
    #[cfg(feature = "docker")]
    if args.what.contains(&Subject::Docker) {
        figures.extend(docker::measure(console, &args, dir.path()).await?);
    }
    dir.close().context("the data cannot be taken away again")?;
    console.show_all(&figures, |figure| figure.what.to_owned(), || table(console, &figures))?;
    if args.strict { held(&figures) } else { Ok(()) }
}

async fn rounds(
    console: &Console,
    args: &BenchArgs,
    dir: &std::path::Path,
    wanted: impl Fn(Subject) -> bool,
) -> anyhow::Result<Vec<Figure>> {
    let progress = console.progress("starting");
    let mut floor = Floor::in_file(dir).await?;
    let server = Site::new(&dir.join("installation"), "sqlite", "auto")?.engine().await?;
    let client = server.client()?;
    let mut accept = if wanted(Subject::Accept) { Some(accept::Accept::prepare(&client).await?) } else { None };
    let mut reply = if wanted(Subject::Reply) { Some(reply::Reply::prepare(&client).await?) } else { None };
    let mut life = wanted(Subject::Life).then(life::Life::default);
    for round in 1..=args.rounds {
        progress.say(format!("round {round} of {}", args.rounds));
        let base = floor.measure().await?;
        if let Some(accept) = &mut accept {
            accept.round(args, &server, &client, &base).await?;
        }
        if let Some(reply) = &mut reply {
            reply.round(&server, &client, &base).await?;
        }
        if let Some(life) = &mut life {
            life.round(round, &client, &base).await?;
        }
    }
    drop(progress);
    floor.close().await?;
    server.end().await?;
    let mut figures = Vec::new();
    figures.extend(accept.into_iter().flat_map(accept::Accept::figures));
    figures.extend(reply.into_iter().flat_map(reply::Reply::figures));
    figures.extend(life.into_iter().flat_map(life::Life::figures));
    Ok(figures)
}
