ALTER TABLE runs ADD COLUMN flip INTEGER GENERATED ALWAYS AS (coalesce(json_extract(config, '$.flip'), 0)) VIRTUAL;
ALTER TABLE runs ADD COLUMN shift INTEGER GENERATED ALWAYS AS (coalesce(json_extract(config, '$.shift'), 0)) VIRTUAL;
ALTER TABLE runs ADD COLUMN mixup REAL GENERATED ALWAYS AS (coalesce(json_extract(config, '$.mixup'), 0)) VIRTUAL;
ALTER TABLE runs ADD COLUMN dropout REAL GENERATED ALWAYS AS (coalesce(json_extract(config, '$.dropout'), 0)) VIRTUAL;
ALTER TABLE runs ADD COLUMN label_smoothing REAL GENERATED ALWAYS AS (coalesce(json_extract(config, '$.label_smoothing'), 0)) VIRTUAL;
