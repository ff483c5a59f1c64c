-- Times are milliseconds since 1970.
-- Commands that were run in sandboxes that live on, by the number that the sandbox gave them; and gaps, where
-- more was run than could be kept.
CREATE TABLE exec (
    sandbox_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    started_at_ms INTEGER NOT NULL,
    ended_at_ms INTEGER,
    started TEXT,
    ended TEXT,
    missed INTEGER,
    PRIMARY KEY (sandbox_id, seq)
) STRICT;
