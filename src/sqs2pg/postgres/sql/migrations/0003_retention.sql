-- Retention of the ledger and of the tally; called hourly by a running pipeline.

-- Drop the oldest day of the ledger if it lies before `keep_from`; say whether one was dropped.
-- One day a call, so that each lock is short: the day is counted while only it is locked, and the
-- ledger itself is locked only to move the bound. What was dropped goes to the tally, so that the
-- books still balance.
CREATE FUNCTION sqs2pg.drop_day(keep_from date) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
AS $$
DECLARE
    partition text;
    day date;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('sqs2pg.attach_days'));
    SELECT c.relname, to_date(right(c.relname, 8), 'YYYYMMDD') INTO partition, day
      FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
     WHERE i.inhparent = 'sqs2pg.delivery'::regclass AND c.relname ~ '^delivery_[0-9]{8}$'
     ORDER BY c.relname LIMIT 1;
    IF partition IS NULL OR day >= keep_from THEN
        RETURN false;
    END IF;
    EXECUTE format('LOCK TABLE sqs2pg.%I IN SHARE MODE', partition);
    EXECUTE format(
        'INSERT INTO sqs2pg.tally (pipeline, kind, written, quarantined, purged)
         SELECT d.pipeline, ''ledger_retention'',
                -count(*) FILTER (WHERE d.outcome = ''written''),
                -count(*) FILTER (WHERE d.outcome = ''quarantined''),
                -count(*) FILTER (WHERE d.outcome = ''quarantined'' AND q.key IS NULL)
           FROM sqs2pg.%I d LEFT JOIN sqs2pg.quarantine q ON q.key = d.key
          GROUP BY d.pipeline', partition);
    LOCK TABLE sqs2pg.delivery IN ACCESS EXCLUSIVE MODE;
    ALTER TABLE sqs2pg.delivery DETACH PARTITION sqs2pg.delivery_undated;
    EXECUTE format('ALTER TABLE sqs2pg.delivery DETACH PARTITION sqs2pg.%I', partition);
    EXECUTE format('DROP TABLE sqs2pg.%I', partition);
    EXECUTE format('ALTER TABLE sqs2pg.delivery ATTACH PARTITION sqs2pg.delivery_undated'
                   ' FOR VALUES FROM (MINVALUE) TO (%L)', sqs2pg.day_key(day + 1));
    RETURN true;
END
$$;
REVOKE ALL ON FUNCTION sqs2pg.drop_day(date) FROM PUBLIC;

-- Forget up to `most` entries whose key has no timestamp (FIFO, dedupe_key) and that were seen
-- before `keep_from`; return how many.
CREATE FUNCTION sqs2pg.drop_undated(keep_from timestamptz, most integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
AS $$
DECLARE
    dropped integer;
BEGIN
    WITH gone AS (
        DELETE FROM sqs2pg.delivery_undated WHERE ctid = ANY (ARRAY(
            SELECT u.ctid FROM sqs2pg.delivery_undated u WHERE u.seen_at < keep_from LIMIT most))
        RETURNING key, pipeline, outcome
    ), counted AS (
        INSERT INTO sqs2pg.tally (pipeline, kind, written, quarantined, purged)
        SELECT g.pipeline, 'ledger_retention',
               -count(*) FILTER (WHERE g.outcome = 'written'),
               -count(*) FILTER (WHERE g.outcome = 'quarantined'),
               -count(*) FILTER (WHERE g.outcome = 'quarantined' AND q.key IS NULL)
          FROM gone g LEFT JOIN sqs2pg.quarantine q ON q.key = g.key
         GROUP BY g.pipeline
    )
    SELECT count(*) INTO dropped FROM gone;
    RETURN dropped;
END
$$;
REVOKE ALL ON FUNCTION sqs2pg.drop_undated(timestamptz, integer) FROM PUBLIC;

-- Sum the batches of each day before `keep_from` into one row a pipeline and kind.
CREATE FUNCTION sqs2pg.compact_tally(keep_from timestamptz) RETURNS integer
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
           AND (t.pipeline, t.kind, (t.at AT TIME ZONE 'UTC')::date) IN (
            SELECT o.pipeline, o.kind, (o.at AT TIME ZONE 'UTC')::date FROM sqs2pg.tally o
             WHERE o.at < keep_from GROUP BY 1, 2, 3 HAVING count(*) > 1)
        RETURNING *
    ), summed AS (
        INSERT INTO sqs2pg.tally (pipeline, kind, written, quarantined, duplicate, target_rows, purged, at)
        SELECT pipeline, kind, sum(written), sum(quarantined), sum(duplicate), sum(target_rows),
               sum(purged), max(at)
          FROM old GROUP BY pipeline, kind, (at AT TIME ZONE 'UTC')::date
    )
    SELECT count(*) INTO merged FROM old;
    RETURN merged;
END
$$;
REVOKE ALL ON FUNCTION sqs2pg.compact_tally(timestamptz) FROM PUBLIC;

-- A message that has been delivered too often is tried alone; it is noted here first, so that one
-- that kills its worker alone is known by the note it left behind.
CREATE TABLE sqs2pg.suspect (
    key      uuid PRIMARY KEY,
    pipeline smallint NOT NULL,
    attempt  integer NOT NULL,               -- the delivery that is being tried
    tried_at timestamptz NOT NULL DEFAULT now()
);
