-- Rules about what may be asked for. The newest version is in the row itself: decisions read all of them at once.
CREATE TABLE policy (
    id TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    tenant TEXT COLLATE "C" NOT NULL,
    principal TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    layer TEXT COLLATE "C" NOT NULL,
    version BIGINT NOT NULL,
    latest BIGINT NOT NULL,
    spec TEXT COLLATE "C" NOT NULL,
    created_at_ms BIGINT NOT NULL,
    updated_at_ms BIGINT NOT NULL
);

CREATE UNIQUE INDEX policy_by_name ON policy (tenant, name);
CREATE INDEX policy_by_layer ON policy (layer, tenant);

-- What the versions of a policy say.
CREATE TABLE policy_version (
    policy TEXT COLLATE "C" NOT NULL,
    number BIGINT NOT NULL,
    spec TEXT COLLATE "C" NOT NULL,
    principal TEXT COLLATE "C" NOT NULL,
    created_at_ms BIGINT NOT NULL,
    PRIMARY KEY (policy, number)
);

-- Which state all policies together are in: one row, which every change of one of them changes.
CREATE TABLE policy_stamp (
    one BIGINT PRIMARY KEY NOT NULL,
    stamp BIGINT NOT NULL,
    policies BIGINT NOT NULL
);

INSERT INTO policy_stamp (one, stamp, policies) VALUES (1, 0, 0);
