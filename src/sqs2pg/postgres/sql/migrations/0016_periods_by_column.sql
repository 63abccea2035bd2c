-- 0012 moved rows out of the default partition by `*`: refused where the table has a generated column
-- (SQLSTATE 428C9), and wrong where the two have their columns in another order. Columns by name, and
-- no identity: a partition takes its parent's when it is attached.
CREATE OR REPLACE FUNCTION sqs2pg.attach_period(of_target text, day date) RETURNS bigint
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
    columns text;
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
    EXECUTE format('CREATE TABLE %I.%I (LIKE %s INCLUDING ALL EXCLUDING IDENTITY)', schema, part.name, parent);
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO columns FROM pg_attribute
     WHERE attrelid = parent AND attnum > 0 AND NOT attisdropped AND attgenerated = '';
    IF fallback IS NOT NULL THEN
        -- Nobody may add rows of the period to the default partition from here on.
        EXECUTE format('LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE MODE', fallback);
        EXECUTE format('WITH gone AS (DELETE FROM ONLY %s WHERE %I >= %L AND %I < %L RETURNING %s)
                        INSERT INTO %I.%I (%s) SELECT * FROM gone',
                       fallback, how.column_name, part.first, how.column_name, part.next, columns,
                       schema, part.name, columns);
        GET DIAGNOSTICS moved = ROW_COUNT;
    END IF;
    EXECUTE format('ALTER TABLE %s ATTACH PARTITION %I.%I FOR VALUES FROM (%L) TO (%L)',
                   parent, schema, part.name, part.first, part.next);
    RETURN moved;
END
$$;
