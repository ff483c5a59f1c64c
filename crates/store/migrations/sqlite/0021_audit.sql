-- Seals over events, in the order in which those were committed.
CREATE TABLE audit_seal (
    tenant TEXT NOT NULL,
    number INTEGER NOT NULL,
    from_mark INTEGER NOT NULL,
    to_mark INTEGER NOT NULL,
    events INTEGER NOT NULL,
    total INTEGER NOT NULL,
    sealed_at_ms INTEGER NOT NULL,
    before TEXT NOT NULL,
    digest TEXT NOT NULL,
    retired INTEGER NOT NULL,
    PRIMARY KEY (tenant, number)
) STRICT, WITHOUT ROWID;

CREATE INDEX audit_seal_by_mark ON audit_seal (to_mark);
CREATE INDEX audit_seal_by_time ON audit_seal (sealed_at_ms);

-- Only in this database: positions are given by one writer in the order of commits.
CREATE TRIGGER event_is_never_changed BEFORE UPDATE ON event_inbox
BEGIN SELECT RAISE(ABORT, 'an event is never changed'); END;
