-- A sandbox has one place after the other; numbers of its commands go on from those of the one before.
ALTER TABLE sandbox ADD COLUMN incarnation INTEGER NOT NULL DEFAULT 1;
ALTER TABLE sandbox ADD COLUMN exec_base INTEGER NOT NULL DEFAULT 0;

-- Commands of all sandboxes of a tenant, of one kind: `exec`, `step` or `missed`.
ALTER TABLE exec ADD COLUMN tenant TEXT NOT NULL DEFAULT '';
ALTER TABLE exec ADD COLUMN kind TEXT NOT NULL DEFAULT 'exec';
-- What was asked is JSON of the doors. A quotation mark within a text of it has a backslash before it, so that
-- no command can look like a step.
UPDATE exec SET kind = 'step' WHERE REPLACE(started, '"context":{"id":"', '') <> started;
UPDATE exec SET kind = 'missed' WHERE missed IS NOT NULL;
UPDATE exec SET tenant = COALESCE((SELECT tenant FROM sandbox WHERE sandbox.id = exec.sandbox_id), '');
CREATE INDEX exec_by_kind ON exec (tenant, kind, started_at_ms DESC, sandbox_id DESC, seq DESC);
