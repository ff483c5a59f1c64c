-- What waits for a person's yes or no, and what became of it.
CREATE TABLE approval (
    id TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    tenant TEXT COLLATE "C" NOT NULL,
    principal TEXT COLLATE "C" NOT NULL,
    subject TEXT COLLATE "C" NOT NULL,
    subject_id TEXT COLLATE "C" NOT NULL,
    digest TEXT COLLATE "C" NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    version BIGINT NOT NULL,
    summary TEXT COLLATE "C" NOT NULL,
    request TEXT COLLATE "C" NOT NULL,
    reasons TEXT COLLATE "C" NOT NULL,
    why TEXT COLLATE "C" NOT NULL,
    api_key TEXT COLLATE "C",
    makers TEXT COLLATE "C" NOT NULL,
    created_at_ms BIGINT NOT NULL,
    expires_at_ms BIGINT NOT NULL,
    decided_at_ms BIGINT,
    decided_by TEXT COLLATE "C",
    comment TEXT COLLATE "C" NOT NULL,
    waived BIGINT NOT NULL,
    scope TEXT COLLATE "C",
    until_ms BIGINT,
    used_at_ms BIGINT,
    revoked_at_ms BIGINT,
    told_version BIGINT NOT NULL,
    tell_attempts BIGINT NOT NULL,
    tell_at_ms BIGINT NOT NULL
);

CREATE INDEX approval_by_tenant ON approval (tenant, created_at_ms, id);
CREATE INDEX approval_by_state ON approval (tenant, state, created_at_ms, id);
CREATE INDEX approval_by_principal ON approval (tenant, principal, state);
CREATE INDEX approval_by_subject ON approval (subject_id, state);
CREATE INDEX approval_pending ON approval (expires_at_ms) WHERE state = 'pending';
CREATE INDEX approval_by_end ON approval (decided_at_ms) WHERE state <> 'pending';

-- What a webhook has not been told yet: each change makes the row one of these again.
CREATE INDEX approval_untold ON approval (tell_at_ms) WHERE told_version < version;
