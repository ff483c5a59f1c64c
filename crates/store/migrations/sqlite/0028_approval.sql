-- What waits for a person's yes or no, and what became of it.
CREATE TABLE approval (
    id TEXT PRIMARY KEY NOT NULL,
    tenant TEXT NOT NULL,
    principal TEXT NOT NULL,
    subject TEXT NOT NULL,
    subject_id TEXT NOT NULL,
    digest TEXT NOT NULL,
    state TEXT NOT NULL,
    version INTEGER NOT NULL,
    summary TEXT NOT NULL,
    request TEXT NOT NULL,
    reasons TEXT NOT NULL,
    why TEXT NOT NULL,
    api_key TEXT,
    makers TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    decided_at_ms INTEGER,
    decided_by TEXT,
    comment TEXT NOT NULL,
    waived INTEGER NOT NULL,
    scope TEXT,
    until_ms INTEGER,
    used_at_ms INTEGER,
    revoked_at_ms INTEGER,
    told_version INTEGER NOT NULL,
    tell_attempts INTEGER NOT NULL,
    tell_at_ms INTEGER NOT NULL
) STRICT;

CREATE INDEX approval_by_tenant ON approval (tenant, created_at_ms, id);
CREATE INDEX approval_by_state ON approval (tenant, state, created_at_ms, id);
CREATE INDEX approval_by_principal ON approval (tenant, principal, state);
CREATE INDEX approval_by_subject ON approval (subject_id, state);
CREATE INDEX approval_pending ON approval (expires_at_ms) WHERE state = 'pending';
CREATE INDEX approval_by_end ON approval (decided_at_ms) WHERE state <> 'pending';

-- What a webhook has not been told yet: each change makes the row one of these again.
CREATE INDEX approval_untold ON approval (tell_at_ms) WHERE told_version < version;
