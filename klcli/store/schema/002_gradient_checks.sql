    CREATE TABLE gradient_checks (
        id INTEGER PRIMARY KEY,
        suite INTEGER NOT NULL,                  -- id of the first check of the same call
        created_at TEXT NOT NULL,                -- UTC, ISO 8601
        command TEXT NOT NULL,
        dataset TEXT NOT NULL,
        dataset_sha256 TEXT NOT NULL,
        hidden TEXT NOT NULL,
        batch_norm INTEGER NOT NULL CHECK (batch_norm IN (0, 1)),
        bn_position TEXT,
        lambda TEXT NOT NULL,                    -- of every member: '0.01', '0 0.005 0.1'
        images INTEGER NOT NULL,
        dims INTEGER NOT NULL,
        method TEXT NOT NULL,
        h REAL NOT NULL,
        atol REAL NOT NULL,
        rtol REAL NOT NULL,
        passed INTEGER NOT NULL CHECK (passed IN (0, 1)),
        seconds REAL NOT NULL,
        configs TEXT NOT NULL CHECK (json_valid(configs))  -- one config per member
    ) STRICT
    ;

    CREATE TABLE gradient_errors (
        check_id INTEGER NOT NULL REFERENCES gradient_checks (id) ON DELETE CASCADE,
        position INTEGER NOT NULL,               -- in the order of the layers
        tensor TEXT NOT NULL,
        entries INTEGER NOT NULL,
        kinks INTEGER NOT NULL,                  -- entries whose difference straddles a corner of a ReLU
        max_absolute REAL NOT NULL,
        relative_to_sum REAL NOT NULL,
        relative_to_maximum REAL NOT NULL,
        ratio_of_maxima REAL NOT NULL,
        gradient_mean REAL NOT NULL,
        gradient_std REAL NOT NULL,
        passed INTEGER NOT NULL CHECK (passed IN (0, 1)),
        PRIMARY KEY (check_id, position)
    ) STRICT, WITHOUT ROWID
    ;
