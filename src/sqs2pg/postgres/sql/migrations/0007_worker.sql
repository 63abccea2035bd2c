-- The workers of a fleet: one row a process, renewed every few seconds. For people and the status
-- page alone: no delivery depends on it, and a row that is lost comes back with the next heartbeat.

CREATE TABLE sqs2pg.worker (
    id           uuid PRIMARY KEY,
    pipeline     smallint NOT NULL,
    host         text NOT NULL,
    pid          integer NOT NULL,
    version      text NOT NULL,             -- of sqs2pg
    started_at   timestamptz NOT NULL,
    heartbeat_at timestamptz NOT NULL DEFAULT now(),
    state        text NOT NULL,             -- starting, running, paused, stopping
    received     bigint NOT NULL DEFAULT 0, -- messages since it began, redeliveries too
    written      bigint NOT NULL DEFAULT 0,
    duplicate    bigint NOT NULL DEFAULT 0,
    quarantined  bigint NOT NULL DEFAULT 0,
    in_flight    integer NOT NULL DEFAULT 0,
    per_second   real NOT NULL DEFAULT 0,   -- settled since the heartbeat before
    last_fault   text NOT NULL DEFAULT ''   -- a code, never a quotation
);
CREATE INDEX worker_heartbeat ON sqs2pg.worker (pipeline, heartbeat_at);
-- A row changes often and is small: leave room to change it in place.
ALTER TABLE sqs2pg.worker SET (fillfactor = 50);

COMMENT ON TABLE sqs2pg.worker IS 'Worker processes by their last heartbeat; stale rows are removed.';

DO $$
DECLARE
    role text;
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'sqs2pg_ingest') THEN
        GRANT SELECT, INSERT, UPDATE, DELETE ON sqs2pg.worker TO sqs2pg_ingest;
    END IF;
    FOREACH role IN ARRAY ARRAY['sqs2pg_analyst', 'sqs2pg_auditor'] LOOP
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('GRANT SELECT ON sqs2pg.worker TO %I', role);
        END IF;
    END LOOP;
END
$$;
