-- Which messages refer to which blobs.
CREATE TABLE blob_refs (
    agent TEXT NOT NULL,
    seq BIGINT NOT NULL,
    tenant TEXT NOT NULL,
    content TEXT NOT NULL,
    PRIMARY KEY (agent, seq, tenant, content)
) WITHOUT ROWID;
CREATE INDEX blob_refs_content ON blob_refs (tenant, content);

-- Since when no message refers to a blob; none while one does, and for those that an earlier release has put.
ALTER TABLE blobs ADD COLUMN idle_since BIGINT;
CREATE INDEX blobs_idle ON blobs (idle_since) WHERE idle_since IS NOT NULL;
