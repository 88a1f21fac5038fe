//! Statements that go to the connection's thread together: the way there and back is a good part of what a small commit
//! costs.

use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{AssertSqlSafe, Sqlite, SqliteConnection};

/// A value to bind.
#[derive(Debug)]
pub(super) enum Cell {
    Int(i64),
    Time(Option<i64>),
    Text(String),
    Maybe(Option<String>),
}

/// Statements with what is bound to them, in their order.
#[derive(Debug, Default)]
pub(super) struct Script {
    text: String,
    cells: Vec<Cell>,
}

impl Script {
    pub(super) const fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    pub(super) fn add(&mut self, statement: &str, cells: impl IntoIterator<Item = Cell>) {
        if !self.text.is_empty() {
            self.text.push_str("; ");
        }
        self.text.push_str(statement);
        self.cells.extend(cells);
    }

    pub(super) async fn run(self, conn: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        self.query().execute(conn).await.map(drop)
    }

    /// Runs them and gives the rows of all of them.
    pub(super) async fn rows(self, conn: &mut SqliteConnection) -> Result<Vec<SqliteRow>, sqlx::Error> {
        self.query().fetch_all(conn).await
    }

    fn query(self) -> sqlx::query::Query<'static, Sqlite, SqliteArguments> {
        let mut query = sqlx::query(AssertSqlSafe(self.text));
        for cell in self.cells {
            query = match cell {
                Cell::Int(value) => query.bind(value),
                Cell::Time(value) => query.bind(value),
                Cell::Text(value) => query.bind(value),
                Cell::Maybe(value) => query.bind(value),
            };
        }
        query
    }
}
