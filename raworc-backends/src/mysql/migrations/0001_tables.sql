-- Rows are JSON documents of the core's types beside the columns that are looked up or counted. Documents are text: JSON's
-- own type would not keep them as they are. Times are microseconds since 1970, ids are UUIDs as text, '' in a key stands for
-- the installation. Texts that are looked up or sorted are bytes, with
-- no rules of a language and no padding.

CREATE TABLE head (
    id SMALLINT NOT NULL PRIMARY KEY,
    revision BIGINT NOT NULL,
    oldest BIGINT NOT NULL,
    commits BIGINT NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
INSERT INTO head (id, revision, oldest, commits) VALUES (1, 0, 1, 0);

-- awake_until and heard_at move between commits and hold more than the document does.
CREATE TABLE agents (
    id VARBINARY(36) NOT NULL PRIMARY KEY,
    tenant VARBINARY(255) NOT NULL,
    live_name VARBINARY(255),
    owner VARBINARY(255) NOT NULL,
    state VARBINARY(16) NOT NULL,
    runtime VARBINARY(255) NOT NULL,
    due_at BIGINT,
    awake_until BIGINT,
    heard_at BIGINT,
    doc LONGTEXT NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
-- A deleted agent has no live_name, so that its name is free.
CREATE UNIQUE INDEX agents_live ON agents (tenant, live_name);
CREATE INDEX agents_owner ON agents (tenant, owner, live_name);
CREATE INDEX agents_state ON agents (tenant, state, live_name);
CREATE INDEX agents_due ON agents (runtime, due_at);

CREATE TABLE agent_labels (
    agent VARBINARY(36) NOT NULL,
    name VARBINARY(1024) NOT NULL,
    value VARBINARY(1024) NOT NULL,
    PRIMARY KEY (agent, name)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- open_seq is seq until the message ends.
CREATE TABLE messages (
    agent VARBINARY(36) NOT NULL,
    seq BIGINT NOT NULL,
    tenant VARBINARY(255) NOT NULL,
    id VARBINARY(36) NOT NULL UNIQUE,
    open_seq BIGINT,
    doc LONGTEXT NOT NULL,
    PRIMARY KEY (agent, seq)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE INDEX messages_open ON messages (agent, open_seq);

CREATE TABLE steps (
    agent VARBINARY(36) NOT NULL,
    seq BIGINT NOT NULL,
    tenant VARBINARY(255) NOT NULL,
    message VARBINARY(36),
    doc LONGTEXT NOT NULL,
    PRIMARY KEY (agent, seq)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE INDEX steps_message ON steps (agent, message, seq);

CREATE TABLE computers (
    id VARBINARY(36) NOT NULL PRIMARY KEY,
    tenant VARBINARY(255) NOT NULL,
    runtime VARBINARY(255) NOT NULL,
    reclaim BIGINT NOT NULL,
    doc LONGTEXT NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE INDEX computers_runtime ON computers (runtime, id);
CREATE INDEX computers_reclaim ON computers (runtime, reclaim, id);

CREATE TABLE records (
    kind VARBINARY(32) NOT NULL,
    tenant VARBINARY(255) NOT NULL,
    name VARBINARY(1024) NOT NULL,
    version BIGINT NOT NULL,
    expires BIGINT,
    body LONGTEXT NOT NULL,
    PRIMARY KEY (kind, tenant, name)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE INDEX records_expires ON records (expires);

CREATE TABLE quotas (
    tenant VARBINARY(255) NOT NULL,
    kind VARBINARY(32) NOT NULL,
    used BIGINT NOT NULL,
    PRIMARY KEY (tenant, kind)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE answers (
    principal VARBINARY(1024) NOT NULL,
    name VARBINARY(1024) NOT NULL,
    expires BIGINT NOT NULL,
    doc LONGTEXT NOT NULL,
    PRIMARY KEY (principal, name)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE INDEX answers_expires ON answers (expires);

CREATE TABLE log (
    revision BIGINT NOT NULL PRIMARY KEY,
    tenant VARBINARY(255) NOT NULL,
    agent VARBINARY(36),
    doc LONGTEXT NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- What recent commits came to, for those who send one again.
CREATE TABLE commits (
    seq BIGINT NOT NULL PRIMARY KEY,
    id VARBINARY(36) NOT NULL UNIQUE,
    at BIGINT NOT NULL,
    doc LONGTEXT NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE INDEX commits_at ON commits (at);

CREATE TABLE audit (
    seq BIGINT NOT NULL PRIMARY KEY,
    tenant VARBINARY(255) NOT NULL,
    revision BIGINT NOT NULL,
    at BIGINT NOT NULL,
    doc LONGTEXT NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE INDEX audit_tenant ON audit (tenant, seq);

CREATE TABLE leases (
    name VARBINARY(1024) NOT NULL PRIMARY KEY,
    holder VARBINARY(36) NOT NULL,
    epoch BIGINT NOT NULL,
    since BIGINT NOT NULL,
    expires BIGINT NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE INDEX leases_expires ON leases (expires);

CREATE TABLE blobs (
    tenant VARBINARY(255) NOT NULL,
    id VARBINARY(255) NOT NULL,
    size BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE blob_chunks (
    tenant VARBINARY(255) NOT NULL,
    id VARBINARY(255) NOT NULL,
    n BIGINT NOT NULL,
    data LONGBLOB NOT NULL,
    PRIMARY KEY (tenant, id, n)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
