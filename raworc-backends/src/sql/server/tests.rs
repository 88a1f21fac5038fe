//! What the conformance suite cannot see of stores in database servers: plans of statements, faults, what is said of them.
//!
//! Where no server is, the tests say so to whoever runs them, and fail where it was to be there.

pub(crate) mod apart;
mod clocks;
pub(crate) mod database;
pub(crate) mod failover;
mod locks;
mod lost;
pub(crate) mod own;
mod plans;
pub(crate) mod processes;
mod returns;
mod unreadable;
mod watching;

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use raworc_core::agent::{AgentEvent, State};
use raworc_core::entropy::{Clock, EntropyExt, SystemClock, SystemEntropy};
use raworc_core::ids::{AgentName, Incarnation, Revision, TenantName};
use raworc_core::message::MESSAGE_LIMIT;
use raworc_core::store::{
    AgentChange, AgentOp, Change, Check, Commit, EventFilter, MessageQuery, Store, StoreError, Touch,
};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

pub(crate) use self::clocks::a_time_that_was_ahead_is_the_databases_again_though_nothing_is_written;
use self::database::Database;
pub(crate) use self::locks::{
    a_commit_that_has_waited_too_long_for_its_turn_is_told_and_made_when_it_is_sent_again,
    a_deadlock_with_somebody_else_costs_no_commit, a_pooler_is_noticed,
    what_comes_while_others_write_is_written_with_what_waits,
    who_finds_every_connection_in_use_is_told_and_reads_once_one_is_free,
};
pub(crate) use self::lost::{
    commits_whose_answers_are_lost_are_made_once_each, what_comes_while_a_batch_is_tried_again_is_another_batch,
    what_is_written_leaves_at_once, what_may_have_been_done_is_not_told_as_refused,
};
pub(crate) use self::plans::{Plan, a_statement_without_an_index_would_be_found, no_statement_reads_a_whole_table};
pub(crate) use self::returns::{
    who_watches_a_log_that_went_back_and_has_grown_since_is_told, who_watches_a_log_that_went_back_is_told,
};
pub(crate) use self::unreadable::{
    a_row_that_cannot_be_read_fails_those_alone_who_need_it,
    who_watches_is_told_of_an_event_that_cannot_be_read_and_hears_what_follows,
};
pub(crate) use self::watching::a_watcher_hears_of_what_another_process_commits;
use super::{DatabaseOptions, Server, usable};
use crate::sql::batch::Head;
use crate::sql::commits::{accept, change, create, message_id};
use crate::sql::convert::{int, number};
use crate::sql::purging;
use crate::sql::script::{Script, Step};
use crate::sql::store::SqlStore;

/// A kind of server, as its tests need it.
pub(crate) trait Tested: Server {
    /// How it carries out a statement.
    fn plan(conn: &mut Self::Connection, step: Step) -> impl Future<Output = Result<Plan, sqlx::Error>> + Send;

    /// The statement that has the database look at its tables anew.
    fn analyze(tables: &[&str]) -> String;

    /// Ends every connection to the database but that of whoever asks.
    fn cut(database: &Database) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// How it is asked for TLS.
    const TLS: apart::Words;

    /// Whether a connection is encrypted.
    fn is_encrypted(conn: &mut Self::Connection) -> impl Future<Output = Result<bool, sqlx::Error>> + Send;

    /// The address of a user who has all rights in the database, and none beside.
    fn url_of_a_plain_user(database: &Database) -> impl Future<Output = Result<String, sqlx::Error>> + Send;

    /// The address of a user with the same rights, whom a server of the test's own lets in with a certificate only.
    fn url_of_a_certified_user(database: &Database) -> impl Future<Output = Result<String, sqlx::Error>> + Send;

    /// Has a plain user read only, or write again.
    fn read_only(database: &Database, is: bool) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// A server that follows this one, whose commits are at both before they are confirmed from now on.
    fn standby(kind: &'static str, primary: &own::Own) -> impl Future<Output = own::Own> + Send;

    /// Has such a server take the place of the one that it followed.
    fn promote(standby: &own::Own) -> impl Future<Output = ()> + Send;

    /// What a store's commit has in it, and nothing else.
    const COMMITS: &'static [u8];

    /// What has a server end the other one of two transactions that wait for each other, within the one that says it.
    const SPARED: &'static str;

    /// What has a server read statements otherwise than it does by itself, and what takes that back.
    const OTHERWISE: (&'static str, &'static str);

    /// What has nobody else read agents, and what takes that back.
    const AGENTS_LOCKED: (&'static str, &'static str);

    /// A statement that takes so long.
    const TWENTY_SECONDS: &'static str;

    /// What has a server end what takes longer than a second, and what takes that back.
    const LIMITS: (&'static str, &'static str);

    /// Asks how many such limits a session has.
    const LIMITS_LEFT: &'static str;

    /// Asks for a 0 that takes so long; where it is ended before, another number or an error is told.
    const TWO_SECONDS: &'static str;
}

/// The tests of one kind of server.
macro_rules! tests {
    // With a server of its own.
    (own $dialect:ty, $kind:literal: $($name:ident),+ $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            use $crate::sql::server::tests::apart;
            apart::on($kind, apart::$name::<$dialect>).await;
        }
    )+};
    // With two servers of its own.
    (failover $dialect:ty, $kind:literal: $($name:ident),+ $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            $crate::sql::server::tests::failover::$name::<$dialect>($kind).await;
        }
    )+};
    // With processes of its own.
    (processes $dialect:ty, $kind:literal) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn nothing_is_missed_or_seen_twice_while_32_writers_of_four_processes_commit() {
            let child = concat!(module_path!(), "::child_that_writes_and_watches");
            let test = |database| $crate::sql::server::tests::processes::watch_while_others_write::<$dialect>(database, child);
            $crate::sql::server::tests::on($kind, test).await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn child_that_writes_and_watches() {
            $crate::sql::server::tests::processes::write_and_watch::<$dialect>().await;
        }
    };
    ($dialect:ty, $kind:literal: $($name:ident),+ $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            $crate::sql::server::tests::on($kind, $crate::sql::server::tests::$name::<$dialect>).await;
        }
    )+};
    ($dialect:ty, $kind:literal) => {
        $crate::sql::server::tests::tests!($dialect, $kind:
            no_statement_reads_a_whole_table,
            a_statement_without_an_index_would_be_found,
            commits_whose_connections_are_cut_are_made_once_each,
            who_reads_notices_nothing_of_connections_that_were_cut,
            what_is_written_leaves_at_once,
            who_holds_the_head_and_is_silent_holds_up_the_others_for_seconds_only,
            many_open_an_empty_database_at_once,
            what_is_wrong_with_an_address_is_said_without_the_password,
            a_database_of_a_newer_release_is_refused,
            a_watcher_hears_of_what_another_process_commits,
            a_name_that_is_freed_and_taken_in_one_batch_is_the_new_agents,
            who_watches_a_log_that_went_back_is_told,
            who_watches_a_log_that_went_back_and_has_grown_since_is_told,
            a_time_that_was_ahead_is_the_databases_again_though_nothing_is_written,
            agents_of_any_number_are_looked_up_at_once,
            a_store_that_is_dropped_ends_what_is_watched,
            many_rows_go_a_few_at_a_time_while_others_write,
            a_deadlock_with_somebody_else_costs_no_commit,
            a_commit_that_has_waited_too_long_for_its_turn_is_told_and_made_when_it_is_sent_again,
            what_comes_while_others_write_is_written_with_what_waits,
            who_finds_every_connection_in_use_is_told_and_reads_once_one_is_free,
            a_pooler_is_noticed,
            commits_whose_answers_are_lost_are_made_once_each,
            what_may_have_been_done_is_not_told_as_refused,
            what_comes_while_a_batch_is_tried_again_is_another_batch,
            the_largest_messages_go_through_together,
            a_row_that_cannot_be_read_fails_those_alone_who_need_it,
            who_watches_is_told_of_an_event_that_cannot_be_read_and_hears_what_follows,
            what_is_too_old_is_taken_away_and_what_is_to_be_kept_stays,
        );
        $crate::sql::server::tests::tests!(own $dialect, $kind:
            tls_is_as_the_address_asks_for_it,
            a_certificate_of_ones_own_is_shown,
            commits_over_a_server_that_is_killed_are_made_once_each,
            what_may_only_be_read_is_told_and_goes_on_once_it_may_be_written_to,
            a_server_that_is_set_up_otherwise_keeps_texts_as_they_are,
            who_works_on_all_of_a_store_takes_as_long_as_it_takes_whatever_limits_there_are,
        );
        $crate::sql::server::tests::tests!(failover $dialect, $kind:
            commits_over_a_server_that_another_takes_the_place_of_are_made_once_each,
            a_server_that_takes_no_writes_any_more_is_left_by_who_reads_too,
            who_writes_to_another_server_than_before_reads_there_too,
        );
        $crate::sql::server::tests::tests!(processes $dialect, $kind);
    };
}
pub(crate) use tests;

/// Runs a test with a database of a kind of server, if there is one.
pub(crate) async fn on<F: Future<Output = ()>>(kind: &str, test: impl FnOnce(Database) -> F) {
    match database::server(kind) {
        Ok(server) => Database::with(&server, test).await,
        Err(lack) => not_tested(kind, &lack),
    }
}

/// Says that a kind of server is not there, and fails where it was to be.
pub(crate) fn not_tested(kind: &str, lack: &str) {
    use std::io::Write;
    let required = std::env::var("RAWORC_TEST_BACKENDS").unwrap_or_default();
    assert!(!required.split(',').any(|name| name == kind), "{lack}");
    // Past what the test harness keeps for failures.
    writeln!(std::io::stderr(), "NOT TESTED on this machine: {lack}").expect("is written");
}

/// A connection as a store has it.
async fn a_connection<D: Server>(database: &Database) -> D::Connection {
    let options = DatabaseOptions::new(database.url());
    let (to, place) = D::options(&options).expect("an address");
    usable::<D>(&options, to, &place).await.expect("answers").conn
}

async fn open<D: Server>(database: &Database) -> SqlStore<D> {
    SqlStore::<D>::open(DatabaseOptions::new(database.url())).await.expect("the database can be used")
}

pub(crate) async fn commits_whose_connections_are_cut_are_made_once_each<D: Tested>(database: Database) {
    let cut = async |database: Database| {
        D::cut(&database).await.expect("the user may end connections");
        sleep(Duration::from_millis(150)).await;
    };
    made_once_each::<D>(database, 3, cut).await;
}

pub(crate) async fn who_reads_notices_nothing_of_connections_that_were_cut<D: Tested>(database: Database) {
    let store = open::<D>(&database).await;
    let (agent, made) = create("one");
    store.commit(made).await.expect("goes through");
    let open = MessageQuery::of(agent);
    for _ in 0..4 {
        // Over several connections at once, each of which has answered a moment ago when it is cut.
        for _ in 0..2 {
            let reads = (0..8).map(|_| store.agent_by_id(agent));
            for read in futures::future::join_all(reads).await {
                assert!(read.expect("is read").value.is_some());
            }
            D::cut(&database).await.expect("the user may end connections");
        }
        store.messages(&open).await.expect("are read");
    }
    store.close().await;
}

/// A store in a database that may have been disturbed in this very moment.
async fn once_it_answers<D: Tested>(database: &Database) -> SqlStore<D> {
    let opened = async {
        loop {
            match SqlStore::<D>::open(DatabaseOptions::new(database.url())).await {
                Err(error) if error.is_retryable() => sleep(Duration::from_millis(100)).await,
                opened => return opened.expect("the database can be used"),
            }
        }
    };
    timeout(Duration::from_secs(60), opened).await.expect("answers again")
}

/// Commits from many tasks over two stores, while something is done to the database again and again, so many times at least.
pub(crate) async fn made_once_each<D: Tested>(database: Database, least: usize, disturb: impl AsyncFn(Database)) {
    const EACH: usize = 40;
    let stores = [Arc::new(open::<D>(&database).await), Arc::new(open::<D>(&database).await)];
    let (agent, made) = create("one");
    stores[0].commit(made).await.expect("goes through");
    let (times, made) = (watch::Sender::new(0), watch::Sender::new(0_u64));
    let writers = (0..8).map(|n| {
        let (store, times, made) = (Arc::clone(&stores[n % 2]), times.subscribe(), made.clone());
        tokio::spawn(async move {
            let mut seen = Vec::new();
            while seen.len() < EACH || *times.borrow() < least {
                let commit = accept(agent, message_id(), "hello");
                // As a caller does that is told that the outcome is not known.
                let committed = loop {
                    match store.commit(commit.clone()).await {
                        Ok(committed) => break committed,
                        Err(error) if error.is_retryable() => {}
                        Err(error) => panic!("{error}"),
                    }
                };
                seen.push(committed.messages[0].seq);
                made.send_modify(|made| *made += 1);
            }
            seen
        })
    });
    let writers = join_all(writers);
    let mut progress = made.subscribe();
    let disturbing = async {
        loop {
            disturb(database.clone()).await;
            times.send_modify(|times| *times += 1);
            let before = *made.borrow();
            progress.wait_for(|made| *made > before + 8).await.expect("it is held here");
        }
    };
    let written = tokio::select! {
        written = writers => written,
        () = disturbing => Vec::new(),
    };
    let mut seen = BTreeSet::new();
    for writer in written {
        for seq in writer.expect("no writer panics") {
            assert!(seen.insert(seq), "message {seq} was given twice");
        }
    }
    let (times, all) = (*times.borrow(), seen.len() as u64);
    assert!(times >= least, "{times} times only");
    assert!(all >= 8 * EACH as u64, "{all} messages only");
    assert_eq!(seen.last(), Some(&all), "none is missing after {times} times");
    let fresh = once_it_answers::<D>(&database).await;
    assert_eq!(fresh.head().await.expect("answers").value, Revision(all + 1), "one event each, and one of the agent");
    let inbox = fresh.agent_by_id(agent).await.expect("answers").value.expect("is there").inbox;
    assert_eq!(inbox.last_seq, all);
    for store in stores {
        store.close().await;
    }
    fresh.close().await;
}

pub(crate) async fn who_holds_the_head_and_is_silent_holds_up_the_others_for_seconds_only<D: Tested>(
    database: Database,
) {
    let store = open::<D>(&database).await;
    let head = store.shared.head().await.expect("answers").value;
    let mut silent = a_connection::<D>(&database).await;
    D::begin(&mut silent, head, &store.shared.time, Script::default()).await.expect("begins");
    let began = Instant::now();
    let (_, made) = create("one");
    timeout(Duration::from_secs(60), store.commit(made)).await.expect("in time").expect("goes through");
    // It did have to wait, or nobody held anything.
    assert!(began.elapsed() > Duration::from_secs(1), "after {:?}", began.elapsed());
    let mut late = Script::default();
    late.add("DELETE FROM leases", []);
    D::run(&mut silent, late).await.map(drop).expect_err("its transaction is over");
    store.close().await;
}

pub(crate) async fn many_open_an_empty_database_at_once<D: Tested>(database: Database) {
    let opened = join_all((0..6).map(|_| open::<D>(&database))).await;
    let commits = opened.iter().enumerate().map(|(n, store)| store.commit(create(&format!("agent-{n}")).1));
    for committed in join_all(commits).await {
        committed.expect("goes through");
    }
    for store in opened {
        assert_eq!(store.head().await.expect("answers").value, Revision(6));
        store.close().await;
    }
}

pub(crate) async fn what_is_wrong_with_an_address_is_said_without_the_password<D: Tested>(database: Database) {
    let url = database.url();
    let (scheme, rest) = url.split_once("://").expect("an address");
    let (user, rest) = rest.split_once('@').expect("a user");
    let (name, password) = user.split_once(':').expect("a password");
    let (host, _) = rest.rsplit_once('/').expect("a database");
    let wrong = [
        (format!("{scheme}://{name}:not-it-at-all@{rest}"), "password"),
        (format!("{scheme}://{user}@{host}/raworc_test_of_nobody"), "does not exist"),
        (format!("{scheme}://{user}@127.0.0.1:1/raworc"), "127.0.0.1:1"),
        (format!("{scheme}://{user}@{host}:not-a-port/raworc"), "address"),
    ];
    for (url, part) in wrong {
        let error = SqlStore::<D>::open(DatabaseOptions::new(&url)).await.expect_err("cannot be opened");
        let told = error.to_string();
        assert!(told.contains(part), "{told}");
        assert!(!told.contains(password) && !told.contains("not-it-at-all"), "{told}");
        let unreachable = matches!(error, StoreError::Unavailable { .. });
        assert_eq!(unreachable, part == "127.0.0.1:1", "{error:?}");
    }
    let apart = format!("{scheme}://{name}@{rest}");
    let options = DatabaseOptions::new(apart).with_password(password);
    SqlStore::<D>::open(options).await.expect("the password may come apart").close().await;
}

pub(crate) async fn a_database_of_a_newer_release_is_refused<D: Tested>(database: Database) {
    open::<D>(&database).await.close().await;
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
        VALUES (99, 'from the future', TRUE, '', 0)";
    database.run(newer).await.expect("is written");
    let error = SqlStore::<D>::open(DatabaseOptions::new(database.url())).await.expect_err("cannot be used");
    let told = error.to_string();
    assert!(matches!(error, StoreError::Unusable { .. }), "{error:?}");
    assert!(told.contains("newer release") && told.contains("99"), "{told}");
}

pub(crate) async fn a_name_that_is_freed_and_taken_in_one_batch_is_the_new_agents<D: Tested>(database: Database) {
    let store = open::<D>(&database).await;
    let (_, made) = create("one");
    let [Change::Agent(template)] = &made.changes[..] else { panic!("one change") };
    let at = |seconds: i64| SystemEntropy.agent_id(SystemClock.now() + jiff::SignedDuration::from_secs(seconds));
    // In the order of ids, in which rows are written, the new one comes first.
    let (old, new) = (at(3600), at(0));
    let create = |agent| {
        let change = AgentChange { agent, ..template.clone() };
        Commit::of(SystemEntropy.commit_id(SystemClock.now()), change)
    };
    store.commit(create(old)).await.expect("goes through");
    let delete = AgentOp::Transition {
        event: AgentEvent::DeleteAsked,
        reason: "DeleteAsked".into(),
        message: String::new(),
        backoff: None,
    };
    // Both are queued before the writer runs, so that they meet in one batch.
    let (deleted, made) = tokio::join!(store.commit(change(old, Check::Alive, delete)), store.commit(create(new)));
    deleted.expect("goes through");
    made.expect("goes through");
    let name = AgentName::new("one").expect("a good name");
    let found = store.agent(&TenantName::default_tenant(), &name).await.expect("answers").value.expect("is there");
    assert_eq!(found.id, new);
    let gone = store.agent_by_id(old).await.expect("answers").value.expect("is kept");
    assert_eq!((gone.id, gone.status.state()), (old, State::Deleted));
    store.close().await;
}

pub(crate) async fn the_largest_messages_go_through_together<D: Tested>(database: Database) {
    const COUNT: u64 = 24;
    let store = open::<D>(&database).await;
    let (agent, made) = create("one");
    store.commit(made).await.expect("goes through");
    let text = "\u{1f980}".repeat(MESSAGE_LIMIT / 4);
    // Those that wait while the first is written are one batch, larger than servers take a packet to be.
    let commits = (0..COUNT).map(|_| async {
        let commit = accept(agent, message_id(), &text);
        // A busy machine may not write as much in one batch in time: the next ones are smaller.
        while let Err(error) = store.commit(commit.clone()).await {
            assert!(error.is_retryable(), "{error:?}");
        }
    });
    timeout(Duration::from_secs(120), join_all(commits)).await.expect("all are written");
    let messages = store.messages(&MessageQuery::of(agent)).await.expect("answers").items;
    assert!(messages.iter().all(|message| message.text() == text), "as they were sent");
    assert_eq!(store.head().await.expect("answers").value, Revision(COUNT + 1));
    store.close().await;
}

pub(crate) async fn agents_of_any_number_are_looked_up_at_once<D: Tested>(database: Database) {
    let store = open::<D>(&database).await;
    let touch = |agent| Touch { agent, incarnation: Incarnation(1), heartbeat: true, awake_for: None };
    let touches: Vec<_> = (0..40_000).map(|_| touch(SystemEntropy.agent_id(SystemClock.now()))).collect();
    let without_effect = store.touch(&touches).await.expect("are taken");
    assert_eq!(without_effect.len(), touches.len(), "none of them is there");
    store.close().await;
}

pub(crate) async fn a_store_that_is_dropped_ends_what_is_watched<D: Tested>(database: Database) {
    let store = open::<D>(&database).await;
    let mut log = store.watch(Revision(0), EventFilter::default()).await.expect("begins");
    drop(store);
    let told = timeout(Duration::from_secs(30), log.next()).await.expect("it ends");
    assert!(told.is_none(), "{told:?}");
}

pub(crate) async fn many_rows_go_a_few_at_a_time_while_others_write<D: Tested>(database: Database) {
    let store = Arc::new(open::<D>(&database).await);
    purging::many_rows_go_a_few_at_a_time_while_others_write(Arc::clone(&store)).await;
    store.close().await;
}

pub(crate) async fn what_is_too_old_is_taken_away_and_what_is_to_be_kept_stays<D: Tested>(database: Database) {
    let mut options = DatabaseOptions::new(database.url());
    (options.keep_events, options.keep_commits) = (100, Duration::ZERO);
    // By two of which each takes away some, over what the other has left.
    let stores = [
        SqlStore::<D>::open(options.clone()).await.expect("can be used"),
        SqlStore::<D>::open(options).await.expect("can be used"),
    ];
    let (agent, made) = create("one");
    stores[0].commit(made).await.expect("goes through");
    for n in 0..1200_usize {
        stores[n / 200 % 2].commit(accept(agent, message_id(), "hello")).await.expect("goes through");
    }
    let Head { revision, oldest, .. } = stores[0].shared.head().await.expect("answers").value;
    assert!(oldest.0 + 99 <= revision.0 && oldest.0 + 400 > revision.0, "it begins at {oldest} and ends at {revision}");
    for (table, first, most) in [("log", "MIN(revision)", 400), ("commits", "MIN(seq)", 400)] {
        let mut script = Script::default();
        script.0.push(Step::Plain(format!("SELECT {first}, COUNT(*) FROM {table}").into(), Vec::new()));
        let rows = stores[0].shared.run(script).await.expect("answers");
        let [first, count] = [0, 1].map(|at| number(&rows[0], at).expect("a number"));
        assert!(count < most, "{count} rows of {table} are kept");
        assert!(table != "log" || first == int(oldest.0), "the log begins at {first}");
    }
    for store in stores {
        store.close().await;
    }
}
