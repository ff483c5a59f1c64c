-- Each poll asks for these in the order of their ids, and there are next to none: in the index of all jobs that nodes
-- have, or in that of the ids, it would pass all that
-- a database cannot clear up while somebody holds a transaction open.
CREATE INDEX job_stopping ON job (node, id) WHERE state = 'stopping';
