//! What is carried from database to database, and what is refused on the way. Each is shown on every kind of database.

pub(crate) mod content;
pub(crate) mod place;
mod schema;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::join_all;
use raworc_core::blob::BlobStore;
use raworc_core::entropy::{Clock, EntropyExt, SystemClock, SystemEntropy};
use raworc_core::ids::{Revision, TenantName};
use raworc_core::store::{EventFilter, Store};
use sqlx::{AssertSqlSafe, Connection};
use tokio::io::BufReader;
use tokio_util::sync::CancellationToken;

use self::content::{Content, fill};
use self::place::{Directory, Place, Served};
use self::schema::{
    a_release_goes_on_with_tables_of_the_next_that_leave_it_at_work, a_schema_of_a_newer_release_is_told_and_refused,
    many_bring_an_old_schema_up_to_date_at_once, where_nothing_is_that_is_told_and_a_migration_makes_it,
};
use super::table::{LEFT, TABLES};
use super::words::Words;
use super::{Contents, WholeError, read_export, status};
use crate::sql::commits::{accept, counted, create, message_id};
use crate::sql::convert::{number, text};
use crate::sql::statements::Kind;
use crate::sqlite::Access;

/// Nobody hears of progress.
fn quiet(_: &str, _: u64) {}

async fn export(place: &impl Place) -> (Vec<u8>, Contents) {
    let mut whole = place.whole(Access::Read).await;
    let mut bytes = Vec::new();
    let contents = whole.export(&mut bytes, &quiet).await.expect("is exported");
    whole.close().await;
    (bytes, contents)
}

async fn import(place: &impl Place, export: &[u8]) -> Result<Contents, WholeError> {
    let mut whole = place.whole(Access::Write).await;
    let mut from = export;
    let imported = whole.import(&mut from, &quiet).await;
    whole.close().await;
    imported
}

async fn flaws(place: &impl Place) -> Vec<String> {
    let mut whole = place.whole(Access::Read).await;
    let verified = whole.verify(&quiet).await.expect("is looked at");
    whole.close().await;
    assert_eq!(verified.flawed == 0, verified.flaws.is_empty());
    verified.flaws
}

/// Runs statements one after another.
async fn run<P: Place>(place: &P, statements: &[&str]) {
    let mut conn = place.conn().await;
    for statement in statements {
        status::run::<P::Words>(&mut conn, statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
    conn.close().await.expect("closes");
}

/// A store in SQLite with something of everything, all of it, and what it comes to.
async fn filled() -> (Content, Vec<u8>, Contents) {
    let source = Directory::new();
    let store = source.open().await;
    let content = fill(&store).await;
    store.close().await;
    assert_eq!(flaws(&source).await, Vec::<String>::new());
    let (bytes, contents) = export(&source).await;
    for table in &contents.tables {
        assert!(table.rows > 0, "nothing of {} is carried", table.table);
    }
    (content, bytes, contents)
}

/// The lines of an export without the first, which says where it is from.
fn rows(export: &[u8]) -> Vec<&[u8]> {
    export.split(|byte| *byte == b'\n').skip(1).collect()
}

pub(crate) async fn an_export_comes_back_as_it_was_and_the_store_goes_on(place: impl Place) {
    let (content, bytes, contents) = filled().await;
    assert_eq!(import(&place, &bytes).await.expect("is taken"), contents);
    assert_eq!(flaws(&place).await, Vec::<String>::new());
    let (again, same) = export(&place).await;
    assert_eq!(same, contents);
    assert!(rows(&again) == rows(&bytes), "the same rows are written otherwise");
    let back = Directory::new();
    assert_eq!(import(&back, &again).await.expect("is taken"), contents);

    let Content { busy, made, answered, blob } = content;
    let store = place.open().await;
    let head = store.head().await.expect("answers").value;
    let mut log = store.watch(head, EventFilter::default()).await.expect("begins");
    let resent = store.commit(made).await.expect("is known");
    assert!(resent.revision < head, "a commit from before is made again");
    let mut request = answered.clone();
    request.id = SystemEntropy.commit_id(SystemClock.now());
    assert!(store.commit(request).await.expect("is known").replayed, "a key of before has another effect");
    let before = store.agent_by_id(busy).await.expect("answers").value.expect("is there").inbox.last_seq;
    let committed = store.commit(accept(busy, message_id(), "next")).await.expect("goes through");
    assert_eq!((committed.revision, committed.messages[0].seq), (head.next(), before + 1));
    let burst = log.next().await.expect("goes on").expect("is readable");
    assert_eq!(burst.first().map(|event| event.revision), Some(head.next()));
    let read = store.get(&TenantName::default_tenant(), blob.0, None).await.expect("answers");
    assert_eq!(read, Some(blob.1));
    assert_eq!(store.leases("").await.expect("answers").value, Vec::new(), "leases are signs of life");
    let mut all = store.watch(Revision(0), EventFilter::default()).await.expect("begins");
    assert_eq!(all.next().await.expect("goes on").expect("is readable")[0].revision, Revision(1));
    store.close().await;
    assert_eq!(flaws(&place).await, Vec::<String>::new());
}

pub(crate) async fn what_is_cut_changed_or_moved_is_refused_and_leaves_nothing(place: impl Place) {
    let (_, bytes, contents) = filled().await;
    let whole = String::from_utf8(bytes.clone()).expect("text");
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    let at = |begins: &str| lines.iter().position(|line| line.starts_with(begins)).expect("is there");
    let [messages, audit, log, commits] =
        ["messages", "audit", "log", "commits"].map(|table| at(&format!(r#"{{"table":"{table}""#)));
    let with = |from: &[&str]| from.concat();
    let swapped = |one: usize, other: usize| {
        let mut lines = lines.clone();
        lines.swap(one, other);
        with(&lines)
    };
    let without = |from: usize, to: usize| [&lines[..from], &lines[to..]].concat().concat();
    let wrong = [
        (String::new(), "is empty or cut off"),
        ("no export at all\n".to_owned(), "not that of an export"),
        (whole.replacen(r#""version":1"#, r#""version":2"#, 1), "its form is 2"),
        (whole[..whole.len() / 2].to_owned(), "cut off in"),
        (with(&lines[..lines.len() - 1]), "cut off in blob_chunks"),
        (whole.replacen("again", "agaim", 1), "has other rows"),
        (swapped(messages + 1, messages + 2), "in messages: the row is not in its place"),
        (without(messages + 1, messages + 2), "messages has"),
        (without(audit, at(r#"{"table":"blobs""#)), "blobs is where audit was to come"),
        (swapped(log, audit), "audit is where log was to come"),
        (format!("{whole}more\n"), "something comes after its last line"),
        (
            whole.replacen(r#"{"table":"steps","columns":["agent","#, r#"{"table":"steps","columns":["agents","#, 1),
            "steps has other columns",
        ),
        (without(commits + 1, commits + 2), "commits has"),
    ];
    for (export, told) in wrong {
        let error = import(&place, export.as_bytes()).await.expect_err(told);
        assert!(matches!(error, WholeError::Export { .. }) && error.to_string().contains(told), "{told}: {error}");
        let mut from = BufReader::new(export.as_bytes());
        let error = read_export(&mut from, &quiet).await.expect_err("is no export by itself either");
        assert!(error.to_string().contains(told), "{told}: {error}");
        let mut there = place.whole(Access::Read).await;
        let status = there.status().await.expect("answers");
        there.close().await;
        assert!(status.tables.iter().all(|table| table.rows == 0), "{told}: {status:?}");
        assert!(status.log.is_none_or(|log| log.head == 0), "{told}: {status:?}");
    }
    assert_eq!(import(&place, &bytes).await.expect("is taken"), contents);
}

pub(crate) async fn a_store_that_holds_something_takes_no_import(place: impl Place) {
    let (_, bytes, _) = filled().await;
    let store = place.open().await;
    store.commit(create("one").1).await.expect("goes through");
    store.close().await;
    let before = export(&place).await.1;
    let error = import(&place, &bytes).await.expect_err("is refused");
    assert!(matches!(error, WholeError::Unfit { .. }), "{error:?}");
    let told = error.to_string();
    assert!(told.contains("not empty") && told.contains("revision 1") && told.contains("another database"), "{told}");
    assert_eq!(export(&place).await.1, before);
}

pub(crate) async fn what_stands_beside_the_log_alone_takes_no_import_either(place: impl Place) {
    let (_, bytes, _) = filled().await;
    let store = place.open().await;
    store.put(&TenantName::default_tenant(), Bytes::from_static(b"x")).await.expect("is put");
    store.close().await;
    let told = import(&place, &bytes).await.expect_err("is refused").to_string();
    assert!(told.contains("blobs has rows"), "{told}");
}

pub(crate) async fn the_description_of_the_tables_is_what_the_tables_are<P: Place>(place: P) {
    place.open().await.close().await;
    let mut conn = place.conn().await;
    let rows = status::run::<P::Words>(&mut conn, P::Words::CATALOG).await.expect("answers");
    let mut found = std::collections::BTreeMap::<String, Vec<(String, bool, Kind)>>::new();
    for row in &rows {
        let (table, column) = (text(row, 0).expect("a name").into_owned(), text(row, 1).expect("a name").into_owned());
        let kind = match &*text(row, 3).expect("a type") {
            "bigint" | "smallint" | "integer" => Kind::Int,
            "text" | "varbinary" | "longtext" => Kind::Text,
            "blob" | "bytea" | "longblob" => Kind::Bytes,
            _ if table == "_sqlx_migrations" => continue,
            other => panic!("{table}.{column}: {other}"),
        };
        found.entry(table).or_default().push((column, number(row, 2).expect("0 or 1") == 0, kind));
    }
    found.remove("_sqlx_migrations");
    for left in LEFT {
        assert!(found.remove(*left).is_some(), "{left}");
    }
    // It has one row, whose number says nothing.
    found.get_mut("head").expect("is there").remove(0);
    let described = TABLES.iter().map(|table| {
        let columns = table.insert.columns.iter();
        let columns = columns.map(|(name, kind)| ((*name).to_owned(), table.nullable.contains(name), *kind));
        (table.name().to_owned(), columns.collect::<Vec<_>>())
    });
    assert_eq!(found, described.collect(), "describe it in `whole::table`");
    conn.close().await.expect("closes");
}

pub(crate) async fn an_export_beside_writers_is_of_one_moment(place: impl Place) {
    let store = place.open().await;
    let (agent, made) = create("one");
    store.commit(counted(made, &TenantName::default_tenant())).await.expect("goes through");
    let done = CancellationToken::new();
    let writing = async {
        let mut written = 0;
        while !done.is_cancelled() {
            let commits = (0..4).map(|_| store.commit(accept(agent, message_id(), "hello")));
            for committed in join_all(commits).await {
                committed.expect("goes through");
            }
            written += 4;
        }
        written
    };
    let exporting = async {
        let mut heads = Vec::new();
        for _ in 0..5 {
            let (bytes, contents) = export(&place).await;
            let copy = Directory::new();
            assert_eq!(import(&copy, &bytes).await.expect("is whole"), contents);
            assert_eq!(flaws(&copy).await, Vec::<String>::new());
            heads.push(contents.tables.iter().find(|table| table.table == "log").map_or(0, |log| log.rows));
        }
        done.cancel();
        heads
    };
    let (written, heads) = tokio::join!(writing, exporting);
    assert!(heads.is_sorted() && heads.first() < heads.last(), "nobody wrote meanwhile: {heads:?} of {written}");
    store.close().await;
}

/// The tests of one kind of database, `$place` of which is made by `$with`.
macro_rules! tests {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name(Directory::new()).await;
                }
            )+
        }
        tests!(served postgres, crate::postgres::Postgres, "postgres", $($name),+, many_bring_an_old_schema_up_to_date_at_once, a_release_goes_on_with_tables_of_the_next_that_leave_it_at_work);
        tests!(served mariadb, crate::mysql::Mysql, "mariadb", $($name),+, many_bring_an_old_schema_up_to_date_at_once, a_release_goes_on_with_tables_of_the_next_that_leave_it_at_work);
        tests!(served mysql, crate::mysql::Mysql, "mysql", $($name),+, many_bring_an_old_schema_up_to_date_at_once, a_release_goes_on_with_tables_of_the_next_that_leave_it_at_work);
    };
    (served $module:ident, $dialect:ty, $kind:literal, $($name:ident),+) => {
        mod $module {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let test = |database| super::$name(Served::<$dialect>::new(database));
                    crate::sql::server::tests::on($kind, test).await;
                }
            )+
        }
    };
}

tests! {
    an_export_comes_back_as_it_was_and_the_store_goes_on,
    what_is_cut_changed_or_moved_is_refused_and_leaves_nothing,
    a_store_that_holds_something_takes_no_import,
    what_stands_beside_the_log_alone_takes_no_import_either,
    the_description_of_the_tables_is_what_the_tables_are,
    a_schema_of_a_newer_release_is_told_and_refused,
    where_nothing_is_that_is_told_and_a_migration_makes_it,
    an_export_beside_writers_is_of_one_moment,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_goes_around_all_databases_and_comes_back_the_same() {
    use crate::sql::server::tests::on;
    let (_, bytes, contents) = filled().await;
    on("postgres", |postgres| async move {
        let postgres = Served::<crate::postgres::Postgres>::new(postgres);
        assert_eq!(import(&postgres, &bytes).await.expect("is taken"), contents);
        on("mysql", |mysql| async move {
            let mysql = Served::<crate::mysql::Mysql>::new(mysql);
            assert_eq!(import(&mysql, &export(&postgres).await.0).await.expect("is taken"), contents);
            on("mariadb", |mariadb| async move {
                let mariadb = Served::<crate::mysql::Mysql>::new(mariadb);
                assert_eq!(import(&mariadb, &export(&mysql).await.0).await.expect("is taken"), contents);
                let back = Directory::new();
                assert_eq!(import(&back, &export(&mariadb).await.0).await.expect("is taken"), contents);
                assert_eq!(flaws(&back).await, Vec::<String>::new());
            })
            .await;
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn each_kind_of_flaw_is_found_and_named() {
    let (content, bytes, _) = filled().await;
    let whole_doc = "{\"not\": \"a document\"}";
    let broken_doc = |table: &str| format!("UPDATE {table} SET doc = '{whole_doc}'");
    let busy = content.busy.to_string();
    let cases = [
        ("UPDATE head SET revision = revision + 1".to_owned(), "log: it ends at revision"),
        ("UPDATE head SET oldest = revision + 2".to_owned(), "head "),
        ("UPDATE head SET commits = 3".to_owned(), "3 commits were made"),
        ("UPDATE agents SET state = 'slept'".to_owned(), "column state is not what its document says"),
        ("UPDATE agents SET live_name = NULL".to_owned(), "column live_name"),
        ("UPDATE agents SET due_at = 5".to_owned(), "column due_at"),
        (broken_doc("agents"), "agents "),
        ("DELETE FROM agent_labels WHERE name = 'Stage'".to_owned(), "agent_labels: they are not those"),
        ("UPDATE agent_labels SET value = 'z' WHERE name = 'Stage'".to_owned(), "agent_labels: they are not those"),
        ("UPDATE messages SET open_seq = seq".to_owned(), "column open_seq"),
        ("UPDATE messages SET open_seq = NULL".to_owned(), "column open_seq"),
        ("DELETE FROM messages WHERE seq = 2".to_owned(), "the one before it is 1"),
        (format!("DELETE FROM messages WHERE agent = '{busy}' AND seq > 20"), "its last message is 20"),
        (
            "UPDATE messages SET doc = replace(doc, '\"queued\"', '\"failed\"'), open_seq = NULL WHERE seq = 12"
                .to_owned(),
            "messages are queued",
        ),
        (broken_doc("messages"), "messages "),
        ("DELETE FROM steps WHERE seq = 2".to_owned(), "the one before it is 1"),
        ("DELETE FROM blob_refs".to_owned(), "blob_refs: they are not those of the messages"),
        ("UPDATE steps SET message = NULL".to_owned(), "column message"),
        ("UPDATE computers SET reclaim = 1 - reclaim".to_owned(), "column reclaim"),
        ("UPDATE records SET kind = 'nothing'".to_owned(), "records "),
        ("UPDATE records SET body = '{'".to_owned(), "records "),
        ("UPDATE quotas SET used = -1".to_owned(), "quotas "),
        ("UPDATE quotas SET used = used + 1".to_owned(), "quotas other agents: 3 agents are counted, and 2 were to be"),
        ("DELETE FROM quotas".to_owned(), "quotas default: it is not there, and 3 agents are to be counted"),
        ("DELETE FROM computers".to_owned(), "is not there"),
        ("DELETE FROM agents".to_owned(), "no agent has it"),
        (
            "UPDATE computers SET doc = replace(doc, '\"reclaim_since\":null', '\"reclaim_since\":\"2026-01-01T00:00:00Z\"')"
                .to_owned(),
            "its agent has it, and it is to be reclaimed",
        ),
        ("UPDATE quotas SET kind = 'nothing'".to_owned(), "quotas "),
        ("UPDATE answers SET expires = 1".to_owned(), "column expires"),
        ("DELETE FROM log WHERE revision = 3".to_owned(), "log 4: revision 3 was to be there first"),
        ("DELETE FROM log WHERE revision = 1".to_owned(), "log 2: revision 1 was to be there first"),
        ("UPDATE log SET agent = NULL".to_owned(), "column agent"),
        (broken_doc("commits"), "commits "),
        ("UPDATE audit SET at = 1".to_owned(), "column at"),
        ("UPDATE blobs SET size = size + 1 WHERE size > 0".to_owned(), "blob_chunks: their sizes"),
        ("DELETE FROM blob_chunks WHERE n = 1".to_owned(), "piece 1 was to be there first"),
        ("DELETE FROM blob_chunks WHERE n = 2".to_owned(), "its content is that of"),
        ("DELETE FROM blob_chunks".to_owned(), "or some are missing"),
        ("DELETE FROM blobs".to_owned(), "or some are missing"),
        ("UPDATE blob_chunks SET data = x'00' WHERE n = 0".to_owned(), "blobs "),
    ];
    for (statement, told) in cases {
        let place = Directory::new();
        import(&place, &bytes).await.expect("is taken");
        let mut conn = place.conn().await;
        let changed = sqlx::query(AssertSqlSafe(statement.clone())).execute(&mut conn).await.expect("is done");
        assert!(changed.rows_affected() > 0, "{statement}");
        conn.close().await.expect("closes");
        let found = flaws(&place).await;
        assert!(found.iter().any(|flaw| flaw.contains(told)), "{statement}: {found:#?}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_many_rows_is_counted_and_told_of_the_first() {
    let (_, bytes, _) = filled().await;
    let place = Directory::new();
    import(&place, &bytes).await.expect("is taken");
    run(&place, &["UPDATE log SET tenant = 'nobody'"]).await;
    let mut whole = place.whole(Access::Read).await;
    let verified = whole.verify(&quiet).await.expect("is looked at");
    whole.close().await;
    let events = verified.contents.tables.iter().find(|table| table.table == "log").expect("is there").rows;
    assert!(events > 50 && verified.flawed == events && verified.flaws.len() == 50, "{verified:?}");
}

#[tokio::test]
async fn a_store_that_is_looked_at_is_not_made_or_changed() {
    let place = Directory::new();
    let mut whole = place.whole(Access::Read).await;
    whole.status().await.expect("is told");
    whole.close().await;
    assert_eq!(std::fs::read_dir(place.0.path()).expect("is there").count(), 0);
}

#[test]
fn the_form_of_exports_has_another_number_where_the_tables_are_others() {
    let described: Vec<String> = TABLES
        .iter()
        .map(|table| {
            let columns: Vec<_> = table.columns().collect();
            format!("{} ({}) by {}", table.name(), columns.join(", "), table.order.join(", "))
        })
        .collect();
    let hash = raworc_core::blob::BlobId::of(described.join("\n").as_bytes()).to_string();
    // Where this fails: give the form its next number, and write down both.
    assert_eq!((super::format::VERSION, &hash[..19]), (1, "sha256:5236ac10d450"), "{described:#?}");
}
