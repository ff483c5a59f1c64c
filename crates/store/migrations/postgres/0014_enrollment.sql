-- Times are milliseconds since 1970.
-- Tokens with which one machine each can become a node. Of the text there is only a digest. `key_digest` is of
-- the public key that the token was used for: the same machine may ask again, if the answer was lost.
CREATE TABLE enroll_token (
    id TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    tenant TEXT COLLATE "C" NOT NULL,
    principal TEXT COLLATE "C" NOT NULL,
    digest TEXT COLLATE "C" NOT NULL UNIQUE,
    labels TEXT COLLATE "C" NOT NULL,
    created_at_ms BIGINT NOT NULL,
    expires_at_ms BIGINT NOT NULL,
    used_at_ms BIGINT,
    node TEXT COLLATE "C",
    key_digest TEXT COLLATE "C",
    revoked_at_ms BIGINT
);
CREATE INDEX enroll_token_by_time ON enroll_token (created_at_ms);

-- Machines that were let in. What they say of themselves is in `node`, once they have come.
CREATE TABLE node_enrollment (
    node TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    tenant TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    labels TEXT COLLATE "C" NOT NULL,
    enrolled_at_ms BIGINT NOT NULL,
    decommissioned_at_ms BIGINT
);

-- Every certificate that a node was given: what is not here opens nothing, whoever signed it.
CREATE TABLE node_certificate (
    fingerprint TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    node TEXT COLLATE "C" NOT NULL,
    issued_at_ms BIGINT NOT NULL,
    expires_at_ms BIGINT NOT NULL,
    revoked_at_ms BIGINT
);
CREATE INDEX node_certificate_by_node ON node_certificate (node, issued_at_ms);
