-- Times are milliseconds since 1970.
-- Who owns things. The first tenant is that of whoever runs the server; what was there before belongs to it.
CREATE TABLE tenant (
    id TEXT PRIMARY KEY NOT NULL,
    name TEXT NOT NULL UNIQUE,
    principal TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL
) STRICT;
INSERT INTO tenant (id, name, principal, created_at_ms) VALUES ('ten_local', 'local', 'service:start', 0);

-- Who acts, beside the users of the server's own machine, nodes, and the server itself.
CREATE TABLE principal (
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    kind TEXT NOT NULL,
    role TEXT NOT NULL,
    principal TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT;

-- Texts that stand for a principal. Of a text there is only a digest, and one of the form of it that E2B's clients
-- take. A key is taken back by deleting it.
CREATE TABLE api_key (
    id TEXT PRIMARY KEY NOT NULL,
    tenant TEXT NOT NULL,
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    prefix TEXT NOT NULL,
    digest TEXT NOT NULL UNIQUE,
    e2b_digest TEXT NOT NULL UNIQUE,
    scopes TEXT NOT NULL,
    principal TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER,
    used_at_ms INTEGER
) STRICT;
CREATE INDEX api_key_by_tenant ON api_key (tenant, id);
CREATE INDEX api_key_by_owner ON api_key (tenant, owner);
