//! Tables of an earlier release and of a later one.

use futures::future::join_all;
use raworc_core::store::Store;
use sqlx::{Connection, SqliteConnection};

use super::super::status;
use super::super::table::{LEFT, TABLES};
use super::super::words::Words;
use super::place::{Directory, Place, Served};
use super::{flaws, quiet, run};
use crate::DatabaseOptions;
use crate::sql::commits::create;
use crate::sql::schema::newest;
use crate::sql::server::Server;
use crate::sql::store::SqlStore;
use crate::sqlite::{Access, Sqlite, SqliteStore};

pub(crate) async fn a_schema_of_a_newer_release_is_told_and_refused(place: impl Place) {
    place.open().await.close().await;
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
        VALUES (99, 'from the future', TRUE, '', 0)";
    run(&place, &[newer]).await;
    let mut whole = place.whole(Access::Read).await;
    let status = whole.status().await.expect("is told");
    assert!(status.schema == Some(99) && status.newest < 99, "{status:?}");
    assert_eq!(status.log.map(|log| log.head), Some(0));
    let mut out = Vec::new();
    for error in [
        whole.export(&mut out, &quiet).await.map(drop).expect_err("is refused"),
        whole.verify(&quiet).await.map(drop).expect_err("is refused"),
    ] {
        assert!(error.to_string().contains("newer release") && error.to_string().contains("99"), "{error}");
    }
    assert!(out.is_empty(), "something was written all the same");
    whole.close().await;
    let mut whole = place.whole(Access::Write).await;
    let error = whole.migrate().await.expect_err("is refused");
    assert!(error.to_string().contains("newer release"), "{error}");
    whole.close().await;
}

pub(crate) async fn where_nothing_is_that_is_told_and_a_migration_makes_it(place: impl Place) {
    let mut whole = place.whole(Access::Read).await;
    let status = whole.status().await.expect("is told");
    assert!(status.schema.is_none() && status.log.is_none() && status.tables.is_empty(), "{status:?}");
    let error = whole.export(&mut Vec::new(), &quiet).await.expect_err("is refused");
    assert!(error.to_string().contains("no store"), "{error}");
    whole.close().await;
    let mut whole = place.whole(Access::Write).await;
    let newest = status.newest;
    let first = whole.migrate().await.expect("makes it");
    let again = whole.migrate().await.expect("has nothing to do");
    assert_eq!(((first.from, first.to), (again.from, again.to)), ((None, newest), (Some(newest), newest)));
    let status = whole.status().await.expect("is told");
    assert_eq!((status.schema, status.tables.len()), (Some(newest), TABLES.len() - 1 + LEFT.len()));
    whole.close().await;
    assert_eq!(flaws(&place).await, Vec::<String>::new(), "what is empty is sound");
}

/// On a server: several processes, and tables as the first release made them.
pub(crate) async fn many_bring_an_old_schema_up_to_date_at_once<D: Server>(place: Served<D>) {
    let mut conn = place.conn().await;
    D::migrate(&mut conn, &D::MIGRATIONS[..1], "here").await.expect("makes them");
    let row = "INSERT INTO audit (seq, tenant, revision, at, doc) VALUES (1, 't', 1, 1, '{}')";
    status::run::<D>(&mut conn, row).await.expect("is written");
    conn.close().await.expect("closes");
    let stores = join_all((0..6).map(|_| place.open())).await;
    // Each is at work with them: whoever came first has changed them once.
    for (n, store) in stores.iter().enumerate() {
        store.commit(create(&format!("agent-{n}")).1).await.expect("is made");
    }
    for store in stores {
        store.close().await;
    }
    let mut whole = place.whole(Access::Read).await;
    let status = whole.status().await.expect("is told");
    assert_eq!((status.schema, status.newest), (Some(status.newest), newest(D::MIGRATIONS)));
    for (kept, rows) in [("audit", 1), ("agents", 6)] {
        assert!(status.tables.iter().any(|table| table.table == kept && table.rows == rows), "{kept}: {status:?}");
    }
    whole.close().await;
}

/// On a server: processes of two releases at one time.
pub(crate) async fn a_release_goes_on_with_tables_of_the_next_that_leave_it_at_work<D: Server>(place: Served<D>) {
    let before = place.open().await;
    let next = newest(D::MIGRATIONS) + 1;
    let made = "CREATE TABLE later (id BIGINT NOT NULL PRIMARY KEY)";
    let migrate = async |version: i64, name: &'static str, made: &'static str| {
        let mut migrations = D::MIGRATIONS.to_vec();
        migrations.push((version, name, made));
        let mut conn = place.conn().await;
        D::migrate(&mut conn, migrations.leak(), "here").await.expect("is brought up to date");
        conn.close().await.expect("closes");
    };
    migrate(next, "later, beside", made).await;
    // One that was there goes on, and one that begins is at work too.
    before.commit(create("a").1).await.expect("is made");
    let begun = place.open().await;
    begun.commit(create("b").1).await.expect("is made");
    begun.close().await;
    before.close().await;
    let mut whole = place.whole(Access::Read).await;
    let error = whole.export(&mut Vec::new(), &quiet).await.expect_err("it does not know all that is kept");
    assert!(error.to_string().contains("newer release"), "{error}");
    whole.close().await;

    let mut conn = place.conn().await;
    status::run::<D>(&mut conn, "DROP TABLE later").await.expect("goes");
    let forget = format!("DELETE FROM {} WHERE version = {next}", status::NOTES);
    status::run::<D>(&mut conn, &forget).await.expect("goes");
    conn.close().await.expect("closes");
    migrate(next, "later", made).await;
    let refused =
        SqlStore::<D>::open(DatabaseOptions::new(place.0.url())).await.expect_err("it could not work with them");
    assert!(refused.to_string().contains("newer release"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_the_first_schema_is_told_refused_brought_up_to_date_by_one_of_many_and_keeps_its_rows() {
    let place = Directory::new();
    let first = &Sqlite::MIGRATIONS[..1];
    let mut conn = SqliteConnection::connect_with(
        &sqlx::sqlite::SqliteConnectOptions::new().filename(place.options().database()).create_if_missing(true),
    )
    .await
    .expect("is made");
    Sqlite::migrate(&mut conn, first, "here").await.expect("makes it");
    let row = "INSERT INTO audit (seq, id, tenant, revision, at, doc) VALUES (1, 'a', 't', 1, 1, '{}')";
    status::run::<Sqlite>(&mut conn, row).await.expect("is written");
    conn.close().await.expect("closes");

    let mut whole = place.whole(Access::Read).await;
    let status = whole.status().await.expect("is told");
    assert_eq!((status.schema, status.newest), (Some(1), newest(Sqlite::MIGRATIONS)));
    let error = whole.export(&mut Vec::new(), &quiet).await.expect_err("is refused");
    assert!(
        error.to_string().contains("older release") && error.to_string().contains("raworc store migrate"),
        "{error}"
    );
    whole.close().await;

    // Each takes the directory, so that they come one after another, or are told that it is in use.
    let opened = join_all((0..6).map(|_| async {
        let opened = SqliteStore::open(place.options()).await;
        match opened {
            Ok(store) => {
                store.close().await;
                true
            }
            Err(error) => {
                assert!(error.to_string().contains("uses the data directory"), "{error}");
                false
            }
        }
    }))
    .await;
    assert!(opened.contains(&true));
    let mut whole = place.whole(Access::Write).await;
    let migrated = whole.migrate().await.expect("has nothing to do");
    let newest = newest(Sqlite::MIGRATIONS);
    assert_eq!((migrated.from, migrated.to), (Some(newest), newest));
    let status = whole.status().await.expect("is told");
    assert!(status.tables.iter().any(|table| table.table == "audit" && table.rows == 1), "{status:?}");
    whole.close().await;
}
