-- NULL without batch normalisation. Before there was a choice, it was the running averages.
    ALTER TABLE runs ADD COLUMN bn_statistics TEXT GENERATED ALWAYS AS (
        CASE batch_norm WHEN 1 THEN coalesce(json_extract(config, '$.bn_statistics'), 'ema') END
    ) VIRTUAL;

-- 1 where test images have had a part in their own classification.
    ALTER TABLE runs ADD COLUMN transductive INTEGER GENERATED ALWAYS AS (
        batch_norm = 1 AND coalesce(json_extract(config, '$.bn_statistics'), 'ema') IN ('adaptive', 'batch')
    ) VIRTUAL;

DROP VIEW best_runs;

    CREATE VIEW best_runs AS
    SELECT
        dataset AS images,
        split,
        rank() OVER (PARTITION BY dataset_sha256, split ORDER BY validation_accuracy DESC) AS place,
        id AS run,
        hidden AS hidden_widths,
        CASE batch_norm WHEN 1 THEN 'yes' ELSE 'no' END AS batch_normalisation,
        bn_statistics || CASE transductive WHEN 1 THEN ' (transductive)' ELSE '' END AS bn_statistics,
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
