-- What a node must have for a job or a sandbox that waits, as JSON; null when any node will do.
ALTER TABLE queue ADD COLUMN wish TEXT COLLATE "C";
CREATE INDEX queue_by_wish ON queue (wish, queued_at_ms, job_id) WHERE wish IS NOT NULL;
-- A look passes over jobs that nobody can take without reading them.
DROP INDEX queue_by_time;
CREATE INDEX queue_plain ON queue (queued_at_ms, job_id) WHERE wish IS NULL;
ALTER TABLE sandbox ADD COLUMN wish TEXT COLLATE "C";
CREATE INDEX sandbox_by_wish ON sandbox (wish, created_at_ms, id) WHERE state = 'requested' AND wish IS NOT NULL;
DROP INDEX sandbox_requested;
CREATE INDEX sandbox_requested ON sandbox (created_at_ms, id) WHERE state = 'requested' AND wish IS NULL;

-- What an enrollment or its operator calls a node; how much it has failed lately; what its last heartbeat said.
ALTER TABLE node ADD COLUMN labels TEXT COLLATE "C" NOT NULL DEFAULT '{}';
ALTER TABLE node ADD COLUMN trouble TEXT COLLATE "C";
ALTER TABLE node ADD COLUMN report TEXT COLLATE "C";
