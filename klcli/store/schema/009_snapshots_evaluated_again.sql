ALTER TABLE evaluations ADD COLUMN snapshots INTEGER NOT NULL DEFAULT 0 CHECK (snapshots IN (0, 1));
