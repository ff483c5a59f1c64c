-- Times are milliseconds since 1970, booleans are 0 or 1.
-- Sandboxes that live on. What they were asked to be is in `spec`; what changes or is searched for is
-- beside it.
CREATE TABLE sandbox (
    id TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    tenant TEXT COLLATE "C" NOT NULL,
    principal TEXT COLLATE "C" NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    state_json TEXT COLLATE "C" NOT NULL,
    version BIGINT NOT NULL,
    epoch BIGINT NOT NULL,
    node TEXT COLLATE "C",
    pinned_node TEXT COLLATE "C",
    spec TEXT COLLATE "C" NOT NULL,
    metadata TEXT COLLATE "C" NOT NULL,
    access_token TEXT COLLATE "C" NOT NULL,
    ttl_ms BIGINT NOT NULL,
    expires_at_ms BIGINT,
    due_at_ms BIGINT,
    created_at_ms BIGINT NOT NULL,
    placed_at_ms BIGINT,
    ready_at_ms BIGINT,
    paused_at_ms BIGINT,
    ended_at_ms BIGINT,
    driver TEXT COLLATE "C",
    enforcement TEXT COLLATE "C",
    reason TEXT COLLATE "C"
);

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
