-- Each poll asks for these, and there are next to none: in the index of all jobs that nodes have, it would pass all that
-- a database cannot clear up while somebody holds a transaction open.
CREATE INDEX job_stopping ON job (node) WHERE state = 'stopping';
