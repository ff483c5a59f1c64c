-- Times are milliseconds since 1970.
-- What a sandbox may reach once somebody has changed it, and which of these rules its node has put in force;
-- without it, what was asked at first holds.
ALTER TABLE sandbox ADD COLUMN network TEXT;
ALTER TABLE sandbox ADD COLUMN network_epoch INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sandbox ADD COLUMN network_done INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sandbox ADD COLUMN egress_denied INTEGER NOT NULL DEFAULT 0;
ALTER TABLE job ADD COLUMN egress_denied INTEGER NOT NULL DEFAULT 0;

-- Connections to the outside of a sandbox or a job, in the order in which its node told of them. The node's name
-- for a record keeps it from being stored twice.
CREATE TABLE egress (
    owner TEXT NOT NULL,
    seq INTEGER NOT NULL,
    name TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    decision TEXT NOT NULL,
    record TEXT NOT NULL,
    PRIMARY KEY (owner, seq)
) STRICT;

CREATE UNIQUE INDEX egress_by_name ON egress (owner, name);
