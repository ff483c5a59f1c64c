-- Secrets for what leaves a sandbox that came, or went, while it lived: JSON, in the place of those of its spec.
ALTER TABLE sandbox ADD COLUMN leaving TEXT;
