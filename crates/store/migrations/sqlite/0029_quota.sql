-- How much a tenant may have at a time, or one principal of it; that of the tenant has no principal.
CREATE TABLE quota (
    tenant TEXT NOT NULL,
    principal TEXT NOT NULL,
    most TEXT NOT NULL,
    made_by TEXT NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    PRIMARY KEY (tenant, principal)
) STRICT, WITHOUT ROWID;

-- Which state all quotas are in: in the row that is read for each job anyway, so that they cost nothing where there are
-- none.
ALTER TABLE policy_stamp ADD COLUMN quota_stamp INTEGER NOT NULL DEFAULT 0;

-- A place that is held is of a job for which there is no room in a quota: no claim looks at it.
ALTER TABLE queue ADD COLUMN principal TEXT NOT NULL DEFAULT '';
UPDATE queue SET principal = (SELECT job.principal FROM job WHERE job.id = queue.job_id);
ALTER TABLE queue ADD COLUMN held INTEGER NOT NULL DEFAULT 0;
DROP INDEX queue_plain;
CREATE INDEX queue_plain ON queue (queued_at_ms, job_id) WHERE wish IS NULL AND held = 0;
DROP INDEX queue_by_wish;
CREATE INDEX queue_by_wish ON queue (wish, queued_at_ms, job_id) WHERE wish IS NOT NULL AND held = 0;
DROP INDEX queue_by_tenant;
CREATE INDEX queue_by_tenant ON queue (tenant, held, principal);
CREATE INDEX queue_held ON queue (tenant, principal, queued_at_ms, job_id) WHERE held = 1;

-- What jobs and sandboxes take while they are there; the defaults where nothing was said.
ALTER TABLE job ADD COLUMN cpu_millis INTEGER NOT NULL DEFAULT 1000;
ALTER TABLE job ADD COLUMN memory_bytes INTEGER NOT NULL DEFAULT 536870912;
ALTER TABLE job ADD COLUMN disk_bytes INTEGER NOT NULL DEFAULT 1073741824;
CREATE INDEX job_in_force ON job (tenant, principal) WHERE state IN ('leased', 'running', 'stopping');
ALTER TABLE sandbox ADD COLUMN cpu_millis INTEGER NOT NULL DEFAULT 1000;
ALTER TABLE sandbox ADD COLUMN memory_bytes INTEGER NOT NULL DEFAULT 536870912;
ALTER TABLE sandbox ADD COLUMN disk_bytes INTEGER NOT NULL DEFAULT 1073741824;

-- Whose files are kept: the job's, said again where they are added up.
ALTER TABLE artifact ADD COLUMN tenant TEXT NOT NULL DEFAULT '';
ALTER TABLE artifact ADD COLUMN principal TEXT NOT NULL DEFAULT '';
UPDATE artifact SET tenant = (SELECT job.tenant FROM job WHERE job.id = artifact.job_id), principal = (SELECT job.principal FROM job WHERE job.id = artifact.job_id) WHERE EXISTS (SELECT 1 FROM job WHERE job.id = artifact.job_id);
CREATE INDEX artifact_by_tenant ON artifact (tenant, principal, size_bytes);

-- Only in this database: how a document is read. What is there at this moment counts as it was asked for, and so does a
-- sandbox that has failed: it can be made anew, and is inserted no second time then.
UPDATE job SET
    cpu_millis = COALESCE(json_extract(spec, '$.limits.cpu_millis'), cpu_millis),
    memory_bytes = MIN(COALESCE(json_extract(spec, '$.limits.memory_bytes'), memory_bytes), 281474976710656),
    disk_bytes = MIN(COALESCE(json_extract(spec, '$.limits.disk_bytes'), disk_bytes), 281474976710656)
WHERE state <> 'finished';
UPDATE sandbox SET
    cpu_millis = COALESCE(json_extract(spec, '$.limits.cpu_millis'), cpu_millis),
    memory_bytes = MIN(COALESCE(json_extract(spec, '$.limits.memory_bytes'), memory_bytes), 281474976710656),
    disk_bytes = MIN(COALESCE(json_extract(spec, '$.limits.disk_bytes'), disk_bytes), 281474976710656)
WHERE state <> 'destroyed';
