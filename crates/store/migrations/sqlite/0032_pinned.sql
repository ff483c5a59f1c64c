-- What waits for one node alone is in indexes of its own, by that node: a look of another one does not pass over it.
-- A row is in exactly one of the four of its table.
DROP INDEX queue_plain;
DROP INDEX queue_by_wish;
CREATE INDEX queue_plain ON queue (queued_at_ms, job_id) WHERE wish IS NULL AND held = 0 AND pinned_node IS NULL;
CREATE INDEX queue_by_wish ON queue (wish, queued_at_ms, job_id) WHERE wish IS NOT NULL AND held = 0 AND pinned_node IS NULL;
CREATE INDEX queue_pinned ON queue (pinned_node, queued_at_ms, job_id)
    WHERE wish IS NULL AND held = 0 AND pinned_node IS NOT NULL;
CREATE INDEX queue_pinned_by_wish ON queue (pinned_node, wish, queued_at_ms, job_id)
    WHERE wish IS NOT NULL AND held = 0 AND pinned_node IS NOT NULL;

DROP INDEX sandbox_requested;
DROP INDEX sandbox_by_wish;
CREATE INDEX sandbox_requested ON sandbox (created_at_ms, id)
    WHERE state = 'requested' AND wish IS NULL AND pinned_node IS NULL;
CREATE INDEX sandbox_by_wish ON sandbox (wish, created_at_ms, id)
    WHERE state = 'requested' AND wish IS NOT NULL AND pinned_node IS NULL;
CREATE INDEX sandbox_pinned ON sandbox (pinned_node, created_at_ms, id)
    WHERE state = 'requested' AND wish IS NULL AND pinned_node IS NOT NULL;
CREATE INDEX sandbox_pinned_by_wish ON sandbox (pinned_node, wish, created_at_ms, id)
    WHERE state = 'requested' AND wish IS NOT NULL AND pinned_node IS NOT NULL;
