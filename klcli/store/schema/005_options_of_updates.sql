-- What the config says, or what an older klcli without the setting did.
ALTER TABLE runs ADD COLUMN momentum REAL GENERATED ALWAYS AS (coalesce(json_extract(config, '$.momentum'), 0.0)) VIRTUAL;
ALTER TABLE runs ADD COLUMN weight_decay REAL GENERATED ALWAYS AS (coalesce(json_extract(config, '$.weight_decay'), 0.0)) VIRTUAL;
ALTER TABLE runs ADD COLUMN eta_decay REAL GENERATED ALWAYS AS (coalesce(json_extract(config, '$.eta_decay'), 1.0)) VIRTUAL;
