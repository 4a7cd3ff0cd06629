    ALTER TABLE runs ADD COLUMN weight_average REAL
    GENERATED ALWAYS AS (coalesce(json_extract(config, '$.weight_average'), 0.0)) VIRTUAL;

-- Networks in the ensemble, NULL where none was asked for.
ALTER TABLE runs ADD COLUMN snapshots INTEGER;
ALTER TABLE runs ADD COLUMN ensemble_validation_loss REAL;
ALTER TABLE runs ADD COLUMN ensemble_validation_accuracy REAL;
ALTER TABLE runs ADD COLUMN ensemble_test_loss REAL;
ALTER TABLE runs ADD COLUMN ensemble_test_accuracy REAL;
