-- Times are milliseconds since 1970.
-- Tokens with which one machine each can become a node. Of the text there is only a digest. `key_digest` is of
-- the public key that the token was used for: the same machine may ask again, if the answer was lost.
CREATE TABLE enroll_token (
    id TEXT PRIMARY KEY NOT NULL,
    tenant TEXT NOT NULL,
    principal TEXT NOT NULL,
    digest TEXT NOT NULL UNIQUE,
    labels TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    used_at_ms INTEGER,
    node TEXT,
    key_digest TEXT,
    revoked_at_ms INTEGER
) STRICT;
CREATE INDEX enroll_token_by_time ON enroll_token (created_at_ms);

-- Machines that were let in. What they say of themselves is in `node`, once they have come.
CREATE TABLE node_enrollment (
    node TEXT PRIMARY KEY NOT NULL,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    labels TEXT NOT NULL,
    enrolled_at_ms INTEGER NOT NULL,
    decommissioned_at_ms INTEGER
) STRICT;

-- Every certificate that a node was given: what is not here opens nothing, whoever signed it.
CREATE TABLE node_certificate (
    fingerprint TEXT PRIMARY KEY NOT NULL,
    node TEXT NOT NULL,
    issued_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    revoked_at_ms INTEGER
) STRICT;
CREATE INDEX node_certificate_by_node ON node_certificate (node, issued_at_ms);
