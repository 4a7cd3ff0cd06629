-- SQLite stores the text of a table up to its semicolon: not even a blank of a released step is changed.

    CREATE TABLE studies (
        id INTEGER PRIMARY KEY,
        kind TEXT NOT NULL CHECK (kind IN ('lambda', 'sigma', 'repeats', 'reproduce')),
        stage TEXT,
        settings TEXT NOT NULL CHECK (json_valid(settings)),
        parent INTEGER REFERENCES studies (id) ON DELETE SET NULL,
        state TEXT NOT NULL CHECK (state IN ('running', 'complete', 'interrupted', 'failed')),
        created_at TEXT NOT NULL                 -- UTC, ISO 8601
    ) STRICT
    ;

    CREATE TABLE runs (
        id INTEGER PRIMARY KEY,
        study_id INTEGER REFERENCES studies (id) ON DELETE CASCADE,
        member INTEGER,                          -- position in the plan of the study
        state TEXT NOT NULL CHECK (state IN ('running', 'complete', 'interrupted', 'failed', 'diverged')),
        started_at TEXT NOT NULL,                -- UTC, ISO 8601
        finished_at TEXT,
        host TEXT NOT NULL,
        pid INTEGER NOT NULL,
        process_started_at REAL NOT NULL,        -- tells a reused pid from the old process
        command TEXT NOT NULL,                   -- as it can be pasted into a shell
        dataset TEXT NOT NULL,
        dataset_sha256 TEXT NOT NULL,
        dataset_source TEXT NOT NULL,            -- where the images were: a path, or 'built in'
        hidden TEXT NOT NULL,                    -- '50 30 20'
        batch_norm INTEGER NOT NULL CHECK (batch_norm IN (0, 1)),
        bn_position TEXT,                        -- NULL without batch normalisation
        initializer TEXT NOT NULL,
        sigma REAL,                              -- NULL for he and xavier
        lambda REAL NOT NULL,
        optimizer TEXT NOT NULL,
        schedule TEXT NOT NULL,
        eta_min REAL NOT NULL,
        eta_max REAL NOT NULL,
        step_size INTEGER NOT NULL,              -- n_s in updates
        cycles REAL NOT NULL,
        epochs REAL NOT NULL,                    -- planned
        batch_size INTEGER NOT NULL,
        seed INTEGER NOT NULL,
        dtype TEXT NOT NULL,
        threads INTEGER NOT NULL,                -- of BLAS
        config TEXT NOT NULL CHECK (json_valid(config)),  -- all settings
        versions TEXT NOT NULL CHECK (json_valid(versions)),
        epochs_done REAL NOT NULL DEFAULT 0,
        best_validation_accuracy REAL,
        train_loss REAL, train_cost REAL, train_accuracy REAL,
        validation_loss REAL, validation_cost REAL, validation_accuracy REAL,
        test_loss REAL, test_cost REAL, test_accuracy REAL,
        seconds REAL,
        checkpoint TEXT,                         -- relative to the folder of the database
        checkpoint_sha256 TEXT,                  -- of its content
        previous_sha256 TEXT,                    -- of the checkpoint before it, kept until the run is complete
        error TEXT,
        note TEXT
    ) STRICT
    ;

    CREATE TABLE epochs (
        run_id INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
        epoch REAL NOT NULL,                     -- updates done / updates per epoch
        step INTEGER NOT NULL,                   -- updates done
        learning_rate REAL NOT NULL,             -- of the last update
        train_loss REAL NOT NULL, train_cost REAL NOT NULL, train_accuracy REAL NOT NULL,
        validation_loss REAL NOT NULL, validation_cost REAL NOT NULL, validation_accuracy REAL NOT NULL,
        seconds REAL NOT NULL,                   -- since the evaluation before
        PRIMARY KEY (run_id, epoch)
    ) STRICT, WITHOUT ROWID
    ;

CREATE INDEX runs_ranked ON runs (dataset_sha256, state, validation_accuracy DESC);
CREATE INDEX runs_of_study ON runs (study_id, member);
CREATE INDEX runs_by_state ON runs (state);
