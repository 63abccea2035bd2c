-- Several targets a pipeline: where rows go by route, each held against a baseline of its own.

CREATE TABLE sqs2pg.target (
    pipeline      smallint NOT NULL,
    position      smallint NOT NULL,        -- from 0; 0 is the pipeline's own, which needs no name
    target        text NOT NULL,            -- schema.table, quoted where SQL wants it
    baseline_rows bigint NOT NULL,          -- rows it held before any pipeline's first one
    registered_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (pipeline, target)
);
INSERT INTO sqs2pg.target (pipeline, position, target, baseline_rows, registered_at)
SELECT id, 0, target, baseline_rows, registered_at FROM sqs2pg.pipeline;

-- NULL: the pipeline's own target. A batch that wrote to further ones has a row for each of them,
-- with its target_rows and no messages.
ALTER TABLE sqs2pg.tally ADD COLUMN target text;
-- Records that no route wanted and the settings let go: read, settled, written nowhere.
ALTER TABLE sqs2pg.tally ADD COLUMN dropped bigint NOT NULL DEFAULT 0;

-- What the mapping reads of a message beside its body, sealed like it, so that a replay has it too.
ALTER TABLE sqs2pg.quarantine ADD COLUMN attributes bytea;

CREATE OR REPLACE FUNCTION sqs2pg.compact_tally(keep_from timestamptz) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
AS $$
DECLARE
    merged integer;
BEGIN
    WITH old AS (
        DELETE FROM sqs2pg.tally t
         WHERE t.at < keep_from
           AND (t.pipeline, t.kind, coalesce(t.target, ''), (t.at AT TIME ZONE 'UTC')::date) IN (
            SELECT o.pipeline, o.kind, coalesce(o.target, ''), (o.at AT TIME ZONE 'UTC')::date
              FROM sqs2pg.tally o
             WHERE o.at < keep_from GROUP BY 1, 2, 3, 4 HAVING count(*) > 1)
        RETURNING *
    ), summed AS (
        INSERT INTO sqs2pg.tally (pipeline, kind, target, written, quarantined, duplicate, target_rows,
                                  purged, dropped, at)
        SELECT pipeline, kind, target, sum(written), sum(quarantined), sum(duplicate),
               sum(target_rows), sum(purged), sum(dropped), max(at)
          FROM old GROUP BY pipeline, kind, target, (at AT TIME ZONE 'UTC')::date
    )
    SELECT count(*) INTO merged FROM old;
    RETURN merged;
END
$$;
REVOKE ALL ON FUNCTION sqs2pg.compact_tally(timestamptz) FROM PUBLIC;
