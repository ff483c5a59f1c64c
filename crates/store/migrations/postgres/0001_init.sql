-- Times are milliseconds since 1970, sizes are bytes, booleans are 0 or 1.
-- COLLATE "C" sorts text by its bytes, as SQLite does, wherever the database comes from; and an update of
-- the system's rules of sorting cannot break an index.

CREATE TABLE job (
    id TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    tenant TEXT COLLATE "C" NOT NULL,
    principal TEXT COLLATE "C" NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    state_json TEXT COLLATE "C" NOT NULL,
    version BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    epoch BIGINT NOT NULL,
    node TEXT COLLATE "C",
    spec TEXT COLLATE "C" NOT NULL,
    cancel_requested BIGINT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    queued_at_ms BIGINT,
    leased_at_ms BIGINT,
    started_at_ms BIGINT,
    finished_at_ms BIGINT,
    driver TEXT COLLATE "C",
    sandbox_id TEXT COLLATE "C",
    enforcement TEXT COLLATE "C",
    usage_json TEXT COLLATE "C",
    detail TEXT COLLATE "C",
    stdout_json TEXT COLLATE "C",
    stderr_json TEXT COLLATE "C",
    report_hash TEXT COLLATE "C"
);

CREATE INDEX job_by_tenant ON job (tenant, created_at_ms DESC, id DESC);
-- Only jobs that some node has; a finished job is in no index but the list's.
CREATE INDEX job_by_node ON job (node) WHERE state IN ('leased', 'running', 'stopping');

-- The narrow table that claims read; a row is here exactly as long as its job is queued.
CREATE TABLE queue (
    job_id TEXT COLLATE "C" PRIMARY KEY,
    tenant TEXT COLLATE "C" NOT NULL,
    pinned_node TEXT COLLATE "C",
    not_before_ms BIGINT NOT NULL,
    queued_at_ms BIGINT NOT NULL,
    expires_at_ms BIGINT
);

CREATE INDEX queue_by_time ON queue (queued_at_ms, job_id);
CREATE INDEX queue_by_tenant ON queue (tenant);

CREATE TABLE node (
    id TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    incarnation TEXT COLLATE "C" NOT NULL,
    version TEXT COLLATE "C" NOT NULL,
    slots BIGINT NOT NULL,
    drivers TEXT COLLATE "C" NOT NULL,
    facts TEXT COLLATE "C" NOT NULL,
    state_json TEXT COLLATE "C" NOT NULL,
    lease_expires_at_ms BIGINT NOT NULL,
    registered_at_ms BIGINT NOT NULL
);

CREATE TABLE idempotency (
    tenant TEXT COLLATE "C" NOT NULL,
    principal TEXT COLLATE "C" NOT NULL,
    operation TEXT COLLATE "C" NOT NULL,
    key TEXT COLLATE "C" NOT NULL,
    request_hash TEXT COLLATE "C" NOT NULL,
    resource_id TEXT COLLATE "C" NOT NULL,
    created_at_ms BIGINT NOT NULL,
    PRIMARY KEY (tenant, principal, operation, key)
);

CREATE INDEX idempotency_by_time ON idempotency (created_at_ms);

CREATE TABLE event_inbox (
    position BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant TEXT COLLATE "C" NOT NULL,
    resource TEXT COLLATE "C" NOT NULL,
    resource_id TEXT COLLATE "C" NOT NULL,
    version BIGINT NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    data TEXT COLLATE "C" NOT NULL,
    principal TEXT COLLATE "C" NOT NULL,
    at_ms BIGINT NOT NULL,
    UNIQUE (resource, resource_id, version)
);

CREATE TABLE output_segment (
    job_id TEXT COLLATE "C" NOT NULL,
    seq BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    stream TEXT COLLATE "C" NOT NULL,
    offset_bytes BIGINT NOT NULL,
    data BYTEA NOT NULL,
    at_ms BIGINT NOT NULL,
    PRIMARY KEY (job_id, seq),
    UNIQUE (job_id, attempt, stream, offset_bytes)
);

CREATE TABLE artifact (
    id TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    job_id TEXT COLLATE "C" NOT NULL,
    attempt BIGINT NOT NULL,
    path TEXT COLLATE "C" NOT NULL,
    digest TEXT COLLATE "C" NOT NULL,
    size_bytes BIGINT NOT NULL,
    mode BIGINT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    UNIQUE (job_id, attempt, path)
);

CREATE INDEX artifact_by_digest ON artifact (digest);

-- Blobs that somebody sent, so that one tenant cannot name another's by guessing a digest.
CREATE TABLE upload (
    tenant TEXT COLLATE "C" NOT NULL,
    digest TEXT COLLATE "C" NOT NULL,
    size_bytes BIGINT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    PRIMARY KEY (tenant, digest)
);

CREATE INDEX upload_by_time ON upload (created_at_ms);
