-- What records are looked for by. Nobody reads the text of a record here, so those of before are found by neither.
ALTER TABLE egress ADD COLUMN host TEXT;
ALTER TABLE egress ADD COLUMN code TEXT;
