-- Times are milliseconds since 1970, booleans are 0 or 1.
-- Named recipes for sandboxes.
CREATE TABLE profile (
    id TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    tenant TEXT COLLATE "C" NOT NULL,
    principal TEXT COLLATE "C" NOT NULL,
    version BIGINT NOT NULL,
    name TEXT COLLATE "C",
    is_public BIGINT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    updated_at_ms BIGINT NOT NULL
);

CREATE UNIQUE INDEX profile_by_name ON profile (tenant, name) WHERE name IS NOT NULL;
CREATE INDEX profile_by_tenant ON profile (tenant, created_at_ms DESC, id DESC);

-- What a tag of a profile means.
CREATE TABLE profile_tag (
    profile TEXT COLLATE "C" NOT NULL,
    tag TEXT COLLATE "C" NOT NULL,
    build TEXT COLLATE "C" NOT NULL,
    assigned_at_ms BIGINT NOT NULL,
    PRIMARY KEY (profile, tag)
);

CREATE INDEX profile_tag_by_build ON profile_tag (build);

-- Tries to carry a recipe out. Who has one under way has it by the number of the attempt, until its lease ends.
CREATE TABLE build (
    id TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    profile TEXT COLLATE "C" NOT NULL,
    tenant TEXT COLLATE "C" NOT NULL,
    principal TEXT COLLATE "C" NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    state_json TEXT COLLATE "C" NOT NULL,
    version BIGINT NOT NULL,
    tags TEXT COLLATE "C" NOT NULL,
    limits TEXT COLLATE "C" NOT NULL,
    recipe TEXT COLLATE "C",
    attempt BIGINT NOT NULL,
    lease_until_ms BIGINT NOT NULL,
    sandbox TEXT COLLATE "C",
    snapshot TEXT COLLATE "C",
    done_key TEXT COLLATE "C",
    logs BIGINT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    begun_at_ms BIGINT,
    ended_at_ms BIGINT
);

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
    build TEXT COLLATE "C" NOT NULL,
    seq BIGINT NOT NULL,
    at_ms BIGINT NOT NULL,
    level BIGINT NOT NULL,
    phase TEXT COLLATE "C" NOT NULL,
    message TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (build, seq)
);

-- Archives of files that clients send for builds, by the name that they have for them.
CREATE TABLE build_file (
    tenant TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    digest TEXT COLLATE "C" NOT NULL,
    size_bytes BIGINT NOT NULL,
    used_at_ms BIGINT NOT NULL,
    PRIMARY KEY (tenant, name)
);

CREATE INDEX build_file_by_use ON build_file (used_at_ms);
-- Copies that builds have made.
CREATE INDEX snapshot_build ON snapshot (id) WHERE purpose = 'build' AND state = 'ready';
