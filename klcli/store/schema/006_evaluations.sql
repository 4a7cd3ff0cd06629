    CREATE TABLE evaluations (
        id INTEGER PRIMARY KEY,
        created_at TEXT NOT NULL,                -- UTC, ISO 8601
        command TEXT NOT NULL,
        bn_statistics TEXT,                      -- NULL without batch normalisation
        bn_samples INTEGER,                      -- images that gave the statistics, where some were drawn
        flips INTEGER NOT NULL CHECK (flips IN (0, 1)),
        seed INTEGER,                            -- of the images drawn; NULL where none were
        transductive INTEGER NOT NULL CHECK (transductive IN (0, 1)),
        validation_loss REAL NOT NULL, validation_accuracy REAL NOT NULL,
        test_loss REAL NOT NULL, test_accuracy REAL NOT NULL,
        seconds REAL NOT NULL
    ) STRICT
    ;

    CREATE TABLE evaluation_runs (
        evaluation_id INTEGER NOT NULL REFERENCES evaluations (id) ON DELETE CASCADE,
        run_id INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
        PRIMARY KEY (evaluation_id, run_id)
    ) STRICT, WITHOUT ROWID
    ;

CREATE INDEX evaluations_of_run ON evaluation_runs (run_id);

-- What is measured on the mean of several networks says nothing about those that are left.
    CREATE TRIGGER evaluation_without_its_run AFTER DELETE ON evaluation_runs
    BEGIN DELETE FROM evaluations WHERE id = OLD.evaluation_id; END;
