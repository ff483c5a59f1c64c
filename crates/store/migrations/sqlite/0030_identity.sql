-- Which issuer of tokens has named somebody first: no other speaks for them. Nothing for those whom an admin let in.
ALTER TABLE principal ADD COLUMN issuer TEXT;

-- Who was sent away: an issuer that still names them does not let them in again, an admin does.
CREATE TABLE principal_removed (
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    removed_at_ms INTEGER NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT;
