-- Times are milliseconds since 1970.
-- Volumes: named directories that outlive sandboxes. `made_at_ms` is when a sandbox had it first; since then
-- its node must have its bytes. `server` is the sandbox that serves its content, or did last.
CREATE TABLE volume (
    id TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    tenant TEXT COLLATE "C" NOT NULL,
    principal TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    version BIGINT NOT NULL,
    node TEXT COLLATE "C" NOT NULL,
    size_bytes BIGINT NOT NULL,
    server TEXT COLLATE "C",
    created_at_ms BIGINT NOT NULL,
    made_at_ms BIGINT,
    ended_at_ms BIGINT
);

-- What a name means; a volume that is to go has given it up.
CREATE UNIQUE INDEX volume_by_name ON volume (tenant, name) WHERE state = 'created';
-- Those whose bytes a node has or may have.
CREATE INDEX volume_by_node ON volume (node, id) WHERE ended_at_ms IS NULL;
-- Those that are forgotten after a while.
CREATE INDEX volume_ended ON volume (ended_at_ms) WHERE ended_at_ms IS NOT NULL;

-- The volumes that a sandbox has in its files.
CREATE TABLE sandbox_volume (
    volume TEXT COLLATE "C" NOT NULL,
    sandbox TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (volume, sandbox)
);
CREATE INDEX sandbox_volume_by_sandbox ON sandbox_volume (sandbox);
