-- Times are milliseconds since 1970.
-- Volumes: named directories that outlive sandboxes. `made_at_ms` is when a sandbox had it first; since then
-- its node must have its bytes. `server` is the sandbox that serves its content, or did last.
CREATE TABLE volume (
    id TEXT PRIMARY KEY NOT NULL,
    tenant TEXT NOT NULL,
    principal TEXT NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    version INTEGER NOT NULL,
    node TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    server TEXT,
    created_at_ms INTEGER NOT NULL,
    made_at_ms INTEGER,
    ended_at_ms INTEGER
) STRICT;

-- What a name means; a volume that is to go has given it up.
CREATE UNIQUE INDEX volume_by_name ON volume (tenant, name) WHERE state = 'created';
-- Those whose bytes a node has or may have.
CREATE INDEX volume_by_node ON volume (node, id) WHERE ended_at_ms IS NULL;
-- Those that are forgotten after a while.
CREATE INDEX volume_ended ON volume (ended_at_ms) WHERE ended_at_ms IS NOT NULL;

-- The volumes that a sandbox has in its files.
CREATE TABLE sandbox_volume (
    volume TEXT NOT NULL,
    sandbox TEXT NOT NULL,
    PRIMARY KEY (volume, sandbox)
) STRICT;
CREATE INDEX sandbox_volume_by_sandbox ON sandbox_volume (sandbox);
