//! Every statement that is the same for all databases, in one place, so that a test can ask each how it would run it.
//!
//! A few words differ and are put in by a [`Dialect`](super::dialect::Dialect): `{keys}` is a table `k` of the keys that
//! are bound, with the columns `a`, `b` and so on; `{join}` joins it so that the keys come first; `{now}` is the
//! database's time in microseconds, where the database is the one that tells the time.

use raworc_core::labels::Requirement;
use raworc_core::store::AgentQuery;

use super::script::{Cell, Step};

macro_rules! statements {
    ($($name:ident = $text:literal;)+) => {
        $(pub(crate) const $name: &str = $text;)+

        #[cfg(test)]
        pub(crate) const ALL: &[(&str, &str)] = &[$((stringify!($name), $name)),+];
    };
}

statements! {
    HEAD = "SELECT revision, oldest, commits, {now} FROM head WHERE id = 1";
    SET_HEAD = "UPDATE head SET revision = ?, oldest = ?, commits = ? WHERE id = 1";

    DELETE_RECORD = "DELETE FROM records WHERE kind = ? AND tenant = ? AND name = ?";
    DELETE_BLOB = "DELETE FROM blobs WHERE tenant = ? AND id = ?";
    DELETE_CHUNKS = "DELETE FROM blob_chunks WHERE tenant = ? AND id = ?";
    // Not from the first on that there ever was: beside a long snapshot, indexes lead to what was taken away, too.
    FORGET_LOG = "DELETE FROM log WHERE revision >= ? AND revision < ?";
    OLDEST_COMMIT = "SELECT MIN(seq) FROM commits WHERE seq >= ?";
    FORGET_COMMITS = "DELETE FROM commits WHERE seq >= ? AND seq < ? AND at < ?";
    FORGET_LEASES = "DELETE FROM leases WHERE expires <= ?";
    FORGET_MESSAGES = "DELETE FROM messages WHERE agent = ? AND seq <= ?";
    FORGET_STEPS = "DELETE FROM steps WHERE agent = ? AND seq <= ?";
    FORGET_AUDIT = "DELETE FROM audit WHERE seq <= ?";
    FORGET_AGENT = "DELETE FROM agents WHERE id = ?";
    FORGET_REFERENCES = "DELETE FROM blob_refs WHERE agent = ? AND seq <= ?";
    // One that was put after somebody referred to it is idle by its row alone.
    FORGET_BLOB = "DELETE FROM blobs WHERE tenant = ? AND id = ? AND idle_since <= ? AND NOT EXISTS \
        (SELECT 1 FROM blob_refs r WHERE r.tenant = blobs.tenant AND r.content = blobs.id)";
    // Those of a blob that is there after all, because somebody has put it once more, stay.
    FORGET_PIECES = "DELETE FROM blob_chunks WHERE tenant = ? AND id = ? AND NOT EXISTS \
        (SELECT 1 FROM blobs b WHERE b.tenant = blob_chunks.tenant AND b.id = blob_chunks.id)";
    USE_BLOB = "UPDATE blobs SET idle_since = NULL WHERE tenant = ? AND id = ?";
    PUT_BLOB_AGAIN = "UPDATE blobs SET idle_since = ? WHERE tenant = ? AND id = ? AND idle_since IS NOT NULL";
    LEAVE_BLOB = "UPDATE blobs SET idle_since = ? WHERE tenant = ? AND id = ? AND NOT EXISTS \
        (SELECT 1 FROM blob_refs r WHERE r.tenant = blobs.tenant AND r.content = blobs.id)";

    AGENT = "SELECT awake_until, heard_at, doc, {now} FROM agents WHERE tenant = ? AND live_name = ?";
    AGENT_BY_ID = "SELECT awake_until, heard_at, doc, {now} FROM agents WHERE id = ?";
    DUE = "SELECT id, due_at FROM agents WHERE runtime = ? AND due_at <= ? ORDER BY due_at LIMIT ?";
    MESSAGE = "SELECT doc FROM messages WHERE id = ? AND agent = ?";
    // MySQL and MariaDB read what stands in these comments. They would look rows up by another index that begins alike, and sort
    // them, where those of one agent or one runtime are most of a table.
    MESSAGES_UP = "SELECT doc FROM messages /*! FORCE INDEX (PRIMARY) */ \
        WHERE agent = ? AND seq > ? ORDER BY seq LIMIT ?";
    MESSAGES_DOWN = "SELECT doc FROM messages /*! FORCE INDEX (PRIMARY) */ \
        WHERE agent = ? AND seq < ? ORDER BY seq DESC LIMIT ?";
    OPEN_UP = "SELECT doc FROM messages /*! FORCE INDEX (messages_open) */ \
        WHERE agent = ? AND open_seq > ? ORDER BY open_seq LIMIT ?";
    OPEN_DOWN = "SELECT doc FROM messages /*! FORCE INDEX (messages_open) */ \
        WHERE agent = ? AND open_seq < ? ORDER BY open_seq DESC LIMIT ?";
    STEPS = "SELECT doc FROM steps /*! FORCE INDEX (PRIMARY) */ WHERE agent = ? AND seq > ? ORDER BY seq LIMIT ?";
    STEPS_OF_MESSAGE = "SELECT doc FROM steps /*! FORCE INDEX (steps_message) */ \
        WHERE agent = ? AND message = ? AND seq > ? ORDER BY seq LIMIT ?";
    COMPUTER = "SELECT doc FROM computers WHERE id = ?";
    COMPUTERS = "SELECT doc FROM computers /*! FORCE INDEX (computers_runtime) */ \
        WHERE runtime = ? AND id > ? ORDER BY id LIMIT ?";
    COMPUTERS_TO_RECLAIM =
        "SELECT doc FROM computers /*! FORCE INDEX (computers_reclaim) */ \
        WHERE runtime = ? AND reclaim = 1 AND id > ? ORDER BY id LIMIT ?";
    RECORD = "SELECT kind, tenant, name, version, expires, body FROM records \
        WHERE kind = ? AND tenant = ? AND name = ? AND (expires IS NULL OR expires > ?)";
    RECORDS = "SELECT kind, tenant, name, version, expires, body FROM records \
        WHERE kind = ? AND tenant = ? AND (expires IS NULL OR expires > ?) ORDER BY name";
    USAGE = "SELECT used FROM quotas WHERE tenant = ? AND kind = ?";
    AUDIT = "SELECT seq, doc FROM audit WHERE seq > ? ORDER BY seq LIMIT ?";
    AUDIT_OF_TENANT = "SELECT seq, doc FROM audit WHERE tenant = ? AND seq > ? ORDER BY seq LIMIT ?";
    LEASES = "SELECT name, holder, epoch, since, expires, {now} FROM leases \
        WHERE name >= ? AND name < ? AND expires > ? ORDER BY name";
    LOG = "SELECT revision, tenant, agent, doc FROM log WHERE revision > ? ORDER BY revision LIMIT ?";
    AUDIT_TIMES = "SELECT seq, at FROM audit WHERE seq > ? ORDER BY seq LIMIT ?";
    // What of agents may be old: the first message, the first step, and the agent itself where it is deleted.
    OLDEST_OF_AGENTS = "SELECT t.id, (SELECT m.doc FROM messages m WHERE m.agent = t.id ORDER BY m.agent, m.seq LIMIT 1), \
        (SELECT s.doc FROM steps s WHERE s.agent = t.id ORDER BY s.agent, s.seq LIMIT 1), \
        CASE WHEN t.state = 'deleted' THEN t.doc END FROM agents t WHERE t.id > ? ORDER BY t.id LIMIT ?";
    IDLE_BLOBS = "SELECT tenant, id, size FROM blobs WHERE idle_since <= ? AND NOT EXISTS \
        (SELECT 1 FROM blob_refs r WHERE r.tenant = blobs.tenant AND r.content = blobs.id) ORDER BY idle_since LIMIT ?";
    BLOB = "SELECT size FROM blobs WHERE tenant = ? AND id = ?";
    CHUNKS = "SELECT data FROM blob_chunks WHERE tenant = ? AND id = ? AND n >= ? AND n <= ? ORDER BY n";
}

/// What kind of value a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A number.
    Int,
    /// A text.
    Text,
    /// Bytes.
    Bytes,
}
use Kind::{Bytes, Int, Text};

/// A statement over a list of keys.
#[derive(Debug)]
pub struct Keyed {
    /// The statement, with `{keys}` in it.
    pub text: &'static str,
    /// What each key consists of.
    pub columns: &'static [Kind],
    /// Whether it only reads, and its rows have the columns of all that do: see `LOADS`.
    pub loads: bool,
}

macro_rules! keyed {
    ($all:ident, $loads:literal: $($name:ident = [$($kind:ident),+], $text:literal;)+) => {
        $(pub(crate) const $name: &Keyed = &Keyed { text: $text, columns: &[$(Kind::$kind),+], loads: $loads };)+

        #[cfg(test)]
        pub(crate) const $all: &[(&str, &Keyed)] = &[$((stringify!($name), $name)),+];
    };
}

// What the writer loads for each batch. Several may become one statement, so that the rows of all have the same columns: three
// texts, two numbers, a document, and the word that tells what the row is. '' and 0 stand where there is nothing.
keyed! {
    LOADS, true:
    LOAD_COMMITS = [Text], "SELECT c.id, '', '', 0, 0, c.doc, 'commit' FROM {keys} {join} commits c ON c.id = k.a";
    LOAD_AGENTS = [Text],
        "SELECT t.id, '', '', t.awake_until, t.heard_at, t.doc, 'agent' FROM {keys} {join} agents t ON t.id = k.a";
    LOAD_NAMES = [Text, Text],
        "SELECT t.tenant, t.live_name, '', 0, 0, '', 'name' FROM {keys} \
        {join} agents t ON t.tenant = k.a AND t.live_name = k.b";
    LOAD_MESSAGES = [Text],
        "SELECT m.id, '', '', 0, 0, m.doc, 'message' FROM {keys} {join} messages m ON m.id = k.a";
    LOAD_OPEN = [Text],
        "SELECT m.id, '', '', 0, 0, m.doc, 'message' FROM {keys} \
        {join} messages m ON m.agent = k.a AND m.open_seq > 0";
    LOAD_COMPUTERS = [Text],
        "SELECT c.id, '', '', 0, 0, c.doc, 'computer' FROM {keys} {join} computers c ON c.id = k.a";
    LOAD_RECORDS = [Text, Text, Text],
        "SELECT r.kind, r.tenant, r.name, r.version, r.expires, r.body, 'record' FROM {keys} \
        {join} records r ON r.kind = k.a AND r.tenant = k.b AND r.name = k.c";
    LOAD_USAGE = [Text, Text],
        "SELECT q.tenant, q.kind, '', q.used, 0, '', 'usage' FROM {keys} \
        {join} quotas q ON q.tenant = k.a AND q.kind = k.b";
    LOAD_ANSWERS = [Text, Text],
        "SELECT t.principal, t.name, '', 0, 0, t.doc, 'answer' FROM {keys} \
        {join} answers t ON t.principal = k.a AND t.name = k.b";
}

keyed! {
    KEYED, false:
    LOAD_LEASES = [Text],
        "SELECT t.name, t.holder, t.epoch, t.since, t.expires, 'lease' FROM {keys} {join} leases t ON t.name = k.a";
    WHICH_ARE_OPEN = [Text], "SELECT m.id FROM {keys} {join} messages m ON m.id = k.a AND m.open_seq > 0";
}

/// An INSERT of one or more rows.
#[derive(Debug)]
pub struct Insert {
    /// The table.
    pub table: &'static str,
    /// Its columns, all of them.
    pub columns: &'static [(&'static str, Kind)],
    /// What becomes of a row whose key is there already.
    pub there: There,
}

/// What becomes of a row whose key is there already.
#[derive(Debug, Clone, Copy)]
pub enum There {
    /// The statement fails: there is to be none.
    Refused,
    /// It stays as it is. The key's columns.
    Kept(&'static [&'static str]),
    /// It takes up some columns of the new one. The key's columns, and those.
    Updated(&'static [&'static str], &'static [&'static str]),
    /// The new row takes its place, after all others. The key's columns, and the others.
    Replaced(&'static [&'static str], &'static [&'static str]),
}
use There::{Kept, Refused, Replaced, Updated};

impl Insert {
    /// The table and its columns, up to the rows.
    pub(crate) fn head(&self) -> String {
        let names: Vec<_> = self.columns.iter().map(|(name, _)| *name).collect();
        format!("{} ({}) VALUES ", self.table, names.join(", "))
    }

    /// What follows the rows, in the words that SQLite and Postgres share.
    pub(crate) fn on_conflict(&self) -> String {
        match self.there {
            Refused => String::new(),
            Kept(key) => format!(" ON CONFLICT ({}) DO NOTHING", key.join(", ")),
            Updated(key, set) | Replaced(key, set) => {
                let set: Vec<_> = set.iter().map(|name| format!("{name} = excluded.{name}")).collect();
                format!(" ON CONFLICT ({}) DO UPDATE SET {}", key.join(", "), set.join(", "))
            }
        }
    }
}

macro_rules! inserts {
    ($($name:ident = $table:literal, [$($column:ident $kind:ident),+], $there:expr;)+) => {
        $(pub(crate) const $name: &Insert =
            &Insert { table: $table, columns: &[$((stringify!($column), $kind)),+], there: $there };)+

        #[cfg(test)]
        pub(crate) const INSERTS: &[(&str, &Insert)] = &[$((stringify!($name), $name)),+];
    };
}

inserts! {
    PUT_AGENTS = "agents", [id Text, tenant Text, live_name Text, owner Text, state Text, runtime Text, due_at Int,
        awake_until Int, heard_at Int, doc Text],
        Updated(&["id"], &["live_name", "state", "runtime", "due_at", "awake_until", "heard_at", "doc"]);
    // The same where less has changed: each column that is set has the indexes written anew that hold it.
    PUT_AGENTS_STATE = "agents", [id Text, tenant Text, live_name Text, owner Text, state Text, runtime Text, due_at Int,
        awake_until Int, heard_at Int, doc Text],
        Updated(&["id"], &["state", "due_at", "awake_until", "heard_at", "doc"]);
    PUT_AGENTS_DUE = "agents", [id Text, tenant Text, live_name Text, owner Text, state Text, runtime Text, due_at Int,
        awake_until Int, heard_at Int, doc Text],
        Updated(&["id"], &["due_at", "awake_until", "heard_at", "doc"]);
    PUT_AGENTS_DOC = "agents", [id Text, tenant Text, live_name Text, owner Text, state Text, runtime Text, due_at Int,
        awake_until Int, heard_at Int, doc Text],
        Updated(&["id"], &["awake_until", "heard_at", "doc"]);
    PUT_NEW_AGENTS = "agents", [id Text, tenant Text, live_name Text, owner Text, state Text, runtime Text, due_at Int,
        awake_until Int, heard_at Int, doc Text], Refused;
    PUT_LABELS = "agent_labels", [agent Text, name Text, value Text], Refused;
    // What is new is an error where its id or its place is another row's, and never that row's end.
    PUT_NEW_MESSAGES = "messages", [agent Text, seq Int, tenant Text, id Text, open_seq Int, doc Text], Refused;
    PUT_MESSAGES = "messages", [agent Text, seq Int, tenant Text, id Text, open_seq Int, doc Text],
        Updated(&["agent", "seq"], &["open_seq", "doc"]);
    // The same for one that is open, as it was.
    PUT_OPEN_MESSAGES = "messages", [agent Text, seq Int, tenant Text, id Text, open_seq Int, doc Text],
        Updated(&["agent", "seq"], &["doc"]);
    PUT_STEPS = "steps", [agent Text, seq Int, tenant Text, message Text, doc Text], Refused;
    PUT_COMPUTERS = "computers", [id Text, tenant Text, runtime Text, reclaim Int, doc Text],
        Updated(&["id"], &["reclaim", "doc"]);
    PUT_RECORDS = "records", [kind Text, tenant Text, name Text, version Int, expires Int, body Text],
        Updated(&["kind", "tenant", "name"], &["version", "expires", "body"]);
    PUT_USAGE = "quotas", [tenant Text, kind Text, used Int], Updated(&["tenant", "kind"], &["used"]);
    // One that is written again goes to the end, where those stand that are kept longest.
    PUT_ANSWERS = "answers", [principal Text, name Text, expires Int, doc Text],
        Replaced(&["principal", "name"], &["expires", "doc"]);
    PUT_LOG = "log", [revision Int, tenant Text, agent Text, doc Text], Refused;
    PUT_COMMITS = "commits", [seq Int, id Text, at Int, doc Text], Refused;
    PUT_AUDIT = "audit", [seq Int, tenant Text, revision Int, at Int, doc Text], Refused;
    PUT_LEASES = "leases", [name Text, holder Text, epoch Int, since Int, expires Int],
        Updated(&["name"], &["holder", "epoch", "since", "expires"]);
    PUT_BLOBS = "blobs", [tenant Text, id Text, size Int, idle_since Int], Kept(&["tenant", "id"]);
    PUT_REFERENCES = "blob_refs", [agent Text, seq Int, tenant Text, content Text],
        Kept(&["agent", "seq", "tenant", "content"]);
    PUT_CHUNKS = "blob_chunks", [tenant Text, id Text, n Int, data Bytes], Kept(&["tenant", "id", "n"]);
}

/// The statement for a page of agents of so many rows at most.
pub(crate) fn agents(query: &AgentQuery, rows: i64) -> Step {
    let mut text =
        "SELECT t.awake_until, t.heard_at, t.doc FROM agents t WHERE t.tenant = ? AND t.live_name > ?".to_owned();
    let mut cells = vec![query.tenant.to_string().into(), query.after.clone().unwrap_or_default().into()];
    if let Some(owner) = &query.owner {
        text.push_str(" AND t.owner = ?");
        cells.push(owner.to_string().into());
    }
    if let Some(state) = query.state {
        text.push_str(" AND t.state = ?");
        cells.push(state.as_str().into());
    }
    for requirement in query.selector.requirements() {
        let (not, key, value) = match requirement {
            Requirement::Equals(key, value) => ("", key, Some(value)),
            Requirement::Differs(key, value) => ("NOT ", key, Some(value)),
            Requirement::Exists(key) => ("", key, None),
            Requirement::Absent(key) => ("NOT ", key, None),
        };
        text.push_str(" AND ");
        text.push_str(not);
        text.push_str("EXISTS (SELECT 1 FROM agent_labels l WHERE l.agent = t.id AND l.name = ?");
        cells.push(key.clone().into());
        if let Some(value) = value {
            text.push_str(" AND l.value = ?");
            cells.push(value.clone().into());
        }
        text.push(')');
    }
    text.push_str(" ORDER BY t.live_name LIMIT ?");
    cells.push(Cell::from(rows));
    Step::Plain(text.into(), cells)
}
