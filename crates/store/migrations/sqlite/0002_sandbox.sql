-- Times are milliseconds since 1970, booleans are 0 or 1.
-- Sandboxes that live on. What they were asked to be is in `spec`; what changes or is searched for is
-- beside it.
CREATE TABLE sandbox (
    id TEXT PRIMARY KEY NOT NULL,
    tenant TEXT NOT NULL,
    principal TEXT NOT NULL,
    state TEXT NOT NULL,
    state_json TEXT NOT NULL,
    version INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    node TEXT,
    pinned_node TEXT,
    spec TEXT NOT NULL,
    metadata TEXT NOT NULL,
    access_token TEXT NOT NULL,
    ttl_ms INTEGER NOT NULL,
    expires_at_ms INTEGER,
    due_at_ms INTEGER,
    created_at_ms INTEGER NOT NULL,
    placed_at_ms INTEGER,
    ready_at_ms INTEGER,
    paused_at_ms INTEGER,
    ended_at_ms INTEGER,
    driver TEXT,
    enforcement TEXT,
    reason TEXT
) STRICT;

CREATE INDEX sandbox_by_tenant ON sandbox (tenant, created_at_ms DESC, id DESC);
-- The few that are not over, for lists of these among many that are.
CREATE INDEX sandbox_by_tenant_live ON sandbox (tenant, created_at_ms DESC, id DESC)
    WHERE ended_at_ms IS NULL;
-- Those that some node has.
CREATE INDEX sandbox_by_node ON sandbox (node, id) WHERE node IS NOT NULL AND ended_at_ms IS NULL;
-- Those that wait for a node.
CREATE INDEX sandbox_requested ON sandbox (created_at_ms, id) WHERE state = 'requested';
-- When each has to be looked at next.
CREATE INDEX sandbox_by_due ON sandbox (due_at_ms) WHERE due_at_ms IS NOT NULL;
