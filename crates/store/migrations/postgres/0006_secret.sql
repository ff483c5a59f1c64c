-- Times are milliseconds since 1970.
-- Secrets: what is known of each, and its values, sealed. No value is ever here in the clear.
CREATE TABLE secret (
    id TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    tenant TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    version BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    metadata TEXT COLLATE "C" NOT NULL,
    principal TEXT COLLATE "C" NOT NULL,
    created_at_ms BIGINT NOT NULL,
    updated_at_ms BIGINT NOT NULL,
    UNIQUE (tenant, name)
);

CREATE TABLE secret_version (
    secret_id TEXT COLLATE "C" NOT NULL,
    version BIGINT NOT NULL,
    key_id TEXT COLLATE "C" NOT NULL,
    wrapped_key BYTEA NOT NULL,
    sealed BYTEA NOT NULL,
    created_at_ms BIGINT NOT NULL,
    PRIMARY KEY (secret_id, version)
);

-- For the change of the master key.
CREATE INDEX secret_version_by_key ON secret_version (key_id, secret_id, version);
