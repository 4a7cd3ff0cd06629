-- The same in all copies of a run. Of a run of an older klcli, it is made of what no other run has in common with it.
ALTER TABLE runs ADD COLUMN identity TEXT;
UPDATE runs SET identity = started_at || ' ' || host || ' ' || pid || ' ' || id || ' ' || dataset_source;
CREATE UNIQUE INDEX runs_by_identity ON runs (identity);

-- The database from which a run was merged, and its number there.
ALTER TABLE runs ADD COLUMN origin TEXT;
ALTER TABLE runs ADD COLUMN origin_run INTEGER;
