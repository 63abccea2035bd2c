-- Before PostgreSQL 17 a session can only wait for the WAL writer. Where that did not come in time
-- the request may not be on disk: refuse, where 0005 went on.
CREATE OR REPLACE FUNCTION pii.flush() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    here pg_lsn := pg_current_wal_insert_lsn();
BEGIN
    IF current_setting('server_version_num')::integer >= 170000 THEN
        EXECUTE 'SELECT pg_logical_emit_message(false, ''sqs2pg'', ''''::text, true)';
        RETURN;
    END IF;
    FOR i IN 1 .. 500 LOOP
        IF pg_current_wal_flush_lsn() >= here THEN
            RETURN;
        END IF;
        PERFORM pg_sleep(0.01);
    END LOOP;
    RAISE EXCEPTION 'sqs2pg: the request is not known to be on disk yet' USING ERRCODE = '55000';
END
$$;
