-- Times are milliseconds since 1970.
-- Who owns things. The first tenant is that of whoever runs the server; what was there before belongs to it.
CREATE TABLE tenant (
    id TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    name TEXT COLLATE "C" NOT NULL UNIQUE,
    principal TEXT COLLATE "C" NOT NULL,
    created_at_ms BIGINT NOT NULL
);
INSERT INTO tenant (id, name, principal, created_at_ms) VALUES ('ten_local', 'local', 'service:start', 0);

-- Who acts, beside the users of the server's own machine, nodes, and the server itself.
CREATE TABLE principal (
    tenant TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    role TEXT COLLATE "C" NOT NULL,
    principal TEXT COLLATE "C" NOT NULL,
    created_at_ms BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
);

-- Texts that stand for a principal. Of a text there is only a digest, and one of the form of it that E2B's clients
-- take. A key is taken back by deleting it.
CREATE TABLE api_key (
    id TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    tenant TEXT COLLATE "C" NOT NULL,
    owner TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    prefix TEXT COLLATE "C" NOT NULL,
    digest TEXT COLLATE "C" NOT NULL UNIQUE,
    e2b_digest TEXT COLLATE "C" NOT NULL UNIQUE,
    scopes TEXT COLLATE "C" NOT NULL,
    principal TEXT COLLATE "C" NOT NULL,
    created_at_ms BIGINT NOT NULL,
    expires_at_ms BIGINT,
    used_at_ms BIGINT
);
CREATE INDEX api_key_by_tenant ON api_key (tenant, id);
CREATE INDEX api_key_by_owner ON api_key (tenant, owner);
