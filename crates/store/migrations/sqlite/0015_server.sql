-- Times are milliseconds since 1970.
-- What all servers on this database must have alike, by what stands for it and tells nothing: the directory of
-- blobs, the authority of nodes, the key of secrets, the token.
CREATE TABLE fleet_mark (
    name TEXT PRIMARY KEY NOT NULL,
    value TEXT NOT NULL
) STRICT;

-- Servers, each process by an id of its own. `address` is where others dial it, `certificate` the fingerprint of
-- what it shows them: what is not here opens nothing, whoever signed it.
CREATE TABLE server (
    id TEXT PRIMARY KEY NOT NULL,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    address TEXT,
    certificate TEXT,
    started_at_ms INTEGER NOT NULL,
    heard_at_ms INTEGER NOT NULL
) STRICT;

-- Links of nodes, and which server holds each. A row stays when its link has ended, without a server, so that
-- no epoch comes twice.
CREATE TABLE node_link (
    node TEXT NOT NULL,
    class TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    server TEXT,
    since_ms INTEGER NOT NULL,
    PRIMARY KEY (node, class)
) STRICT;
CREATE INDEX node_link_by_server ON node_link (server);
