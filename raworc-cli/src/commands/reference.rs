//! `raworc reference`: the pages of the reference that are made from the code.

mod cli;
mod configuration;

use crate::args::{ReferenceArgs, ReferencePage};
use crate::output::Console;

/// Prints a page.
///
/// # Errors
/// Where standard output is closed.
pub fn run(console: &Console, args: &ReferenceArgs) -> anyhow::Result<()> {
    console.write(page(args.page).as_bytes())
}

/// A page of the reference, in Markdown.
#[must_use]
pub fn page(page: ReferencePage) -> String {
    match page {
        ReferencePage::Cli => cli::page(),
        ReferencePage::Configuration => configuration::page(),
    }
}
