-- Rows are JSON documents of the core's types beside the columns that are looked up or counted. Times are microseconds
-- since 1970, ids are UUIDs as text, '' in a key stands for the installation.

CREATE TABLE head (
    id SMALLINT NOT NULL PRIMARY KEY,
    revision BIGINT NOT NULL,
    oldest BIGINT NOT NULL,
    commits BIGINT NOT NULL
);
INSERT INTO head (id, revision, oldest, commits) VALUES (1, 0, 1, 0);

-- awake_until and heard_at move between commits and hold more than the document does.
CREATE TABLE agents (
    id TEXT NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL,
    live_name TEXT,
    owner TEXT NOT NULL,
    state TEXT NOT NULL,
    runtime TEXT NOT NULL,
    due_at BIGINT,
    awake_until BIGINT,
    heard_at BIGINT,
    doc TEXT NOT NULL
);
-- A deleted agent has no live_name, so that its name is free.
CREATE UNIQUE INDEX agents_live ON agents (tenant, live_name);
CREATE INDEX agents_owner ON agents (tenant, owner, live_name);
CREATE INDEX agents_state ON agents (tenant, state, live_name);
CREATE INDEX agents_due ON agents (runtime, due_at) WHERE due_at IS NOT NULL;

CREATE TABLE agent_labels (
    agent TEXT NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (agent, name)
) WITHOUT ROWID;

-- open_seq is seq until the message ends.
CREATE TABLE messages (
    agent TEXT NOT NULL,
    seq BIGINT NOT NULL,
    tenant TEXT NOT NULL,
    id TEXT NOT NULL UNIQUE,
    open_seq BIGINT,
    doc TEXT NOT NULL,
    PRIMARY KEY (agent, seq)
);
CREATE INDEX messages_open ON messages (agent, open_seq) WHERE open_seq IS NOT NULL;

CREATE TABLE steps (
    agent TEXT NOT NULL,
    seq BIGINT NOT NULL,
    tenant TEXT NOT NULL,
    message TEXT,
    doc TEXT NOT NULL,
    PRIMARY KEY (agent, seq)
);
CREATE INDEX steps_message ON steps (agent, message, seq) WHERE message IS NOT NULL;

CREATE TABLE computers (
    id TEXT NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL,
    runtime TEXT NOT NULL,
    reclaim SMALLINT NOT NULL,
    doc TEXT NOT NULL
);
CREATE INDEX computers_runtime ON computers (runtime, id);
CREATE INDEX computers_reclaim ON computers (runtime, id) WHERE reclaim = 1;

CREATE TABLE records (
    kind TEXT NOT NULL,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    version BIGINT NOT NULL,
    expires BIGINT,
    body TEXT NOT NULL,
    PRIMARY KEY (kind, tenant, name)
);
CREATE INDEX records_expires ON records (expires) WHERE expires IS NOT NULL;

CREATE TABLE quotas (
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    used BIGINT NOT NULL,
    PRIMARY KEY (tenant, kind)
) WITHOUT ROWID;

CREATE TABLE answers (
    principal TEXT NOT NULL,
    name TEXT NOT NULL,
    expires BIGINT NOT NULL,
    doc TEXT NOT NULL,
    PRIMARY KEY (principal, name)
);
CREATE INDEX answers_expires ON answers (expires);

CREATE TABLE log (
    revision INTEGER NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL,
    agent TEXT,
    doc TEXT NOT NULL
);

-- What recent commits came to, for those who send one again.
CREATE TABLE commits (
    seq INTEGER NOT NULL PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    at BIGINT NOT NULL,
    doc TEXT NOT NULL
);

CREATE TABLE audit (
    seq INTEGER NOT NULL PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    revision BIGINT NOT NULL,
    at BIGINT NOT NULL,
    doc TEXT NOT NULL
);
CREATE INDEX audit_tenant ON audit (tenant, seq);

CREATE TABLE leases (
    name TEXT NOT NULL PRIMARY KEY,
    holder TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    since BIGINT NOT NULL,
    expires BIGINT NOT NULL
) WITHOUT ROWID;

CREATE TABLE blobs (
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    size BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
) WITHOUT ROWID;

CREATE TABLE blob_chunks (
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    n BIGINT NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (tenant, id, n)
);
