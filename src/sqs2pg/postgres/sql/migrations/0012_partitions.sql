-- Targets that are partitioned by a date, and how: read by the functions below, written by migrate.
CREATE TABLE sqs2pg.partitioned (
    target         text PRIMARY KEY,        -- schema.table, quoted where SQL wants it
    column_name    text NOT NULL,
    every          text NOT NULL CHECK (every IN ('day', 'month')),
    ahead          integer NOT NULL CHECK (ahead BETWEEN 1 AND 100),
    retention_days integer NOT NULL DEFAULT 0 CHECK (retention_days >= 0)  -- 0: kept for ever
);

-- The name and bounds of the period that a day lies in.
CREATE FUNCTION sqs2pg.period(target regclass, every text, day date,
                              OUT name text, OUT first date, OUT next date)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT left(c.relname, 50) || '_p' || to_char(first, CASE every WHEN 'day' THEN 'YYYYMMDD' ELSE 'YYYYMM' END),
           first, (first + ('1 ' || every)::interval)::date
      FROM pg_class c, LATERAL (SELECT date_trunc(every, day::timestamp)::date AS first) f
     WHERE c.oid = target
$$;

-- Attach the period that a day lies in, with the rows of it that the default partition holds by
-- now, in one transaction; say how many rows moved, or NULL where the period is there already.
-- SECURITY DEFINER: the ingest role may call it and owns nothing.
CREATE FUNCTION sqs2pg.attach_period(of_target text, day date) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
AS $$
DECLARE
    how sqs2pg.partitioned;
    parent regclass;
    fallback regclass;
    part record;
    schema text;
    moved bigint := 0;
BEGIN
    SELECT * INTO how FROM sqs2pg.partitioned p WHERE p.target = of_target;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'sqs2pg.attach_period: no such partitioned target' USING ERRCODE = '22023';
    END IF;
    parent := of_target::regclass;
    PERFORM pg_advisory_xact_lock(hashtext('sqs2pg.partition'), parent::oid::integer);
    SELECT * INTO part FROM sqs2pg.period(parent, how.every, day);
    SELECT n.nspname INTO schema FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.oid = parent;
    IF to_regclass(format('%I.%I', schema, part.name)) IS NOT NULL THEN
        RETURN NULL;
    END IF;
    SELECT partdefid INTO fallback FROM pg_partitioned_table WHERE partrelid = parent AND partdefid <> 0;
    EXECUTE format('CREATE TABLE %I.%I (LIKE %s INCLUDING ALL)', schema, part.name, parent);
    IF fallback IS NOT NULL THEN
        -- Nobody may add rows of the period to the default partition from here on.
        EXECUTE format('LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE MODE', fallback);
        EXECUTE format('WITH gone AS (DELETE FROM ONLY %s WHERE %I >= %L AND %I < %L RETURNING *)
                        INSERT INTO %I.%I SELECT * FROM gone',
                       fallback, how.column_name, part.first, how.column_name, part.next, schema, part.name);
        GET DIAGNOSTICS moved = ROW_COUNT;
    END IF;
    EXECUTE format('ALTER TABLE %s ATTACH PARTITION %I.%I FOR VALUES FROM (%L) TO (%L)',
                   parent, schema, part.name, part.first, part.next);
    RETURN moved;
END
$$;
REVOKE ALL ON FUNCTION sqs2pg.attach_period(text, date) FROM PUBLIC;

-- Detach and drop the oldest period that ends by `keep_from`; say how many rows went with it, or NULL
-- where there is none. What was dropped goes to the tally, so that the books still balance.
CREATE FUNCTION sqs2pg.drop_period(of_target text, keep_from date) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
AS $$
DECLARE
    how sqs2pg.partitioned;
    parent regclass;
    oldest regclass;
    dropped bigint;
BEGIN
    SELECT * INTO how FROM sqs2pg.partitioned p WHERE p.target = of_target;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'sqs2pg.drop_period: no such partitioned target' USING ERRCODE = '22023';
    END IF;
    parent := of_target::regclass;
    PERFORM pg_advisory_xact_lock(hashtext('sqs2pg.partition'), parent::oid::integer);
    SELECT c.oid::regclass INTO oldest
      FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid,
           LATERAL (SELECT substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \(''([^'']+)''')) b(upper)
     WHERE i.inhparent = parent AND b.upper IS NOT NULL AND b.upper::date <= keep_from
     ORDER BY b.upper::date LIMIT 1;
    IF oldest IS NULL THEN
        RETURN NULL;
    END IF;
    EXECUTE format('ALTER TABLE %s DETACH PARTITION %s', parent, oldest);
    EXECUTE format('SELECT count(*) FROM %s', oldest) INTO dropped;
    EXECUTE format('DROP TABLE %s', oldest);
    INSERT INTO sqs2pg.tally (pipeline, kind, target_rows, target)
    SELECT min(t.pipeline), 'target_retention', -dropped, of_target
      FROM sqs2pg.target t WHERE t.target = of_target HAVING count(*) > 0;
    RETURN dropped;
END
$$;
REVOKE ALL ON FUNCTION sqs2pg.drop_period(text, date) FROM PUBLIC;
