-- Times are milliseconds since 1970.
-- What a sandbox may reach once somebody has changed it, and which of these rules its node has put in force;
-- without it, what was asked at first holds.
ALTER TABLE sandbox ADD COLUMN network TEXT COLLATE "C";
ALTER TABLE sandbox ADD COLUMN network_epoch BIGINT NOT NULL DEFAULT 0;
ALTER TABLE sandbox ADD COLUMN network_done BIGINT NOT NULL DEFAULT 0;
ALTER TABLE sandbox ADD COLUMN egress_denied BIGINT NOT NULL DEFAULT 0;
ALTER TABLE job ADD COLUMN egress_denied BIGINT NOT NULL DEFAULT 0;

-- Connections to the outside of a sandbox or a job, in the order in which its node told of them. The node's name
-- for a record keeps it from being stored twice.
CREATE TABLE egress (
    owner TEXT COLLATE "C" NOT NULL,
    seq BIGINT NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    at_ms BIGINT NOT NULL,
    decision TEXT COLLATE "C" NOT NULL,
    record TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (owner, seq)
);

CREATE UNIQUE INDEX egress_by_name ON egress (owner, name);
