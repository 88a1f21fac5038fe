//! Every statement, in one place, so that a test can ask the database how it would run each.

use raworc_core::labels::Requirement;
use raworc_core::store::AgentQuery;

macro_rules! statements {
    ($($name:ident = $text:literal;)+) => {
        $(pub(super) const $name: &str = $text;)+

        #[cfg(test)]
        pub(super) const ALL: &[(&str, &str)] = &[$((stringify!($name), $name)),+];
    };
}

// Lists of keys are bound as one JSON array, so that a statement is prepared once for any number of them.
statements! {
    HEAD = "SELECT revision, oldest, commits FROM head WHERE id = 1";
    VOID_LEASES = "DELETE FROM leases";
    CHECKPOINT = "PRAGMA wal_checkpoint(PASSIVE)";
    SET_HEAD = "UPDATE head SET revision = ?, oldest = ?, commits = ? WHERE id = 1";

    // What the writer loads. Several go together, so that each row ends with the word that tells what it is.
    LOAD_COMMITS = "SELECT id, doc, 'commit' FROM commits WHERE id IN (SELECT value FROM json_each(?))";
    LOAD_AGENTS = "SELECT awake_until, heard_at, doc, 'agent' FROM agents WHERE id IN (SELECT value FROM json_each(?))";
    LOAD_NAMES = "SELECT a.tenant, a.live_name, 'name' FROM json_each(?) k CROSS JOIN agents a \
        ON a.tenant = k.value ->> 0 AND a.live_name = k.value ->> 1";
    LOAD_MESSAGES = "SELECT doc, 'message' FROM messages WHERE id IN (SELECT value FROM json_each(?))";
    LOAD_OPEN = "SELECT m.doc, 'message' FROM json_each(?) k CROSS JOIN messages m \
        ON m.agent = k.value AND m.open_seq > 0";
    LOAD_COMPUTERS = "SELECT doc, 'computer' FROM computers WHERE id IN (SELECT value FROM json_each(?))";
    LOAD_RECORDS = "SELECT r.kind, r.tenant, r.name, r.version, r.expires, r.body, 'record' FROM json_each(?) k \
        CROSS JOIN records r ON r.kind = k.value ->> 0 AND r.tenant = k.value ->> 1 AND r.name = k.value ->> 2";
    LOAD_USAGE = "SELECT q.tenant, q.kind, q.used, 'usage' FROM json_each(?) k \
        CROSS JOIN quotas q ON q.tenant = k.value ->> 0 AND q.kind = k.value ->> 1";
    LOAD_ANSWERS = "SELECT a.principal, a.name, a.doc, 'answer' FROM json_each(?) k \
        CROSS JOIN answers a ON a.principal = k.value ->> 0 AND a.name = k.value ->> 1";
    LOAD_LEASES = "SELECT name, holder, epoch, since, expires, 'lease' FROM leases \
        WHERE name IN (SELECT value FROM json_each(?))";

    // Each element is [id, awake_until, heard_at, due_at].
    TOUCH_AGENTS = "UPDATE agents SET awake_until = k.value ->> 1, heard_at = k.value ->> 2, due_at = k.value ->> 3 \
        FROM json_each(?) k WHERE agents.id = k.value ->> 0";
    DELETE_LABELS = "DELETE FROM agent_labels WHERE agent IN (SELECT value FROM json_each(?))";
    DELETE_COMPUTERS = "DELETE FROM computers WHERE id IN (SELECT value FROM json_each(?))";
    DELETE_RECORD = "DELETE FROM records WHERE kind = ? AND tenant = ? AND name = ?";
    DELETE_BLOB = "DELETE FROM blobs WHERE tenant = ? AND id = ?";
    DELETE_CHUNKS = "DELETE FROM blob_chunks WHERE tenant = ? AND id = ?";

    FORGET_LOG = "DELETE FROM log WHERE revision < ?";
    FORGET_COMMITS = "DELETE FROM commits WHERE seq < (SELECT MIN(seq) FROM commits) + 512 AND at < ?";
    FORGET_ANSWERS = "DELETE FROM answers WHERE rowid < (SELECT MIN(rowid) FROM answers) + 512 AND expires <= ?";
    FORGET_RECORDS = "DELETE FROM records WHERE rowid IN \
        (SELECT rowid FROM records WHERE expires <= ? ORDER BY expires LIMIT 512)";
    FORGET_LEASES = "DELETE FROM leases WHERE expires <= ?";

    AGENT = "SELECT awake_until, heard_at, doc FROM agents WHERE tenant = ? AND live_name = ?";
    AGENT_BY_ID = "SELECT awake_until, heard_at, doc FROM agents WHERE id = ?";
    DUE = "SELECT id, due_at FROM agents WHERE runtime = ? AND due_at <= ? ORDER BY due_at LIMIT ?";
    MESSAGE = "SELECT doc FROM messages WHERE id = ? AND agent = ?";
    MESSAGES_UP = "SELECT doc FROM messages WHERE agent = ? AND seq > ? ORDER BY seq LIMIT ?";
    MESSAGES_DOWN = "SELECT doc FROM messages WHERE agent = ? AND seq < ? ORDER BY seq DESC LIMIT ?";
    OPEN_UP = "SELECT doc FROM messages WHERE agent = ? AND open_seq > ? ORDER BY open_seq LIMIT ?";
    OPEN_DOWN = "SELECT doc FROM messages WHERE agent = ? AND open_seq < ? ORDER BY open_seq DESC LIMIT ?";
    STEPS = "SELECT doc FROM steps WHERE agent = ? AND seq > ? ORDER BY seq LIMIT ?";
    STEPS_OF_MESSAGE = "SELECT doc FROM steps WHERE agent = ? AND message = ? AND seq > ? ORDER BY seq LIMIT ?";
    COMPUTER = "SELECT doc FROM computers WHERE id = ?";
    COMPUTERS = "SELECT doc FROM computers WHERE runtime = ? AND id > ? ORDER BY id LIMIT ?";
    COMPUTERS_TO_RECLAIM =
        "SELECT doc FROM computers WHERE runtime = ? AND reclaim = 1 AND id > ? ORDER BY id LIMIT ?";
    RECORD = "SELECT kind, tenant, name, version, expires, body FROM records \
        WHERE kind = ? AND tenant = ? AND name = ? AND (expires IS NULL OR expires > ?)";
    RECORDS = "SELECT kind, tenant, name, version, expires, body FROM records \
        WHERE kind = ? AND tenant = ? AND (expires IS NULL OR expires > ?) ORDER BY name";
    USAGE = "SELECT used FROM quotas WHERE tenant = ? AND kind = ?";
    AUDIT = "SELECT seq, doc FROM audit WHERE seq > ? ORDER BY seq LIMIT ?";
    AUDIT_OF_TENANT = "SELECT seq, doc FROM audit WHERE tenant = ? AND seq > ? ORDER BY seq LIMIT ?";
    LEASES = "SELECT name, holder, epoch, since, expires FROM leases \
        WHERE name >= ? AND name < ? AND expires > ? ORDER BY name";
    LOG = "SELECT revision, tenant, agent, doc FROM log WHERE revision > ? ORDER BY revision LIMIT ?";
    BLOB = "SELECT size FROM blobs WHERE tenant = ? AND id = ?";
    CHUNKS = "SELECT data FROM blob_chunks WHERE tenant = ? AND id = ? AND n >= ? AND n <= ? ORDER BY n";
}

/// An INSERT of one or more rows.
#[derive(Debug)]
pub(super) struct Insert {
    head: &'static str,
    pub(super) columns: usize,
    tail: &'static str,
}

impl Insert {
    /// The statement for so many rows.
    pub(super) fn text(&self, rows: usize) -> String {
        let mut row = "(?".to_owned();
        row.push_str(&",?".repeat(self.columns - 1));
        row.push(')');
        let mut text = String::with_capacity(self.head.len() + self.tail.len() + rows * (row.len() + 1));
        text.push_str(self.head);
        for n in 0..rows {
            if n > 0 {
                text.push(',');
            }
            text.push_str(&row);
        }
        text.push_str(self.tail);
        text
    }
}

macro_rules! inserts {
    ($($name:ident = $columns:literal, $head:literal, $tail:literal;)+) => {
        $(pub(super) const $name: Insert = Insert { head: $head, columns: $columns, tail: $tail };)+

        #[cfg(test)]
        pub(super) const INSERTS: &[(&str, Insert)] = &[$((stringify!($name), $name)),+];
    };
}

// An id that stands elsewhere already is an error, never another row's end: only a row's own key is upserted.
inserts! {
    PUT_AGENTS = 10, "INSERT INTO agents \
        (id, tenant, live_name, owner, state, runtime, due_at, awake_until, heard_at, doc) VALUES ",
        " ON CONFLICT (id) DO UPDATE SET live_name = excluded.live_name, state = excluded.state, \
        runtime = excluded.runtime, due_at = excluded.due_at, awake_until = excluded.awake_until, \
        heard_at = excluded.heard_at, doc = excluded.doc";
    // The same where less has changed: each column that is set has the indexes written anew that hold it.
    PUT_AGENTS_STATE = 10, "INSERT INTO agents \
        (id, tenant, live_name, owner, state, runtime, due_at, awake_until, heard_at, doc) VALUES ",
        " ON CONFLICT (id) DO UPDATE SET state = excluded.state, due_at = excluded.due_at, \
        awake_until = excluded.awake_until, heard_at = excluded.heard_at, doc = excluded.doc";
    PUT_AGENTS_DUE = 10, "INSERT INTO agents \
        (id, tenant, live_name, owner, state, runtime, due_at, awake_until, heard_at, doc) VALUES ",
        " ON CONFLICT (id) DO UPDATE SET due_at = excluded.due_at, awake_until = excluded.awake_until, \
        heard_at = excluded.heard_at, doc = excluded.doc";
    PUT_AGENTS_DOC = 10, "INSERT INTO agents \
        (id, tenant, live_name, owner, state, runtime, due_at, awake_until, heard_at, doc) VALUES ",
        " ON CONFLICT (id) DO UPDATE SET awake_until = excluded.awake_until, heard_at = excluded.heard_at, \
        doc = excluded.doc";
    PUT_LABELS = 3, "INSERT INTO agent_labels (agent, name, value) VALUES ", "";
    PUT_MESSAGES = 6, "INSERT INTO messages (agent, seq, tenant, id, open_seq, doc) VALUES ",
        " ON CONFLICT (agent, seq) DO UPDATE SET open_seq = excluded.open_seq, doc = excluded.doc";
    // The same for one that is open, as it was.
    PUT_OPEN_MESSAGES = 6, "INSERT INTO messages (agent, seq, tenant, id, open_seq, doc) VALUES ",
        " ON CONFLICT (agent, seq) DO UPDATE SET doc = excluded.doc";
    PUT_STEPS = 5, "INSERT INTO steps (agent, seq, tenant, message, doc) VALUES ", "";
    PUT_COMPUTERS = 5, "INSERT INTO computers (id, tenant, runtime, reclaim, doc) VALUES ",
        " ON CONFLICT (id) DO UPDATE SET reclaim = excluded.reclaim, doc = excluded.doc";
    PUT_RECORDS = 6, "INSERT INTO records (kind, tenant, name, version, expires, body) VALUES ",
        " ON CONFLICT (kind, tenant, name) DO UPDATE SET version = excluded.version, expires = excluded.expires, \
        body = excluded.body";
    PUT_USAGE = 3, "INSERT INTO quotas (tenant, kind, used) VALUES ",
        " ON CONFLICT (tenant, kind) DO UPDATE SET used = excluded.used";
    // One that is written again goes to the end, where those stand that are kept longest.
    PUT_ANSWERS = 4, "INSERT OR REPLACE INTO answers (principal, name, expires, doc) VALUES ", "";
    PUT_LOG = 4, "INSERT INTO log (revision, tenant, agent, doc) VALUES ", "";
    PUT_COMMITS = 4, "INSERT INTO commits (seq, id, at, doc) VALUES ", "";
    PUT_AUDIT = 5, "INSERT INTO audit (seq, tenant, revision, at, doc) VALUES ", "";
    PUT_LEASES = 5, "INSERT INTO leases (name, holder, epoch, since, expires) VALUES ",
        " ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, epoch = excluded.epoch, \
        since = excluded.since, expires = excluded.expires";
    PUT_BLOBS = 3, "INSERT INTO blobs (tenant, id, size) VALUES ", " ON CONFLICT (tenant, id) DO NOTHING";
    PUT_CHUNKS = 4, "INSERT INTO blob_chunks (tenant, id, n, data) VALUES ",
        " ON CONFLICT (tenant, id, n) DO NOTHING";
}

/// The statement for a list of agents, and the texts to bind between the tenant with the name after which the page
/// begins, and the limit.
pub(super) fn agents(query: &AgentQuery) -> (String, Vec<String>) {
    let mut text =
        "SELECT a.awake_until, a.heard_at, a.doc FROM agents a WHERE a.tenant = ? AND a.live_name > ?".to_owned();
    let mut binds = Vec::new();
    if let Some(owner) = &query.owner {
        text.push_str(" AND a.owner = ?");
        binds.push(owner.to_string());
    }
    if let Some(state) = query.state {
        text.push_str(" AND a.state = ?");
        binds.push(state.as_str().to_owned());
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
        text.push_str("EXISTS (SELECT 1 FROM agent_labels l WHERE l.agent = a.id AND l.name = ?");
        binds.push(key.clone());
        if let Some(value) = value {
            text.push_str(" AND l.value = ?");
            binds.push(value.clone());
        }
        text.push(')');
    }
    text.push_str(" ORDER BY a.live_name LIMIT ?");
    (text, binds)
}
