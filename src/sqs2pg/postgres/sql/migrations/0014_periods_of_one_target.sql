-- 0012 cast the bounds of partitions to dates in one WHERE with the choice of the parent. A plan may
-- cast first, and the ledger's partitions are bounded by uuids: SQLSTATE 22007. Choose first.
CREATE OR REPLACE FUNCTION sqs2pg.drop_period(of_target text, keep_from date) RETURNS bigint
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
    WITH ours AS MATERIALIZED (
        SELECT c.oid::regclass AS part,
               substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \(''([^'']+)''') AS upper
          FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent = parent
    )
    SELECT part INTO oldest FROM ours WHERE upper::date <= keep_from ORDER BY upper::date LIMIT 1;
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
