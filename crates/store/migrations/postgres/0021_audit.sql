-- Seals over events, in the order in which those were committed.
CREATE TABLE audit_seal (
    tenant TEXT COLLATE "C" NOT NULL,
    number BIGINT NOT NULL,
    from_mark BIGINT NOT NULL,
    to_mark BIGINT NOT NULL,
    events BIGINT NOT NULL,
    total BIGINT NOT NULL,
    sealed_at_ms BIGINT NOT NULL,
    before TEXT COLLATE "C" NOT NULL,
    digest TEXT COLLATE "C" NOT NULL,
    retired BIGINT NOT NULL,
    PRIMARY KEY (tenant, number)
);

CREATE INDEX audit_seal_by_mark ON audit_seal (to_mark);
CREATE INDEX audit_seal_by_time ON audit_seal (sealed_at_ms);

-- Only in this database: positions are given when a row is written, and a transaction that began earlier may commit
-- later. So each row has the number of its transaction. When no transaction with a lower number is under way any
-- more, what has such a number is all there.
CREATE FUNCTION event_mark(xid8) RETURNS bigint LANGUAGE sql IMMUTABLE AS
$$ SELECT $1::text::bigint $$;
ALTER TABLE event_inbox ADD COLUMN mark BIGINT NOT NULL DEFAULT 0;
ALTER TABLE event_inbox ALTER COLUMN mark SET DEFAULT event_mark(pg_current_xact_id());
CREATE INDEX event_inbox_by_mark ON event_inbox (mark);

-- A database that was brought back from a copy counts its transactions from elsewhere. Marks go on where they were:
-- one that is lower than what was sealed would never be sealed.
CREATE FUNCTION event_marks_go_on() RETURNS void LANGUAGE plpgsql AS $$
DECLARE last bigint;
BEGIN
    SELECT GREATEST((SELECT MAX(to_mark) FROM audit_seal), (SELECT MAX(mark) + 1 FROM event_inbox)) INTO last;
    IF event_mark(pg_current_xact_id()) < last THEN
        EXECUTE format('CREATE OR REPLACE FUNCTION event_mark(xid8) RETURNS bigint LANGUAGE sql IMMUTABLE AS '
            '$f$ SELECT $1::text::bigint + %s $f$', last - pg_current_xact_id()::text::bigint);
    END IF;
END $$;

CREATE FUNCTION event_is_never_changed() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'an event is never changed'; END $$;
CREATE TRIGGER event_is_never_changed BEFORE UPDATE ON event_inbox
FOR EACH STATEMENT EXECUTE FUNCTION event_is_never_changed();
