//! Statements and what is bound to them, before a database's own words are put in.

use std::borrow::Cow;

use bytes::Bytes;

use super::statements::{Insert, Keyed};

/// A value to bind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// A number, or NULL.
    Int(Option<i64>),
    /// A text, or NULL.
    Text(Option<String>),
    /// A piece of a blob.
    Bytes(Bytes),
}

impl Cell {
    /// About how many it is.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Int(_) => 8,
            Self::Text(text) => text.as_ref().map_or(4, String::len),
            Self::Bytes(bytes) => 2 * bytes.len(),
        }
    }
}

impl From<i64> for Cell {
    fn from(value: i64) -> Self {
        Self::Int(Some(value))
    }
}

impl From<Option<i64>> for Cell {
    fn from(value: Option<i64>) -> Self {
        Self::Int(value)
    }
}

impl From<String> for Cell {
    fn from(value: String) -> Self {
        Self::Text(Some(value))
    }
}

impl From<&str> for Cell {
    fn from(value: &str) -> Self {
        Self::Text(Some(value.to_owned()))
    }
}

impl From<Option<String>> for Cell {
    fn from(value: Option<String>) -> Self {
        Self::Text(value)
    }
}

/// A statement with what is bound to it.
#[derive(Debug, Clone)]
pub enum Step {
    /// As it stands; each `?` is bound to the next cell.
    Plain(Cow<'static, str>, Vec<Cell>),
    /// Over a list of keys, whose cells come one after another.
    Keyed(&'static Keyed, Vec<Cell>),
    /// Rows to write, whose cells come one after another.
    Insert(&'static Insert, Vec<Cell>),
}

/// Statements in their order. Only rows that are inserted may be written before what stands before them, and what is loaded may be
/// read in any order.
#[derive(Debug, Clone, Default)]
pub struct Script(pub Vec<Step>);

impl Script {
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn add(&mut self, statement: &'static str, cells: impl IntoIterator<Item = Cell>) {
        self.0.push(Step::Plain(statement.into(), cells.into_iter().collect()));
    }

    /// Asks for the rows of `keys`; for nothing where there is no key.
    pub(crate) fn ask(&mut self, statement: &'static Keyed, keys: Vec<Cell>) {
        if !keys.is_empty() {
            self.0.push(Step::Keyed(statement, keys));
        }
    }

    /// Writes rows; nothing where there are none.
    pub(crate) fn put(&mut self, insert: &'static Insert, rows: impl IntoIterator<Item = Cell>) {
        let cells: Vec<_> = rows.into_iter().collect();
        if !cells.is_empty() {
            self.0.push(Step::Insert(insert, cells));
        }
    }
}
