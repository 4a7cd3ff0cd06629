-- The holder of the lock of a running run, instead of a process that other hosts and containers cannot see.
ALTER TABLE runs ADD COLUMN owner TEXT;
ALTER TABLE runs DROP COLUMN process_started_at;

-- As it was typed. The command of a run repeats that run alone.
ALTER TABLE studies ADD COLUMN command TEXT;

-- The highest number ever given: a deleted number is never given again.
    CREATE TABLE _numbers (
        name TEXT PRIMARY KEY,
        last INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID
    ;
    INSERT INTO _numbers (name, last)
    SELECT 'runs', coalesce(max(id), 0) FROM runs UNION ALL
    SELECT 'studies', coalesce(max(id), 0) FROM studies UNION ALL
    SELECT 'evaluations', coalesce(max(id), 0) FROM evaluations UNION ALL
    SELECT 'gradient_checks', coalesce(max(id), 0) FROM gradient_checks
    ;
