-- A list of the jobs of one state follows it: among a million that are finished, those that run are few.
CREATE INDEX job_by_state ON job (tenant, state, created_at_ms DESC, id DESC);
