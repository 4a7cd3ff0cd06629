-- Words separated by spaces.
ALTER TABLE runs ADD COLUMN tags TEXT;
-- Which images train, validate and test: only runs on one split may be ranked together.
ALTER TABLE runs ADD COLUMN split TEXT GENERATED ALWAYS AS (json_extract(config, '$.split')) VIRTUAL;
CREATE INDEX runs_by_images ON runs (dataset_sha256, split, state, validation_accuracy DESC);

    CREATE VIEW best_runs AS
    SELECT
        dataset AS images,
        split,
        rank() OVER (PARTITION BY dataset_sha256, split ORDER BY validation_accuracy DESC) AS place,
        id AS run,
        hidden AS hidden_widths,
        CASE batch_norm WHEN 1 THEN 'yes' ELSE 'no' END AS batch_normalisation,
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
    ORDER BY dataset, dataset_sha256, split, place, run;
