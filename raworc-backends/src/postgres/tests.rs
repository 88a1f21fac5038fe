//! What is tested of PostgreSQL alone, and how.

use sqlx::{AssertSqlSafe, PgConnection};

use super::Postgres;
use super::dialect::literal;
use crate::sql::dialect::Columns;
use crate::sql::script::Step;
use crate::sql::server::tests::Tested;
use crate::sql::server::tests::database::Database;

crate::sql::server::tests::tests!(Postgres, "postgres");

impl Tested for Postgres {
    async fn faults(conn: &mut PgConnection, step: Step) -> Result<Vec<String>, sqlx::Error> {
        // Small tables are read whole whatever indexes there are, unless that is ruled out.
        let ask = format!(
            "SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; \
             EXPLAIN {}",
            literal(step)
        );
        let rows = sqlx::raw_sql(AssertSqlSafe(ask)).fetch_all(conn).await?;
        let mut faults = Vec::new();
        for row in &rows {
            let line = row.text(0)?.unwrap_or_default();
            if line.contains("Seq Scan") || line.contains("Sort") {
                faults.push(line.trim().to_owned());
            }
        }
        Ok(faults)
    }

    fn analyze(_tables: &[&str]) -> String {
        "ANALYZE".to_owned()
    }

    async fn cut(database: &Database) -> Result<(), sqlx::Error> {
        let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
            WHERE datname = current_database() AND pid <> pg_backend_pid()";
        database.run(cut).await
    }
}
