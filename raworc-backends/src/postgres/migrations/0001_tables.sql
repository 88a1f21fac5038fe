-- Rows are JSON documents of the core's types beside the columns that are looked up or counted. Documents are text: JSON's
-- own type would not keep every character. Times are microseconds since 1970, ids are UUIDs as text, '' in a key stands for
-- the installation. Texts that are looked up or sorted are so by their bytes.

CREATE TABLE head (
    id SMALLINT NOT NULL PRIMARY KEY,
    revision BIGINT NOT NULL,
    oldest BIGINT NOT NULL,
    commits BIGINT NOT NULL
) WITH (fillfactor = 20);
INSERT INTO head (id, revision, oldest, commits) VALUES (1, 0, 1, 0);

-- awake_until and heard_at move between commits and hold more than the document does.
CREATE TABLE agents (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    tenant TEXT COLLATE "C" NOT NULL,
    live_name TEXT COLLATE "C",
    owner TEXT COLLATE "C" NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    runtime TEXT COLLATE "C" NOT NULL,
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
    agent TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    value TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (agent, name)
);

-- open_seq is seq until the message ends.
CREATE TABLE messages (
    agent TEXT COLLATE "C" NOT NULL,
    seq BIGINT NOT NULL,
    tenant TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL UNIQUE,
    open_seq BIGINT,
    doc TEXT NOT NULL,
    PRIMARY KEY (agent, seq)
);
CREATE INDEX messages_open ON messages (agent, open_seq) WHERE open_seq IS NOT NULL;

CREATE TABLE steps (
    agent TEXT COLLATE "C" NOT NULL,
    seq BIGINT NOT NULL,
    tenant TEXT COLLATE "C" NOT NULL,
    message TEXT COLLATE "C",
    doc TEXT NOT NULL,
    PRIMARY KEY (agent, seq)
);
CREATE INDEX steps_message ON steps (agent, message, seq) WHERE message IS NOT NULL;

CREATE TABLE computers (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    tenant TEXT COLLATE "C" NOT NULL,
    runtime TEXT COLLATE "C" NOT NULL,
    reclaim BIGINT NOT NULL,
    doc TEXT NOT NULL
);
CREATE INDEX computers_runtime ON computers (runtime, id);
CREATE INDEX computers_reclaim ON computers (runtime, id) WHERE reclaim = 1;

CREATE TABLE records (
    kind TEXT COLLATE "C" NOT NULL,
    tenant TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    version BIGINT NOT NULL,
    expires BIGINT,
    body TEXT NOT NULL,
    PRIMARY KEY (kind, tenant, name)
);
CREATE INDEX records_expires ON records (expires) WHERE expires IS NOT NULL;

CREATE TABLE quotas (
    tenant TEXT COLLATE "C" NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    used BIGINT NOT NULL,
    PRIMARY KEY (tenant, kind)
);

CREATE TABLE answers (
    principal TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    expires BIGINT NOT NULL,
    doc TEXT NOT NULL,
    PRIMARY KEY (principal, name)
);
CREATE INDEX answers_expires ON answers (expires);

CREATE TABLE log (
    revision BIGINT NOT NULL PRIMARY KEY,
    tenant TEXT COLLATE "C" NOT NULL,
    agent TEXT COLLATE "C",
    doc TEXT NOT NULL
);

-- What recent commits came to, for those who send one again.
CREATE TABLE commits (
    seq BIGINT NOT NULL PRIMARY KEY,
    id TEXT COLLATE "C" NOT NULL UNIQUE,
    at BIGINT NOT NULL,
    doc TEXT NOT NULL
);

CREATE TABLE audit (
    seq BIGINT NOT NULL PRIMARY KEY,
    tenant TEXT COLLATE "C" NOT NULL,
    revision BIGINT NOT NULL,
    at BIGINT NOT NULL,
    doc TEXT NOT NULL
);
CREATE INDEX audit_tenant ON audit (tenant, seq);

CREATE TABLE leases (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    holder TEXT COLLATE "C" NOT NULL,
    epoch BIGINT NOT NULL,
    since BIGINT NOT NULL,
    expires BIGINT NOT NULL
);
CREATE INDEX leases_expires ON leases (expires);

CREATE TABLE blobs (
    tenant TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    size BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
);

CREATE TABLE blob_chunks (
    tenant TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    n BIGINT NOT NULL,
    data BYTEA NOT NULL,
    PRIMARY KEY (tenant, id, n)
);
