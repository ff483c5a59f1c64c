-- By an expression, so that no other index serves whoever asks for these: a database that counts an index as nearly empty
-- reads it whole instead, and beside a transaction that somebody holds open it is full of what is dead.
DROP INDEX job_stopping;
CREATE INDEX job_stopping ON job ((CASE WHEN state = 'stopping' THEN node END), id)
    WHERE (CASE WHEN state = 'stopping' THEN node END) IS NOT NULL;
-- Those that a node has, too, and by the time since when: a node says which it has, and only what it was given of late
-- can be unknown to it.
DROP INDEX job_by_node;
CREATE INDEX job_by_node ON job ((CASE WHEN state IN ('leased', 'running', 'stopping') THEN node END), leased_at_ms)
    WHERE (CASE WHEN state IN ('leased', 'running', 'stopping') THEN node END) IS NOT NULL;
-- What waits of a tenant is counted from the oldest on.
CREATE INDEX queue_by_age ON queue (tenant, queued_at_ms);
-- What waits and has a time at which its waiting is over: few, of which next to none is over. In the index of all that
-- wait, the loop that looks for them would pass all that a database cannot clear up while somebody holds a transaction
-- open.
CREATE INDEX queue_expires ON queue (expires_at_ms, job_id) WHERE expires_at_ms IS NOT NULL;
