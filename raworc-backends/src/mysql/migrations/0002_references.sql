-- Which messages refer to which blobs.
CREATE TABLE blob_refs (
    agent VARBINARY(36) NOT NULL,
    seq BIGINT NOT NULL,
    tenant VARBINARY(255) NOT NULL,
    content VARBINARY(255) NOT NULL,
    PRIMARY KEY (agent, seq, tenant, content)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE INDEX blob_refs_content ON blob_refs (tenant, content);

-- Since when no message refers to a blob; none while one does, and for those that an earlier release has put.
ALTER TABLE blobs ADD COLUMN idle_since BIGINT;
CREATE INDEX blobs_idle ON blobs (idle_since);
