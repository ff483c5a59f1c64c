-- The digest of the events under a seal stands beside it, so that what a seal says can be checked when they are gone.
-- Nothing was released with the seals before; all events are sealed anew.
DELETE FROM audit_seal;
ALTER TABLE audit_seal ADD COLUMN content TEXT NOT NULL DEFAULT '';
