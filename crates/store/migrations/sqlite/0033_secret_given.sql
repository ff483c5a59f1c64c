-- Passwords that came with a request and belong to what was asked for: kept as secrets are, and in nobody's list.
ALTER TABLE secret ADD COLUMN given INTEGER NOT NULL DEFAULT 0;
CREATE INDEX secret_given ON secret (created_at_ms, id) WHERE given = 1;
