//! Which rows statements read, as the database plans it.

use std::collections::BTreeSet;

use bytes::Bytes;
use raworc_core::ids::TenantName;

use super::database::Database;
use super::{Tested, open};
use crate::sql::commits::agent_lists;
use crate::sql::script::{Cell, Script, Step};
use crate::sql::server::{DatabaseOptions, connect};
use crate::sql::statements::{self as sql, Kind};

pub(crate) async fn no_statement_reads_a_whole_table<D: Tested>(database: Database) {
    open::<D>(&database).await.close().await;
    let (to, _) = D::options(&DatabaseOptions::new(database.url())).expect("an address");
    let mut conn = connect::<D>(&to).await.expect("answers");
    fill::<D>(&mut conn).await;
    let tables: BTreeSet<_> = sql::INSERTS.iter().map(|(_, insert)| insert.table).collect();
    let tables: Vec<_> = tables.into_iter().collect();
    database.run(D::analyze(&tables)).await.expect("looks");
    let plain = |text: &'static str| {
        let mut cells = vec![Cell::from(1); text.matches('?').count()];
        if text.ends_with("LIMIT ?") {
            *cells.last_mut().expect("the limit") = 100.into();
        }
        Step::Plain(text.into(), cells)
    };
    let mut steps: Vec<_> = sql::ALL.iter().map(|(name, text)| ((*name).to_owned(), plain(text))).collect();
    steps.extend(D::FORGET_EXPIRED.map(|text| (text.to_owned(), plain(text))));
    let own = [
        ("TOUCH_AGENTS", D::TOUCH_AGENTS),
        ("DELETE_LABELS", D::DELETE_LABELS),
        ("DELETE_COMPUTERS", D::DELETE_COMPUTERS),
    ];
    for (name, keyed) in sql::KEYED.iter().chain(sql::LOADS).copied().chain(own) {
        steps.push((name.to_owned(), Step::Keyed(keyed, vec![1.into(); 2 * keyed.columns.len()])));
    }
    steps.extend(agent_lists());
    let (mut found, mut used) = (Vec::new(), BTreeSet::new());
    for (name, step) in steps {
        let plan = D::plan(&mut conn, step).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        found.extend(plan.faults.into_iter().map(|fault| format!("{name}: {fault}")));
        used.extend(plan.indexes);
    }
    assert!(found.is_empty(), "{found:#?}");
    // What would be read by another index, and most of it passed over, is told by none of that.
    let unused: Vec<_> = INDEXES.iter().filter(|index| !used.contains(**index)).collect();
    assert!(unused.is_empty(), "no statement reads by {unused:?}");
}

/// Indexes that tables have beside their primary keys, but for one that is for uniqueness alone and those of what is taken away
/// when it is old.
const INDEXES: [&str; 14] = [
    "agents_due",
    "agents_live",
    "agents_owner",
    "agents_state",
    "answers_expires",
    "audit_tenant",
    "blob_refs_content",
    "blobs_idle",
    "computers_reclaim",
    "computers_runtime",
    "leases_expires",
    "messages_open",
    "records_expires",
    "steps_message",
];

/// How a statement is carried out.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// What takes longer the more rows there are, however few are asked for.
    pub(crate) faults: Vec<String>,
    /// By which rows are looked up.
    pub(crate) indexes: Vec<String>,
}

/// Writes some rows to each table: what is empty is read whole whatever indexes there are.
async fn fill<D: Tested>(conn: &mut D::Connection) {
    let mut tables = BTreeSet::new();
    for (_, insert) in sql::INSERTS {
        if !tables.insert(insert.table) {
            continue;
        }
        let rows = (0..2000_i64).flat_map(|n| {
            // As it is: many tenants have an audit, and one has many agents, of which many have the same label, and one many
            // messages with some steps each.
            insert.columns.iter().map(move |(name, kind)| match (insert.table, *name, kind) {
                ("audit", "tenant", _) => n.to_string().into(),
                (_, "tenant", _) => TenantName::default_tenant().to_string().into(),
                ("agents", "runtime", _) => "1".into(),
                ("computers", "runtime", _) => (n % 4).to_string().into(),
                ("computers", "reclaim", _) => Cell::from(0),
                ("agent_labels", "name" | "value", _) => "a".into(),
                ("messages" | "steps", "agent", _) => "1".into(),
                ("steps", "message", _) => (n / 20).to_string().into(),
                (_, _, Kind::Int) => Cell::from(n),
                (_, _, Kind::Text) => Cell::from(n.to_string()),
                (_, _, Kind::Bytes) => Cell::Bytes(Bytes::from(n.to_string())),
            })
        });
        let mut script = Script::default();
        script.put(insert, rows);
        D::run(conn, script).await.unwrap_or_else(|error| panic!("{}: {error}", insert.table));
    }
}

pub(crate) async fn a_statement_without_an_index_would_be_found<D: Tested>(database: Database) {
    open::<D>(&database).await.close().await;
    let (to, _) = D::options(&DatabaseOptions::new(database.url())).expect("an address");
    let mut conn = connect::<D>(&to).await.expect("answers");
    for text in [
        "SELECT doc FROM messages WHERE doc = '1'",
        "SELECT doc FROM agents WHERE tenant = '1' ORDER BY doc",
        "DELETE FROM audit WHERE at < 1",
    ] {
        let plan = D::plan(&mut conn, Step::Plain(text.into(), Vec::new())).await.expect("is explained");
        assert!(!plan.faults.is_empty(), "{text}");
    }
}
