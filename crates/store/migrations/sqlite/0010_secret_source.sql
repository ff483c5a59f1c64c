-- Values that are kept elsewhere: where, for people, and whether what is sealed says where and not what.
ALTER TABLE secret ADD COLUMN source TEXT;
ALTER TABLE secret_version ADD COLUMN is_source INTEGER NOT NULL DEFAULT 0;
