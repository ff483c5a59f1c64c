-- What sandboxes used, in rows of ten minutes each. Rows go a day later, also those of a sandbox that is
-- not there any more, so that nothing here has to be looked for when a sandbox goes.
CREATE TABLE sandbox_usage (
    sandbox TEXT NOT NULL,
    row_ms INTEGER NOT NULL,
    points TEXT NOT NULL,
    PRIMARY KEY (sandbox, row_ms)
) STRICT;

CREATE INDEX sandbox_usage_by_time ON sandbox_usage (row_ms);
