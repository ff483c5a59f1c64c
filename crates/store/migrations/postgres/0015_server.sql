-- Times are milliseconds since 1970.
-- What all servers on this database must have alike, by what stands for it and tells nothing: the directory of
-- blobs, the authority of nodes, the key of secrets, the token.
CREATE TABLE fleet_mark (
    name TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    value TEXT COLLATE "C" NOT NULL
);

-- Servers, each process by an id of its own. `address` is where others dial it, `certificate` the fingerprint of
-- what it shows them: what is not here opens nothing, whoever signed it.
CREATE TABLE server (
    id TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    version TEXT COLLATE "C" NOT NULL,
    address TEXT COLLATE "C",
    certificate TEXT COLLATE "C",
    started_at_ms BIGINT NOT NULL,
    heard_at_ms BIGINT NOT NULL
);

-- Links of nodes, and which server holds each. A row stays when its link has ended, without a server, so that
-- no epoch comes twice.
CREATE TABLE node_link (
    node TEXT COLLATE "C" NOT NULL,
    class TEXT COLLATE "C" NOT NULL,
    epoch BIGINT NOT NULL,
    server TEXT COLLATE "C",
    since_ms BIGINT NOT NULL,
    PRIMARY KEY (node, class)
);
CREATE INDEX node_link_by_server ON node_link (server);
