-- Why the newest rules of a sandbox's network are not in force, where its node has given them up.
ALTER TABLE sandbox ADD COLUMN network_refused TEXT COLLATE "C";
