-- Whether there is a policy is asked of the policies: a number beside them was wrong where two were written at a time.
ALTER TABLE policy_stamp DROP COLUMN policies;
