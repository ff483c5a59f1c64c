-- The newest version that somebody has written; 0 for profiles that builds make.
ALTER TABLE profile ADD COLUMN latest INTEGER NOT NULL DEFAULT 0;

-- What the versions of a profile say.
CREATE TABLE profile_version (
    profile TEXT NOT NULL,
    number INTEGER NOT NULL,
    spec TEXT NOT NULL,
    principal TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    PRIMARY KEY (profile, number)
) STRICT;
