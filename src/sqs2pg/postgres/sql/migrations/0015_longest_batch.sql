-- How long a worker's batches take at the most: `check` holds the visibility timeout against it.

ALTER TABLE sqs2pg.worker ADD COLUMN batch_s_max real NOT NULL DEFAULT 0;
COMMENT ON COLUMN sqs2pg.worker.batch_s_max IS 'seconds of its longest batch since it began';
