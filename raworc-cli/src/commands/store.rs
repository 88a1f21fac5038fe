//! `raworc store`.

mod file;
mod show;

use std::path::Path;

use raworc_backends::sqlite::Access;
use raworc_backends::whole::{Contents, Verified, WholeError, read_export};
use tokio::signal::unix::{SignalKind, signal};

use self::file::{Output, input};
use self::show::Looked;
use crate::args::{AssemblyArgs, StoreArgs, StoreCommand, StoreExportArgs, StoreImportArgs, StoreVerifyArgs};
use crate::exit::{Exit, Failure, Silent};
use crate::installation::open_whole;
use crate::output::{Console, Progress};
use crate::settings::Settings;

/// Does what is asked of a store as a whole. Where it is interrupted, nothing half is left.
///
/// # Errors
/// Names what is in the way and the way out.
pub async fn run(console: &Console, command: StoreCommand) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let work = async {
        match command {
            StoreCommand::Status(args) => status(console, &args).await,
            StoreCommand::Migrate(args) => migrate(console, &args).await,
            StoreCommand::Export(args) => export(console, &args).await,
            StoreCommand::Import(args) => import(console, &args).await,
            StoreCommand::Verify(args) => verify(console, &args).await,
        }
    };
    tokio::select! {
        done = work => done,
        _ = terminate.recv() => Err(Silent(143).into()),
        _ = interrupt.recv() => Err(Silent(130).into()),
    }
}

fn settings(args: &StoreArgs) -> Result<Settings, Failure> {
    Settings::load(&AssemblyArgs { config: args.config.clone(), data: args.data.clone(), ..AssemblyArgs::default() })
}

async fn status(console: &Console, args: &StoreArgs) -> anyhow::Result<()> {
    let mut store = open_whole(&settings(args)?, Access::Read).await?;
    let progress = console.progress("counting rows");
    let status = store.status().await.map_err(|error| failure(error, "the store"))?;
    drop(progress);
    store.close().await;
    console.show(&status, &status.place, || show::status(console, &status))
}

async fn migrate(console: &Console, args: &StoreArgs) -> anyhow::Result<()> {
    let mut store = open_whole(&settings(args)?, Access::Write).await?;
    let progress = console.progress("bringing the tables up to date");
    let migrated = store.migrate().await.map_err(|error| failure(error, "the store"))?;
    drop(progress);
    let place = store.place().to_owned();
    store.close().await;
    console.show(&migrated, &place, || match migrated.from {
        Some(from) if from == migrated.to => format!("{place} is up to date: its schema is {from}"),
        Some(from) => format!("{place} is up to date now: its schema was {from}, and is {}", migrated.to),
        None => format!("{place} has tables now: its schema is {}", migrated.to),
    })
}

async fn export(console: &Console, args: &StoreExportArgs) -> anyhow::Result<()> {
    let settings = settings(&args.store)?;
    let mut output = Output::open(console, &args.file, args.force).await?;
    let mut store = open_whole(&settings, Access::Read).await?;
    let contents = {
        let progress = console.progress("exporting");
        let told = saying(&progress, "exporting");
        store.export(output.writer(), &told).await.map_err(|error| failure(error, &name(&args.file)))?
    };
    let place = store.place().to_owned();
    store.close().await;
    output.finish().await?;
    let said = format!("exported {} from {place}", counted(&contents));
    let key = settings.master_key_path();
    let keep = format!("What is secret in it is sealed. Keep the master key too, apart from it: {}", key.display());
    if is_stream(&args.file) {
        // Standard output is the export itself.
        console.note(said);
    } else {
        console.show(&contents, &args.file.display().to_string(), || format!("{said} to {}", args.file.display()))?;
    }
    console.note(keep);
    Ok(())
}

async fn import(console: &Console, args: &StoreImportArgs) -> anyhow::Result<()> {
    let settings = settings(&args.store)?;
    let mut from = input(&args.file).await?;
    let mut store = open_whole(&settings, Access::Write).await?;
    let contents = {
        let progress = console.progress("importing");
        let told = saying(&progress, "importing");
        store.import(&mut from, &told).await.map_err(|error| failure(error, &name(&args.file)))?
    };
    let place = store.place().to_owned();
    store.close().await;
    console.show(&contents, &place, || {
        format!("imported {} into {place}; all are as in the export", counted(&contents))
    })?;
    let key = settings.master_key_path();
    if !key.exists() && settings.master_key.is_none() {
        console.note(format!("Before the next start, bring the master key of that installation to {}.", key.display()));
    }
    Ok(())
}

async fn verify(console: &Console, args: &StoreVerifyArgs) -> anyhow::Result<()> {
    let settings = settings(&args.store)?;
    let exported = match &args.file {
        Some(file) => Some(contents_of(console, file).await?),
        None => None,
    };
    let mut store = open_whole(&settings, Access::Read).await?;
    let Verified { contents, flaws, flawed, .. } = {
        let progress = console.progress("reading the store");
        let told = saying(&progress, "reading");
        store.verify(&told).await.map_err(|error| failure(error, "the store"))?
    };
    let place = store.place().to_owned();
    store.close().await;
    let differences = exported.map(|exported| contents.differences("the store", &exported, "the export"));
    let looked = Looked { place, contents, flaws, flawed, differences };
    console.show(&looked, &looked.place, || show::looked(console, &looked))?;
    looked.outcome().map_err(Into::into)
}

async fn contents_of(console: &Console, file: &Path) -> anyhow::Result<Contents> {
    let mut from = input(file).await?;
    let progress = console.progress("reading the export");
    let told = saying(&progress, "reading the export");
    Ok(read_export(&mut from, &told).await.map_err(|error| failure(error, &name(file)))?)
}

fn saying<'a>(progress: &'a Progress, what: &'a str) -> impl Fn(&str, u64) + Send + Sync + 'a {
    move |table, rows| progress.say(format!("{what} {table}: {rows} rows"))
}

fn counted(contents: &Contents) -> String {
    format!("{} rows of {} tables", contents.rows(), contents.tables.len())
}

fn is_stream(file: &Path) -> bool {
    file.as_os_str() == "-"
}

/// A file as people are told of it.
fn name(file: &Path) -> String {
    if is_stream(file) { "the pipe".to_owned() } else { file.display().to_string() }
}

/// What it means to a person that something was not done with a store, or with the export `file`.
fn failure(error: WholeError, file: &str) -> Failure {
    match error {
        WholeError::Store(error) => Failure::new(Exit::Failed, "the store did not do it").because(error),
        WholeError::Unfit { reason } => Failure::new(Exit::Conflict, reason),
        WholeError::Read(error) => Failure::new(Exit::Failed, format!("cannot read {file}")).because(error),
        WholeError::Write(error) => cannot_write(file, error),
        WholeError::Export { reason } => {
            Failure::new(Exit::Usage, format!("{file} is no export that can be taken: {reason}"))
                .hint("export anew, or take another backup; nothing was changed")
        }
        error => Failure::new(Exit::Failed, "the store did not do it").because(error),
    }
}

fn cannot_write(file: &str, error: std::io::Error) -> Failure {
    let failure =
        Failure::new(Exit::Failed, format!("cannot write the export to {file}; what there is of it is no export"));
    match error.kind() {
        std::io::ErrorKind::BrokenPipe => {
            failure.hint("whoever read the pipe ended before the export did").because(error)
        }
        std::io::ErrorKind::StorageFull => failure.hint("free some room, or choose another disk").because(error),
        _ => failure.because(error),
    }
}
