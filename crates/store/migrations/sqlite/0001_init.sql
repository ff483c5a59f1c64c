-- Times are milliseconds since 1970, sizes are bytes, booleans are 0 or 1.
-- STRICT makes SQLite refuse a value of the wrong type instead of keeping it.

CREATE TABLE job (
    id TEXT PRIMARY KEY NOT NULL,
    tenant TEXT NOT NULL,
    principal TEXT NOT NULL,
    state TEXT NOT NULL,
    state_json TEXT NOT NULL,
    version INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    node TEXT,
    spec TEXT NOT NULL,
    cancel_requested INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    queued_at_ms INTEGER,
    leased_at_ms INTEGER,
    started_at_ms INTEGER,
    finished_at_ms INTEGER,
    driver TEXT,
    sandbox_id TEXT,
    enforcement TEXT,
    usage_json TEXT,
    detail TEXT,
    stdout_json TEXT,
    stderr_json TEXT,
    report_hash TEXT
) STRICT;

CREATE INDEX job_by_tenant ON job (tenant, created_at_ms DESC, id DESC);
-- Only jobs that some node has; a finished job is in no index but the list's.
CREATE INDEX job_by_node ON job (node) WHERE state IN ('leased', 'running', 'stopping');

-- The narrow table that claims read; a row is here exactly as long as its job is queued.
CREATE TABLE queue (
    job_id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    pinned_node TEXT,
    not_before_ms INTEGER NOT NULL,
    queued_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX queue_by_time ON queue (queued_at_ms, job_id);
CREATE INDEX queue_by_tenant ON queue (tenant);

CREATE TABLE node (
    id TEXT PRIMARY KEY NOT NULL,
    name TEXT NOT NULL,
    incarnation TEXT NOT NULL,
    version TEXT NOT NULL,
    slots INTEGER NOT NULL,
    drivers TEXT NOT NULL,
    facts TEXT NOT NULL,
    state_json TEXT NOT NULL,
    lease_expires_at_ms INTEGER NOT NULL,
    registered_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE idempotency (
    tenant TEXT NOT NULL,
    principal TEXT NOT NULL,
    operation TEXT NOT NULL,
    key TEXT NOT NULL,
    request_hash TEXT NOT NULL,
    resource_id TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    PRIMARY KEY (tenant, principal, operation, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_by_time ON idempotency (created_at_ms);

CREATE TABLE event_inbox (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    resource TEXT NOT NULL,
    resource_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    kind TEXT NOT NULL,
    data TEXT NOT NULL,
    principal TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    UNIQUE (resource, resource_id, version)
) STRICT;

CREATE TABLE output_segment (
    job_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    stream TEXT NOT NULL,
    offset_bytes INTEGER NOT NULL,
    data BLOB NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (job_id, seq),
    UNIQUE (job_id, attempt, stream, offset_bytes)
) STRICT;

CREATE TABLE artifact (
    id TEXT PRIMARY KEY NOT NULL,
    job_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    path TEXT NOT NULL,
    digest TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    mode INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    UNIQUE (job_id, attempt, path)
) STRICT, WITHOUT ROWID;

CREATE INDEX artifact_by_digest ON artifact (digest);

-- Blobs that somebody sent, so that one tenant cannot name another's by guessing a digest.
CREATE TABLE upload (
    tenant TEXT NOT NULL,
    digest TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    PRIMARY KEY (tenant, digest)
) STRICT, WITHOUT ROWID;

CREATE INDEX upload_by_time ON upload (created_at_ms);
