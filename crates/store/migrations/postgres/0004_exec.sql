-- Times are milliseconds since 1970.
-- Commands that were run in sandboxes that live on, by the number that the sandbox gave them; and gaps, where
-- more was run than could be kept.
CREATE TABLE exec (
    sandbox_id TEXT COLLATE "C" NOT NULL,
    seq BIGINT NOT NULL,
    started_at_ms BIGINT NOT NULL,
    ended_at_ms BIGINT,
    started TEXT COLLATE "C",
    ended TEXT COLLATE "C",
    missed BIGINT,
    PRIMARY KEY (sandbox_id, seq)
);
