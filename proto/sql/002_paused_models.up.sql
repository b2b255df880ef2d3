-- An operator may pause a model: its jobs wait until it is resumed. The set sg:paused in Redis follows this column.
ALTER TABLE models ADD COLUMN paused boolean NOT NULL DEFAULT false;
