-- Times are milliseconds since 1970.
-- Secrets: what is known of each, and its values, sealed. No value is ever here in the clear.
CREATE TABLE secret (
    id TEXT PRIMARY KEY NOT NULL,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    metadata TEXT NOT NULL,
    principal TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    UNIQUE (tenant, name)
) STRICT;

CREATE TABLE secret_version (
    secret_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    key_id TEXT NOT NULL,
    wrapped_key BLOB NOT NULL,
    sealed BLOB NOT NULL,
    created_at_ms INTEGER NOT NULL,
    PRIMARY KEY (secret_id, version)
) STRICT;

-- For the change of the master key.
CREATE INDEX secret_version_by_key ON secret_version (key_id, secret_id, version);
