-- The newest version of the protocol that a node's process speaks, by its registration: from 2 on it shows the token
-- of a lease with what it says about it.
ALTER TABLE node ADD COLUMN protocol BIGINT NOT NULL DEFAULT 1;
