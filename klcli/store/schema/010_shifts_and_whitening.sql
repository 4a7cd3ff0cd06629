ALTER TABLE evaluations ADD COLUMN shifts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN whitening INTEGER GENERATED ALWAYS AS (json_extract(config, '$.whitening')) VIRTUAL;
