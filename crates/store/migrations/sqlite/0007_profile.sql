-- Times are milliseconds since 1970, booleans are 0 or 1.
-- Named recipes for sandboxes.
CREATE TABLE profile (
    id TEXT PRIMARY KEY NOT NULL,
    tenant TEXT NOT NULL,
    principal TEXT NOT NULL,
    version INTEGER NOT NULL,
    name TEXT,
    is_public INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX profile_by_name ON profile (tenant, name) WHERE name IS NOT NULL;
CREATE INDEX profile_by_tenant ON profile (tenant, created_at_ms DESC, id DESC);

-- What a tag of a profile means.
CREATE TABLE profile_tag (
    profile TEXT NOT NULL,
    tag TEXT NOT NULL,
    build TEXT NOT NULL,
    assigned_at_ms INTEGER NOT NULL,
    PRIMARY KEY (profile, tag)
) STRICT;

CREATE INDEX profile_tag_by_build ON profile_tag (build);

-- Tries to carry a recipe out. Who has one under way has it by the number of the attempt, until its lease ends.
CREATE TABLE build (
    id TEXT PRIMARY KEY NOT NULL,
    profile TEXT NOT NULL,
    tenant TEXT NOT NULL,
    principal TEXT NOT NULL,
    state TEXT NOT NULL,
    state_json TEXT NOT NULL,
    version INTEGER NOT NULL,
    tags TEXT NOT NULL,
    limits TEXT NOT NULL,
    recipe TEXT,
    attempt INTEGER NOT NULL,
    lease_until_ms INTEGER NOT NULL,
    sandbox TEXT,
    snapshot TEXT,
    done_key TEXT,
    logs INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    begun_at_ms INTEGER,
    ended_at_ms INTEGER
) STRICT;

CREATE INDEX build_by_profile ON build (profile, created_at_ms DESC, id DESC);
-- Those that somebody has to carry out.
CREATE INDEX build_open ON build (lease_until_ms, begun_at_ms) WHERE state = 'building';
-- Those of a tenant that are not over.
CREATE INDEX build_not_over ON build (tenant) WHERE ended_at_ms IS NULL;
-- Who has done the same before.
CREATE INDEX build_by_done ON build (tenant, done_key) WHERE state = 'ready';
-- What a snapshot is kept for.
CREATE INDEX build_by_snapshot ON build (snapshot) WHERE snapshot IS NOT NULL;

-- What a build has to say.
CREATE TABLE build_log (
    build TEXT NOT NULL,
    seq INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    level INTEGER NOT NULL,
    phase TEXT NOT NULL,
    message TEXT NOT NULL,
    PRIMARY KEY (build, seq)
) STRICT;

-- Archives of files that clients send for builds, by the name that they have for them.
CREATE TABLE build_file (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    digest TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    used_at_ms INTEGER NOT NULL,
    PRIMARY KEY (tenant, name)
) STRICT;

CREATE INDEX build_file_by_use ON build_file (used_at_ms);
-- Copies that builds have made.
CREATE INDEX snapshot_build ON snapshot (id) WHERE purpose = 'build' AND state = 'ready';
