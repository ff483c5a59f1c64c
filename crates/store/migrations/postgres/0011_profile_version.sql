-- The newest version that somebody has written; 0 for profiles that builds make.
ALTER TABLE profile ADD COLUMN latest BIGINT NOT NULL DEFAULT 0;

-- What the versions of a profile say.
CREATE TABLE profile_version (
    profile TEXT COLLATE "C" NOT NULL,
    number BIGINT NOT NULL,
    spec TEXT COLLATE "C" NOT NULL,
    principal TEXT COLLATE "C" NOT NULL,
    created_at_ms BIGINT NOT NULL,
    PRIMARY KEY (profile, number)
);
