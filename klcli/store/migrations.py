"""The schema of the database, as numbered steps that a new and an old database take alike.

A step is never edited once it has been released; a change is a new step. SQLite keeps the text of a definition,
so that even the blanks of a released one stay.
"""

from sqlite_utils import Database, Migrations

migrations = Migrations("klcli")


def _step(name: str, *statements: str) -> None:
    def apply(db: Database) -> None:
        for statement in statements:
            db.execute(statement)

    migrations(name=name)(apply)


def _setting(name: str, kind: str, default: float) -> str:
    """Show in a column what the config says, or what an older klcli without the setting did."""
    value = f"coalesce(json_extract(config, '$.{name}'), {default})"
    return f"ALTER TABLE runs ADD COLUMN {name} {kind} GENERATED ALWAYS AS ({value}) VIRTUAL"


_step(
    "m001_studies_runs_epochs",
    """
    CREATE TABLE studies (
        id INTEGER PRIMARY KEY,
        kind TEXT NOT NULL CHECK (kind IN ('lambda', 'sigma', 'repeats', 'reproduce')),
        stage TEXT,
        settings TEXT NOT NULL CHECK (json_valid(settings)),
        parent INTEGER REFERENCES studies (id) ON DELETE SET NULL,
        state TEXT NOT NULL CHECK (state IN ('running', 'complete', 'interrupted', 'failed')),
        created_at TEXT NOT NULL                 -- UTC, ISO 8601
    ) STRICT
    """,
    """
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
    """,
    """
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
    """,
    "CREATE INDEX runs_ranked ON runs (dataset_sha256, state, validation_accuracy DESC)",
    "CREATE INDEX runs_of_study ON runs (study_id, member)",
    "CREATE INDEX runs_by_state ON runs (state)",
)

_step(
    "m002_gradient_checks",
    """
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
    """,
    """
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
    """,
)

_BEST_RUNS = """
    CREATE VIEW best_runs AS
    SELECT
        dataset AS images,
        split,
        rank() OVER (PARTITION BY dataset_sha256, split ORDER BY validation_accuracy DESC) AS place,
        id AS run,
        hidden AS hidden_widths,
        CASE batch_norm WHEN 1 THEN 'yes' ELSE 'no' END AS batch_normalisation,{statistics}
        initializer,
        sigma,
        "lambda",
        seed,
        epochs_done,
        train_accuracy,
        validation_accuracy,
        test_accuracy,
        test_loss,
        seconds,
        started_at,
        tags,
        note,
        command
    FROM runs WHERE state = 'complete'
    ORDER BY dataset, dataset_sha256, split, place, run
    """

_step(
    "m003_tags_and_best_runs",
    "ALTER TABLE runs ADD COLUMN tags TEXT",  # words with spaces between them
    # Which images train, validate and test, from the config: only runs on one split may be ranked together.
    "ALTER TABLE runs ADD COLUMN split TEXT GENERATED ALWAYS AS (json_extract(config, '$.split')) VIRTUAL",
    "CREATE INDEX runs_by_images ON runs (dataset_sha256, split, state, validation_accuracy DESC)",
    _BEST_RUNS.format(statistics=""),
)

_STATISTICS = """
        bn_statistics || CASE transductive WHEN 1 THEN ' (transductive)' ELSE '' END AS bn_statistics,"""

_step(
    "m004_bn_statistics",
    # From the config; NULL without batch normalisation. Before there was a choice, it was the running averages.
    """
    ALTER TABLE runs ADD COLUMN bn_statistics TEXT GENERATED ALWAYS AS (
        CASE batch_norm WHEN 1 THEN coalesce(json_extract(config, '$.bn_statistics'), 'ema') END
    ) VIRTUAL
    """,
    # 1 where test images have had a part in their own classification
    """
    ALTER TABLE runs ADD COLUMN transductive INTEGER GENERATED ALWAYS AS (
        batch_norm = 1 AND coalesce(json_extract(config, '$.bn_statistics'), 'ema') IN ('adaptive', 'batch')
    ) VIRTUAL
    """,
    "DROP VIEW best_runs",
    _BEST_RUNS.format(statistics=_STATISTICS),
)

_step(
    "m005_options_of_updates",
    _setting("momentum", "REAL", 0.0),
    _setting("weight_decay", "REAL", 0.0),
    _setting("eta_decay", "REAL", 1.0),
)

_step(
    "m006_evaluations",
    """
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
    """,
    """
    CREATE TABLE evaluation_runs (
        evaluation_id INTEGER NOT NULL REFERENCES evaluations (id) ON DELETE CASCADE,
        run_id INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
        PRIMARY KEY (evaluation_id, run_id)
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX evaluations_of_run ON evaluation_runs (run_id)",
    # What is measured on the mean of several networks says nothing about those that are left.
    """
    CREATE TRIGGER evaluation_without_its_run AFTER DELETE ON evaluation_runs
    BEGIN DELETE FROM evaluations WHERE id = OLD.evaluation_id; END
    """,
)

_step(
    "m007_options_of_images",
    _setting("flip", "INTEGER", 0),
    _setting("shift", "INTEGER", 0),
    _setting("mixup", "REAL", 0),
    _setting("dropout", "REAL", 0),
    _setting("label_smoothing", "REAL", 0),
)

_step(
    "m008_averages_and_ensembles",
    """
    ALTER TABLE runs ADD COLUMN weight_average REAL
    GENERATED ALWAYS AS (coalesce(json_extract(config, '$.weight_average'), 0.0)) VIRTUAL
    """,
    "ALTER TABLE runs ADD COLUMN snapshots INTEGER",  # networks in the ensemble, NULL where none was asked for
    "ALTER TABLE runs ADD COLUMN ensemble_validation_loss REAL",
    "ALTER TABLE runs ADD COLUMN ensemble_validation_accuracy REAL",
    "ALTER TABLE runs ADD COLUMN ensemble_test_loss REAL",
    "ALTER TABLE runs ADD COLUMN ensemble_test_accuracy REAL",
)

_step(
    "m009_snapshots_evaluated_again",
    "ALTER TABLE evaluations ADD COLUMN snapshots INTEGER NOT NULL DEFAULT 0 CHECK (snapshots IN (0, 1))",
)

_step(
    "m010_shifts_and_whitening",
    "ALTER TABLE evaluations ADD COLUMN shifts INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE runs ADD COLUMN whitening INTEGER GENERATED ALWAYS AS (json_extract(config, '$.whitening')) VIRTUAL",
)
