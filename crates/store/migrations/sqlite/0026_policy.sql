-- Rules about what may be asked for. The newest version is in the row itself: decisions read all of them at once.
CREATE TABLE policy (
    id TEXT PRIMARY KEY NOT NULL,
    tenant TEXT NOT NULL,
    principal TEXT NOT NULL,
    name TEXT NOT NULL,
    layer TEXT NOT NULL,
    version INTEGER NOT NULL,
    latest INTEGER NOT NULL,
    spec TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX policy_by_name ON policy (tenant, name);
CREATE INDEX policy_by_layer ON policy (layer, tenant);

-- What the versions of a policy say.
CREATE TABLE policy_version (
    policy TEXT NOT NULL,
    number INTEGER NOT NULL,
    spec TEXT NOT NULL,
    principal TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    PRIMARY KEY (policy, number)
) STRICT;

-- Which state all policies together are in: one row, which every change of one of them changes.
CREATE TABLE policy_stamp (
    one INTEGER PRIMARY KEY NOT NULL,
    stamp INTEGER NOT NULL,
    policies INTEGER NOT NULL
) STRICT;

INSERT INTO policy_stamp (one, stamp, policies) VALUES (1, 0, 0);
