//! What is tested of MySQL and MariaDB alone, and how.

use sqlx::{AssertSqlSafe, MySqlConnection, Row};

use super::Mysql;
use super::dialect::Packets;
use crate::sql::dialect::Columns;
use crate::sql::script::{Cell, Step};
use crate::sql::server::tests::database::Database;
use crate::sql::server::tests::{Plan, Tested, apart};

mod mysql {
    crate::sql::server::tests::tests!(super::Mysql, "mysql");
}

mod mariadb {
    crate::sql::server::tests::tests!(super::Mysql, "mariadb");
}

impl Tested for Mysql {
    async fn plan(conn: &mut MySqlConnection, step: Step) -> Result<Plan, sqlx::Error> {
        let statement = Packets::one(as_written(step));
        // MySQL has another form unless it is asked for this one, and MariaDB no other.
        let ask = format!("EXPLAIN FORMAT=TRADITIONAL {statement}");
        let rows = match sqlx::raw_sql(AssertSqlSafe(ask)).fetch_all(&mut *conn).await {
            Err(_) => sqlx::raw_sql(AssertSqlSafe(format!("EXPLAIN {statement}"))).fetch_all(conn).await?,
            rows => rows?,
        };
        let mut plan = Plan::default();
        for row in &rows {
            let column = |name| row.try_get_unchecked::<Option<String>, _>(name).map(Option::unwrap_or_default);
            let (table, how, extra) = (column("table")?, column("type")?, column("Extra")?);
            // Keys that are bound, and what was made of them, are to be read whole.
            let bound = table.is_empty() || table == "k" || table.starts_with('<');
            if (how == "ALL" || how == "index") && !bound || extra.contains("filesort") {
                plan.faults.push(format!("{table}: {how} {extra}"));
            }
            plan.indexes.extend(Some(column("key")?).filter(|key| !key.is_empty()));
        }
        Ok(plan)
    }

    fn analyze(tables: &[&str]) -> String {
        format!("ANALYZE TABLE {}", tables.join(", "))
    }

    async fn cut(database: &Database) -> Result<(), sqlx::Error> {
        database.end_connections().await
    }

    const TLS: apart::Words = apart::Words {
        none: "?ssl-mode=DISABLED",
        encrypted: "ssl-mode=REQUIRED",
        signed: "ssl-mode=VERIFY_CA",
        named: "ssl-mode=VERIFY_IDENTITY",
        authority: "ssl-ca",
    };
    const COMMITS: &'static [u8] = b"COMMIT; SET SESSION";
    /// Whoever has changed less is ended.
    const SPARED: &'static str = "INSERT INTO of_others WITH RECURSIVE some AS \
        (SELECT 1 AS n UNION ALL SELECT n + 1 FROM some WHERE n < 500) SELECT n FROM some";
    const OTHERWISE: (&'static str, &'static str) = (
        "SET GLOBAL sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT'; \
            SET GLOBAL TRANSACTION ISOLATION LEVEL SERIALIZABLE; SET GLOBAL time_zone = '+09:00'",
        "SET GLOBAL sql_mode = DEFAULT; SET GLOBAL TRANSACTION ISOLATION LEVEL REPEATABLE READ; \
            SET GLOBAL time_zone = DEFAULT",
    );
    const TWENTY_SECONDS: &'static str = "DO SLEEP(20)";

    async fn is_encrypted(conn: &mut MySqlConnection) -> Result<bool, sqlx::Error> {
        let row = sqlx::raw_sql("SHOW SESSION STATUS LIKE 'Ssl_cipher'").fetch_one(conn).await?;
        Ok(row.text(1)?.is_some_and(|cipher| !cipher.is_empty()))
    }

    async fn url_of_a_plain_user(database: &Database) -> Result<String, sqlx::Error> {
        let url = database.url();
        let (_, rest) = url.split_once('@').unwrap_or_default();
        let name = rest.rsplit('/').next().unwrap_or_default();
        let user =
            format!("CREATE USER IF NOT EXISTS plain@'%' IDENTIFIED BY 'plain'; GRANT ALL ON {name}.* TO plain@'%'");
        database.at_server(user).await?;
        Ok(format!("mysql://plain:plain@{rest}"))
    }

    async fn read_only(database: &Database, is: bool) -> Result<(), sqlx::Error> {
        database.at_server(format!("SET GLOBAL read_only = {is}")).await
    }
}

/// As statements of the product are: a text stands where a column holds one, as most do; what limits a page is a number.
fn as_written(step: Step) -> Step {
    let Step::Plain(text, mut cells) = step else { return step };
    let limit = text.ends_with("LIMIT ?").then(|| cells.pop()).flatten();
    let as_text = |cell| match cell {
        Cell::Int(value) => Cell::Text(value.map(|value| value.to_string())),
        cell => cell,
    };
    Step::Plain(text, cells.into_iter().map(as_text).chain(limit).collect())
}
