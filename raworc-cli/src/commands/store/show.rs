//! What people and programs are told of a store.

use indicatif::HumanBytes;
use raworc_backends::whole::{Contents, Status};
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::output::{Console, Table, talk};

/// What a look at every row came to.
#[derive(Debug, Serialize)]
pub(super) struct Looked {
    pub(super) place: String,
    #[serde(flatten)]
    pub(super) contents: Contents,
    pub(super) flaws: Vec<String>,
    pub(super) flawed: u64,
    /// In what it is not as an export, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) differences: Option<Vec<String>>,
}

impl Looked {
    /// # Errors
    /// Where something is wrong.
    pub(super) fn outcome(&self) -> Result<(), Failure> {
        let different = self.differences.as_ref().map_or(0, Vec::len);
        if self.flawed > 0 {
            let failure = Failure::new(
                Exit::Failed,
                format!("the store is not sound: {} of its rows or tables are wrong", self.flawed),
            );
            return Err(failure.hint("restore a backup that is sound; keep this store until that is seen to work"));
        }
        if different > 0 {
            return Err(Failure::new(
                Exit::Failed,
                format!("the store is not as the export: {different} of its tables differ"),
            )
            .hint("a store that was used since is another one; compare right after an import, or export anew"));
        }
        Ok(())
    }
}

/// The state of a store.
pub(super) fn status(console: &Console, status: &Status) -> String {
    let newest = status.newest;
    let schema = match status.schema {
        _ if status.cut_short => {
            "a change of the tables was cut short; `raworc store migrate` says how it is finished".to_owned()
        }
        None => "none: there is no store yet".to_owned(),
        Some(schema) if schema < newest => {
            format!(
                "{schema}, and this release has {newest}: `raworc store migrate` or the next start brings it up to date"
            )
        }
        Some(schema) if schema > newest => format!("{schema}, of a newer release than this one, which has {newest}"),
        Some(schema) => format!("{schema}, up to date"),
    };
    let mut lines = vec![
        format!("store     {}", status.place),
        format!("database  {}", status.database),
        format!("schema    {schema}"),
    ];
    if let Some(log) = status.log {
        lines.push(format!("log       revisions {} to {}, of {} commits", log.oldest, log.head, log.commits));
    }
    if let Some(bytes) = status.bytes {
        lines.push(format!("size      {}", HumanBytes(bytes)));
    }
    let mut page = lines.join("\n") + "\n";
    if !status.tables.is_empty() {
        let mut table = Table::new(["TABLE", "ROWS"]);
        for rows in &status.tables {
            table.row([rows.table.clone(), rows.rows.to_string()]);
        }
        page.push('\n');
        page.push_str(&table.render(console));
    }
    page
}

/// What a store holds, and what is wrong with it.
pub(super) fn looked(console: &Console, looked: &Looked) -> String {
    let mut table = Table::new(["TABLE", "ROWS", "SHA-256"]);
    for sum in &looked.contents.tables {
        table.row([sum.table.clone(), sum.rows.to_string(), sum.sha256.clone()]);
    }
    let mut page = table.render(console);
    page.push('\n');
    let wrong = looked.flaws.iter().chain(looked.differences.iter().flatten());
    for line in wrong {
        page.push_str(&format!("wrong: {}\n", talk::printable(line)));
    }
    if looked.flawed > looked.flaws.len() as u64 {
        page.push_str(&format!("and {} more\n", looked.flawed - looked.flaws.len() as u64));
    }
    if looked.outcome().is_ok() {
        let same = if looked.differences.is_some() { ", and the same as the export" } else { "" };
        page.push_str(&format!("{} is sound{same}\n", looked.place));
    }
    page
}
