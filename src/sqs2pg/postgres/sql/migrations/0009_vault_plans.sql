-- The functions that a batch calls, bound to their indexes. Their plans are cached for a session,
-- and one that was made while the tables were small would read them whole when they have grown.

CREATE OR REPLACE FUNCTION pii.missing(subjects uuid[], fields text[], tokens text[])
RETURNS TABLE (entry integer, generation integer, wrapped_key bytea, key_version integer)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pii, pg_temp
AS $$
BEGIN
    -- Most often nothing is missing: the keys are looked up only for what is.
    RETURN QUERY
    WITH absent AS MATERIALIZED (
        SELECT e.subject, e.i
          FROM unnest(subjects, fields, tokens) WITH ORDINALITY AS e (subject, field, token, i)
         WHERE NOT EXISTS (
               SELECT FROM pii.value v
                WHERE v.subject = e.subject AND v.field = e.field AND v.token = e.token))
    SELECT a.i::integer,
           CASE WHEN k.wrapped_key IS NULL THEN coalesce(k.generation, 0) + 1 ELSE k.generation END,
           k.wrapped_key, k.key_version
      FROM absent a LEFT JOIN pii.subject_key k ON k.subject = a.subject;
END
$$;

DO $$
DECLARE
    name text;
    way text;
BEGIN
    FOREACH name IN ARRAY ARRAY[
        'pii.missing(uuid[], text[], text[])',
        'pii.open_subjects(uuid[], integer[], bytea[], integer, bytea[])',
        'pii.require_live_key()']
    LOOP
        FOREACH way IN ARRAY ARRAY['enable_seqscan', 'enable_hashjoin', 'enable_mergejoin'] LOOP
            EXECUTE format('ALTER FUNCTION %s SET %I = off', name, way);
        END LOOP;
    END LOOP;
END
$$;
