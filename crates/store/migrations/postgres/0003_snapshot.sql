-- Times are milliseconds since 1970, booleans are 0 or 1.
-- Saved file systems of sandboxes, from which others begin. `parent` is the one that its sandbox began with;
-- `layers` are all that it stands on, and itself.
CREATE TABLE snapshot (
    id TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    tenant TEXT COLLATE "C" NOT NULL,
    principal TEXT COLLATE "C" NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    state_json TEXT COLLATE "C" NOT NULL,
    version BIGINT NOT NULL,
    purpose TEXT COLLATE "C" NOT NULL,
    sandbox TEXT COLLATE "C" NOT NULL,
    node TEXT COLLATE "C" NOT NULL,
    parent TEXT COLLATE "C",
    layers TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C",
    tag TEXT COLLATE "C",
    spec TEXT COLLATE "C" NOT NULL,
    bytes BIGINT,
    created_at_ms BIGINT NOT NULL,
    ready_at_ms BIGINT,
    ended_at_ms BIGINT
);

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
ALTER TABLE sandbox ADD COLUMN snapshot TEXT COLLATE "C";
CREATE INDEX sandbox_by_snapshot ON sandbox (snapshot, id) WHERE snapshot IS NOT NULL;
