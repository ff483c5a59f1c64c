-- Times are milliseconds since 1970, booleans are 0 or 1.
-- Saved file systems of sandboxes, from which others begin. `parent` is the one that its sandbox began with;
-- `layers` are all that it stands on, and itself.
CREATE TABLE snapshot (
    id TEXT PRIMARY KEY NOT NULL,
    tenant TEXT NOT NULL,
    principal TEXT NOT NULL,
    state TEXT NOT NULL,
    state_json TEXT NOT NULL,
    version INTEGER NOT NULL,
    purpose TEXT NOT NULL,
    sandbox TEXT NOT NULL,
    node TEXT NOT NULL,
    parent TEXT,
    layers TEXT NOT NULL,
    name TEXT,
    tag TEXT,
    spec TEXT NOT NULL,
    bytes INTEGER,
    created_at_ms INTEGER NOT NULL,
    ready_at_ms INTEGER,
    ended_at_ms INTEGER
) STRICT;

CREATE INDEX snapshot_by_tenant ON snapshot (tenant, created_at_ms DESC, id DESC);
-- What a name means.
CREATE INDEX snapshot_by_name ON snapshot (tenant, name, tag, created_at_ms DESC, id DESC)
    WHERE name IS NOT NULL;
-- Those that one sandbox was copied to.
CREATE INDEX snapshot_by_sandbox ON snapshot (sandbox, id);
-- Those whose bytes a node has, and among them those that are to go.
CREATE INDEX snapshot_by_node ON snapshot (node, id) WHERE ended_at_ms IS NULL;
CREATE INDEX snapshot_deleting ON snapshot (node, id) WHERE state = 'deleting';
-- What stands on a snapshot.
CREATE INDEX snapshot_by_parent ON snapshot (parent) WHERE parent IS NOT NULL;
-- Those that were made for a moment.
CREATE INDEX snapshot_fork ON snapshot (created_at_ms) WHERE purpose = 'fork' AND state = 'ready';

-- The snapshot that a sandbox begins with.
ALTER TABLE sandbox ADD COLUMN snapshot TEXT;
CREATE INDEX sandbox_by_snapshot ON sandbox (snapshot, id) WHERE snapshot IS NOT NULL;
