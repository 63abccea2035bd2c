SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

CREATE SCHEMA pii;

COMMENT ON SCHEMA pii IS 'The vault of sqs2pg: sealed originals of masked values, and the keys they are sealed under.';

CREATE SCHEMA sqs2pg;

COMMENT ON SCHEMA sqs2pg IS 'The books of sqs2pg: who was delivered, what was set aside, what was counted.';

CREATE TYPE sqs2pg.delivery_outcome AS ENUM (
    'written',
    'quarantined'
);

CREATE FUNCTION pii.erased_at(of_subject uuid) RETURNS timestamp with time zone
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pii', 'pg_temp'
    AS $$ SELECT k.destroyed_at FROM pii.subject_key k WHERE k.subject = of_subject $$;

CREATE FUNCTION pii.fetch_reveal(request bigint) RETURNS TABLE(subject uuid, generation integer, field text, token text, sealed bytea, wrapped_key bytea, key_version integer, sealed_subject bytea, shared_by bigint)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pii', 'pg_temp'
    AS $$
#variable_conflict use_column
DECLARE
    asked pii.request;
    current_token text;
BEGIN
    SELECT r.* INTO asked FROM pii.request r
     WHERE r.id = request AND r.role = session_user::text
       AND r.at > clock_timestamp() - interval '10 minutes';
    -- A transaction that sees its own request is still in progress; so is one after a savepoint.
    IF asked.id IS NULL OR pg_xact_status(asked.transaction) IS DISTINCT FROM 'committed' THEN
        RAISE EXCEPTION 'sqs2pg: no committed request of this role within ten minutes'
            USING ERRCODE = '42501';
    END IF;
    PERFORM pii.flush();
    SELECT m.new_token INTO current_token FROM pii.token_map m WHERE m.old_token = asked.token;
    RETURN QUERY
    SELECT v.subject, v.generation, v.field, v.token, v.sealed, k.wrapped_key, k.key_version,
           k.sealed_subject, count(*) OVER (PARTITION BY v.field, v.token)
      FROM pii.value v
      JOIN pii.subject_key k ON k.subject = v.subject AND k.generation = v.generation
     WHERE (asked.token IS NULL OR v.token IN (asked.token, current_token))
       AND (asked.subject IS NULL OR v.subject = asked.subject)
       AND k.wrapped_key IS NOT NULL
     ORDER BY v.field, v.token, k.created_at, v.subject
     LIMIT asked.most;
END
$$;

CREATE FUNCTION pii.flush() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    here pg_lsn := pg_current_wal_insert_lsn();
BEGIN
    IF current_setting('server_version_num')::integer >= 170000 THEN
        EXECUTE 'SELECT pg_logical_emit_message(false, ''sqs2pg'', ''''::text, true)';
        RETURN;
    END IF;
    -- Before 17 only the WAL writer can be waited for: it takes three of its delays at the most.
    FOR i IN 1 .. 500 LOOP
        EXIT WHEN pg_current_wal_flush_lsn() >= here;
        PERFORM pg_sleep(0.01);
    END LOOP;
END
$$;

CREATE FUNCTION pii.lock_alone() RETURNS void
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$ SELECT pg_advisory_xact_lock(hashtext('sqs2pg.forget')) $$;

CREATE FUNCTION pii.lock_shared() RETURNS void
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$ SELECT pg_advisory_xact_lock_shared(hashtext('sqs2pg.forget')) $$;

CREATE FUNCTION pii.missing(subjects uuid[], fields text[], tokens text[]) RETURNS TABLE(entry integer, generation integer, wrapped_key bytea, key_version integer)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pii', 'pg_temp'
    AS $$
BEGIN
    RETURN QUERY
    SELECT e.i::integer,
           CASE WHEN k.wrapped_key IS NULL THEN coalesce(k.generation, 0) + 1 ELSE k.generation END,
           k.wrapped_key, k.key_version
      FROM unnest(subjects, fields, tokens) WITH ORDINALITY AS e (subject, field, token, i)
      LEFT JOIN pii.subject_key k ON k.subject = e.subject
     WHERE NOT EXISTS (
           SELECT FROM pii.value v
            WHERE v.subject = e.subject AND v.field = e.field AND v.token = e.token);
END
$$;

CREATE FUNCTION pii.open_subjects(subjects uuid[], generations integer[], wrapped_keys bytea[], version integer, sealed_subjects bytea[]) RETURNS TABLE(subject uuid, generation integer, wrapped_key bytea, key_version integer)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pii', 'pg_temp'
    AS $$
#variable_conflict use_column
BEGIN
    PERFORM pii.lock_shared();
    INSERT INTO pii.subject_key (subject, generation, wrapped_key, key_version, sealed_subject)
    SELECT n.subject, n.generation, n.wrapped_key, version, n.sealed_subject
      FROM unnest(subjects, generations, wrapped_keys, sealed_subjects)
           AS n (subject, generation, wrapped_key, sealed_subject)
     ORDER BY n.subject
    ON CONFLICT DO NOTHING;
    -- A person who was erased and has come back.
    PERFORM FROM pii.subject_key k
      WHERE k.subject = ANY (subjects) AND k.wrapped_key IS NULL ORDER BY k.subject FOR UPDATE;
    UPDATE pii.subject_key k
       SET generation = n.generation, wrapped_key = n.wrapped_key, key_version = version,
           sealed_subject = n.sealed_subject, created_at = now(), destroyed_at = NULL
      FROM unnest(subjects, generations, wrapped_keys, sealed_subjects)
           AS n (subject, generation, wrapped_key, sealed_subject)
     WHERE k.subject = n.subject AND k.wrapped_key IS NULL AND k.generation = n.generation - 1;
    RETURN QUERY SELECT k.subject, k.generation, k.wrapped_key, k.key_version
      FROM pii.subject_key k WHERE k.subject = ANY (subjects) AND k.wrapped_key IS NOT NULL;
END
$$;

CREATE FUNCTION pii.reference_key(OUT wrapped bytea, OUT wrapped_by text) RETURNS record
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pii', 'pg_temp'
    AS $$ SELECT s.reference_key, s.reference_wrapped_by FROM pii.state s $$;

CREATE FUNCTION pii.request_reveal(wanted_token text, wanted_subject uuid, most integer, reason text, ticket text DEFAULT ''::text, OUT granted boolean, OUT sequence bigint, OUT hash bytea) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pii', 'pg_temp'
    AS $$
#variable_conflict use_column
DECLARE
    what text;
BEGIN
    IF wanted_token IS NULL AND wanted_subject IS NULL THEN
        RAISE EXCEPTION 'sqs2pg: neither token nor subject' USING ERRCODE = '22023';
    END IF;
    IF most IS NULL OR most NOT BETWEEN 1 AND 1000 OR length(btrim(reason)) IS NOT DISTINCT FROM 0
       OR reason IS NULL THEN
        RAISE EXCEPTION 'sqs2pg: 1 to 1000 values, and a reason' USING ERRCODE = '22023';
    END IF;
    -- The head first, so that requests are counted one after the other.
    PERFORM FROM sqs2pg.audit_head FOR UPDATE;
    SELECT coalesce(sum(r.most), 0) + request_reveal.most <= max(s.reveals_per_hour_max)
      INTO granted
      FROM pii.state s LEFT JOIN pii.request r
        ON r.role = session_user::text AND r.at > clock_timestamp() - interval '1 hour';
    what := concat_ws(', ', 'token ' || left(wanted_token, 300), 'subject ' || wanted_subject::text,
                      'up to ' || most || ' values');
    SELECT a.sequence, a.hash INTO sequence, hash FROM sqs2pg.record_act(
        CASE WHEN granted THEN 'reveal' ELSE 'reveal_refused' END, what, reason,
        coalesce(ticket, '')) a;
    IF granted THEN
        DELETE FROM pii.request r WHERE r.at < clock_timestamp() - interval '1 day';
        INSERT INTO pii.request (id, role, at, transaction, token, subject, most)
        VALUES (sequence, session_user::text, clock_timestamp(), pg_current_xact_id(),
                wanted_token, wanted_subject, most);
    END IF;
END
$$;

CREATE FUNCTION pii.require_live_key() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pii', 'pg_temp'
    AS $$
BEGIN
    PERFORM pii.lock_shared();
    IF EXISTS (
        SELECT FROM added a WHERE NOT EXISTS (
            SELECT FROM pii.subject_key k WHERE k.subject = a.subject
               AND k.generation = a.generation AND k.wrapped_key IS NOT NULL))
    THEN
        RAISE EXCEPTION 'sqs2pg: a value is sealed under a key that was destroyed'
            USING ERRCODE = '55000';
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION pii.set_reference_key(wrapped bytea, wrapped_by text) RETURNS void
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pii', 'pg_temp'
    AS $$
    UPDATE pii.state SET reference_key = wrapped, reference_wrapped_by = wrapped_by
     WHERE reference_key IS NULL
$$;

CREATE FUNCTION sqs2pg.attach_days(first_day date, last_day date) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '5s'
    AS $$
DECLARE
    day date;
    partition text;
    attached integer := 0;
    dated_from uuid;
BEGIN
    IF last_day - first_day > 400 THEN
        RAISE EXCEPTION 'sqs2pg.attach_days: more than 400 days asked for' USING ERRCODE = '22023';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('sqs2pg.attach_days'));
    -- Days below the undated partition's upper bound are its own.
    SELECT substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \(''([^'']+)''\)')::uuid
      INTO dated_from FROM pg_class c WHERE c.oid = 'sqs2pg.delivery_undated'::regclass;
    FOR day IN SELECT generate_series(first_day, last_day, interval '1 day')::date LOOP
        CONTINUE WHEN dated_from IS NOT NULL AND sqs2pg.day_key(day) < dated_from;
        partition := 'delivery_' || to_char(day, 'YYYYMMDD');
        CONTINUE WHEN to_regclass('sqs2pg.' || partition) IS NOT NULL;
        EXECUTE format('CREATE TABLE sqs2pg.%I (LIKE sqs2pg.delivery INCLUDING ALL)', partition);
        EXECUTE format('ALTER TABLE sqs2pg.delivery ATTACH PARTITION sqs2pg.%I FOR VALUES FROM (%L) TO (%L)',
                       partition, sqs2pg.day_key(day), sqs2pg.day_key(day + 1));
        attached := attached + 1;
    END LOOP;
    RETURN attached;
END
$$;

CREATE FUNCTION sqs2pg.compact_tally(keep_from timestamp with time zone) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '5s'
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

CREATE FUNCTION sqs2pg.day_key(day date) RETURNS uuid
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT (lpad(to_hex((day - date '1970-01-01')::bigint * 86400000), 12, '0')
            || '00000000000000000000')::uuid
$$;

CREATE FUNCTION sqs2pg.drop_day(keep_from date) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '5s'
    AS $_$
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
$_$;

CREATE FUNCTION sqs2pg.drop_undated(keep_from timestamp with time zone, most integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '5s'
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

CREATE FUNCTION sqs2pg.record_act(act text, subject text, reason text DEFAULT ''::text, ticket text DEFAULT ''::text, OUT sequence bigint, OUT hash bytea) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    now_at timestamptz;
    previous bytea;
    field bytea;
    text_fields text[];
    covered bytea := '';
BEGIN
    IF current_setting('synchronous_commit') <> 'remote_apply' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    SELECT h.sequence + 1, h.hash INTO STRICT record_act.sequence, previous
      FROM sqs2pg.audit_head h FOR UPDATE;
    now_at := clock_timestamp();  -- after the lock, so that times rise with the sequence
    -- Each field has its length before it (4 bytes, big-endian), so that no two rows give the
    -- same bytes. The time as whole microseconds since 1970: the same in every time zone.
    text_fields := ARRAY[
        'sqs2pg/1/audit', record_act.sequence::text,
        (extract(epoch FROM now_at) * 1000000)::bigint::text,
        session_user::text, act, subject, reason, ticket];
    FOR i IN 1 .. cardinality(text_fields) LOOP
        field := convert_to(text_fields[i], 'UTF8');
        covered := covered || int4send(length(field)) || field;
    END LOOP;
    record_act.hash := sha256(covered || int4send(length(previous)) || previous);
    INSERT INTO sqs2pg.audit (sequence, at, role, act, subject, reason, ticket, previous_hash, hash)
    VALUES (record_act.sequence, now_at, session_user::text, act, subject, reason, ticket,
            previous, record_act.hash);
    UPDATE sqs2pg.audit_head h SET sequence = record_act.sequence, hash = record_act.hash;
END
$$;

CREATE FUNCTION sqs2pg.refuse_change() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    RAISE EXCEPTION 'sqs2pg: the audit is append-only' USING ERRCODE = '42501';
END
$$;

SET default_tablespace = '';

SET default_table_access_method = heap;

CREATE TABLE pii.erasure (
    id bigint NOT NULL,
    subject uuid NOT NULL,
    pseudonym uuid,
    begun_at timestamp with time zone DEFAULT now() NOT NULL,
    finished_at timestamp with time zone,
    rows_changed bigint DEFAULT 0 NOT NULL
);

ALTER TABLE pii.erasure ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME pii.erasure_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE pii.request (
    id bigint NOT NULL,
    role text NOT NULL,
    at timestamp with time zone NOT NULL,
    transaction xid8 NOT NULL,
    token text,
    subject uuid,
    most integer NOT NULL
);

CREATE TABLE pii.state (
    one boolean DEFAULT true NOT NULL,
    epoch bigint DEFAULT 1 NOT NULL,
    reveals_per_hour_max integer DEFAULT 1000 NOT NULL,
    reference_key bytea,
    reference_wrapped_by text,
    CONSTRAINT state_one_check CHECK (one),
    CONSTRAINT state_reveals_per_hour_max_check CHECK ((reveals_per_hour_max >= 0))
);

CREATE TABLE pii.subject_key (
    subject uuid NOT NULL,
    generation integer NOT NULL,
    wrapped_key bytea,
    key_version integer,
    sealed_subject bytea,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    destroyed_at timestamp with time zone,
    CONSTRAINT subject_key_check CHECK (((wrapped_key IS NULL) = (destroyed_at IS NOT NULL))),
    CONSTRAINT subject_key_check1 CHECK (((wrapped_key IS NULL) = (key_version IS NULL))),
    CONSTRAINT subject_key_check2 CHECK (((wrapped_key IS NULL) = (sealed_subject IS NULL))),
    CONSTRAINT subject_key_generation_check CHECK ((generation > 0))
);

CREATE TABLE pii.token_map (
    old_token text NOT NULL,
    new_token text NOT NULL
);

CREATE TABLE pii.value (
    subject uuid NOT NULL,
    generation integer NOT NULL,
    field text NOT NULL,
    token text NOT NULL,
    sealed bytea NOT NULL
);

CREATE TABLE public.user_logins (
    user_id character varying(128),
    device_type character varying(32),
    masked_ip character varying(256),
    masked_device_id character varying(256),
    locale character varying(32),
    app_version integer,
    create_date date
);

CREATE TABLE sqs2pg.audit (
    sequence bigint NOT NULL,
    at timestamp with time zone NOT NULL,
    role text NOT NULL,
    act text NOT NULL,
    subject text NOT NULL,
    reason text NOT NULL,
    ticket text NOT NULL,
    previous_hash bytea NOT NULL,
    hash bytea NOT NULL,
    CONSTRAINT audit_act_check CHECK (((act ~ '^[a-z]+(_[a-z]+)*$'::text) AND (length(act) <= 32))),
    CONSTRAINT audit_hash_check CHECK ((length(hash) = 32)),
    CONSTRAINT audit_previous_hash_check CHECK ((length(previous_hash) = 32)),
    CONSTRAINT audit_reason_check CHECK ((length(reason) <= 500)),
    CONSTRAINT audit_sequence_check CHECK ((sequence > 0)),
    CONSTRAINT audit_subject_check CHECK ((length(subject) <= 500)),
    CONSTRAINT audit_ticket_check CHECK ((length(ticket) <= 100))
);

CREATE TABLE sqs2pg.audit_head (
    one boolean DEFAULT true NOT NULL,
    sequence bigint NOT NULL,
    hash bytea NOT NULL,
    CONSTRAINT audit_head_one_check CHECK (one)
);

CREATE TABLE sqs2pg.delivery (
    key uuid NOT NULL,
    message_id text NOT NULL,
    pipeline smallint NOT NULL,
    outcome sqs2pg.delivery_outcome NOT NULL,
    seen_at timestamp with time zone
)
PARTITION BY RANGE (key);

CREATE TABLE sqs2pg.delivery_20261110 (
    key uuid CONSTRAINT delivery_key_not_null NOT NULL,
    message_id text CONSTRAINT delivery_message_id_not_null NOT NULL,
    pipeline smallint CONSTRAINT delivery_pipeline_not_null NOT NULL,
    outcome sqs2pg.delivery_outcome CONSTRAINT delivery_outcome_not_null NOT NULL,
    seen_at timestamp with time zone
);

CREATE TABLE sqs2pg.delivery_20261111 (
    key uuid CONSTRAINT delivery_key_not_null NOT NULL,
    message_id text CONSTRAINT delivery_message_id_not_null NOT NULL,
    pipeline smallint CONSTRAINT delivery_pipeline_not_null NOT NULL,
    outcome sqs2pg.delivery_outcome CONSTRAINT delivery_outcome_not_null NOT NULL,
    seen_at timestamp with time zone
);

CREATE TABLE sqs2pg.delivery_20261112 (
    key uuid CONSTRAINT delivery_key_not_null NOT NULL,
    message_id text CONSTRAINT delivery_message_id_not_null NOT NULL,
    pipeline smallint CONSTRAINT delivery_pipeline_not_null NOT NULL,
    outcome sqs2pg.delivery_outcome CONSTRAINT delivery_outcome_not_null NOT NULL,
    seen_at timestamp with time zone
);

CREATE TABLE sqs2pg.delivery_20261113 (
    key uuid CONSTRAINT delivery_key_not_null NOT NULL,
    message_id text CONSTRAINT delivery_message_id_not_null NOT NULL,
    pipeline smallint CONSTRAINT delivery_pipeline_not_null NOT NULL,
    outcome sqs2pg.delivery_outcome CONSTRAINT delivery_outcome_not_null NOT NULL,
    seen_at timestamp with time zone
);

CREATE TABLE sqs2pg.delivery_20261114 (
    key uuid CONSTRAINT delivery_key_not_null NOT NULL,
    message_id text CONSTRAINT delivery_message_id_not_null NOT NULL,
    pipeline smallint CONSTRAINT delivery_pipeline_not_null NOT NULL,
    outcome sqs2pg.delivery_outcome CONSTRAINT delivery_outcome_not_null NOT NULL,
    seen_at timestamp with time zone
);

CREATE TABLE sqs2pg.delivery_20261115 (
    key uuid CONSTRAINT delivery_key_not_null NOT NULL,
    message_id text CONSTRAINT delivery_message_id_not_null NOT NULL,
    pipeline smallint CONSTRAINT delivery_pipeline_not_null NOT NULL,
    outcome sqs2pg.delivery_outcome CONSTRAINT delivery_outcome_not_null NOT NULL,
    seen_at timestamp with time zone
);

CREATE TABLE sqs2pg.delivery_20261116 (
    key uuid CONSTRAINT delivery_key_not_null NOT NULL,
    message_id text CONSTRAINT delivery_message_id_not_null NOT NULL,
    pipeline smallint CONSTRAINT delivery_pipeline_not_null NOT NULL,
    outcome sqs2pg.delivery_outcome CONSTRAINT delivery_outcome_not_null NOT NULL,
    seen_at timestamp with time zone
);

CREATE TABLE sqs2pg.delivery_20261117 (
    key uuid CONSTRAINT delivery_key_not_null NOT NULL,
    message_id text CONSTRAINT delivery_message_id_not_null NOT NULL,
    pipeline smallint CONSTRAINT delivery_pipeline_not_null NOT NULL,
    outcome sqs2pg.delivery_outcome CONSTRAINT delivery_outcome_not_null NOT NULL,
    seen_at timestamp with time zone
);

CREATE TABLE sqs2pg.delivery_20261118 (
    key uuid CONSTRAINT delivery_key_not_null NOT NULL,
    message_id text CONSTRAINT delivery_message_id_not_null NOT NULL,
    pipeline smallint CONSTRAINT delivery_pipeline_not_null NOT NULL,
    outcome sqs2pg.delivery_outcome CONSTRAINT delivery_outcome_not_null NOT NULL,
    seen_at timestamp with time zone
);

CREATE TABLE sqs2pg.delivery_20261119 (
    key uuid CONSTRAINT delivery_key_not_null NOT NULL,
    message_id text CONSTRAINT delivery_message_id_not_null NOT NULL,
    pipeline smallint CONSTRAINT delivery_pipeline_not_null NOT NULL,
    outcome sqs2pg.delivery_outcome CONSTRAINT delivery_outcome_not_null NOT NULL,
    seen_at timestamp with time zone
);

CREATE TABLE sqs2pg.delivery_20261120 (
    key uuid CONSTRAINT delivery_key_not_null NOT NULL,
    message_id text CONSTRAINT delivery_message_id_not_null NOT NULL,
    pipeline smallint CONSTRAINT delivery_pipeline_not_null NOT NULL,
    outcome sqs2pg.delivery_outcome CONSTRAINT delivery_outcome_not_null NOT NULL,
    seen_at timestamp with time zone
);

CREATE TABLE sqs2pg.delivery_20261121 (
    key uuid CONSTRAINT delivery_key_not_null NOT NULL,
    message_id text CONSTRAINT delivery_message_id_not_null NOT NULL,
    pipeline smallint CONSTRAINT delivery_pipeline_not_null NOT NULL,
    outcome sqs2pg.delivery_outcome CONSTRAINT delivery_outcome_not_null NOT NULL,
    seen_at timestamp with time zone
);

CREATE TABLE sqs2pg.delivery_20261122 (
    key uuid CONSTRAINT delivery_key_not_null NOT NULL,
    message_id text CONSTRAINT delivery_message_id_not_null NOT NULL,
    pipeline smallint CONSTRAINT delivery_pipeline_not_null NOT NULL,
    outcome sqs2pg.delivery_outcome CONSTRAINT delivery_outcome_not_null NOT NULL,
    seen_at timestamp with time zone
);

CREATE TABLE sqs2pg.delivery_20261123 (
    key uuid CONSTRAINT delivery_key_not_null NOT NULL,
    message_id text CONSTRAINT delivery_message_id_not_null NOT NULL,
    pipeline smallint CONSTRAINT delivery_pipeline_not_null NOT NULL,
    outcome sqs2pg.delivery_outcome CONSTRAINT delivery_outcome_not_null NOT NULL,
    seen_at timestamp with time zone
);

CREATE TABLE sqs2pg.delivery_20261124 (
    key uuid CONSTRAINT delivery_key_not_null NOT NULL,
    message_id text CONSTRAINT delivery_message_id_not_null NOT NULL,
    pipeline smallint CONSTRAINT delivery_pipeline_not_null NOT NULL,
    outcome sqs2pg.delivery_outcome CONSTRAINT delivery_outcome_not_null NOT NULL,
    seen_at timestamp with time zone
);

CREATE TABLE sqs2pg.delivery_20261125 (
    key uuid CONSTRAINT delivery_key_not_null NOT NULL,
    message_id text CONSTRAINT delivery_message_id_not_null NOT NULL,
    pipeline smallint CONSTRAINT delivery_pipeline_not_null NOT NULL,
    outcome sqs2pg.delivery_outcome CONSTRAINT delivery_outcome_not_null NOT NULL,
    seen_at timestamp with time zone
);

CREATE TABLE sqs2pg.delivery_20261126 (
    key uuid CONSTRAINT delivery_key_not_null NOT NULL,
    message_id text CONSTRAINT delivery_message_id_not_null NOT NULL,
    pipeline smallint CONSTRAINT delivery_pipeline_not_null NOT NULL,
    outcome sqs2pg.delivery_outcome CONSTRAINT delivery_outcome_not_null NOT NULL,
    seen_at timestamp with time zone
);

CREATE TABLE sqs2pg.delivery_20261127 (
    key uuid CONSTRAINT delivery_key_not_null NOT NULL,
    message_id text CONSTRAINT delivery_message_id_not_null NOT NULL,
    pipeline smallint CONSTRAINT delivery_pipeline_not_null NOT NULL,
    outcome sqs2pg.delivery_outcome CONSTRAINT delivery_outcome_not_null NOT NULL,
    seen_at timestamp with time zone
);

CREATE TABLE sqs2pg.delivery_20261128 (
    key uuid CONSTRAINT delivery_key_not_null NOT NULL,
    message_id text CONSTRAINT delivery_message_id_not_null NOT NULL,
    pipeline smallint CONSTRAINT delivery_pipeline_not_null NOT NULL,
    outcome sqs2pg.delivery_outcome CONSTRAINT delivery_outcome_not_null NOT NULL,
    seen_at timestamp with time zone
);

CREATE TABLE sqs2pg.delivery_20261129 (
    key uuid CONSTRAINT delivery_key_not_null NOT NULL,
    message_id text CONSTRAINT delivery_message_id_not_null NOT NULL,
    pipeline smallint CONSTRAINT delivery_pipeline_not_null NOT NULL,
    outcome sqs2pg.delivery_outcome CONSTRAINT delivery_outcome_not_null NOT NULL,
    seen_at timestamp with time zone
);

CREATE TABLE sqs2pg.delivery_20261130 (
    key uuid CONSTRAINT delivery_key_not_null NOT NULL,
    message_id text CONSTRAINT delivery_message_id_not_null NOT NULL,
    pipeline smallint CONSTRAINT delivery_pipeline_not_null NOT NULL,
    outcome sqs2pg.delivery_outcome CONSTRAINT delivery_outcome_not_null NOT NULL,
    seen_at timestamp with time zone
);

CREATE TABLE sqs2pg.delivery_20261201 (
    key uuid CONSTRAINT delivery_key_not_null NOT NULL,
    message_id text CONSTRAINT delivery_message_id_not_null NOT NULL,
    pipeline smallint CONSTRAINT delivery_pipeline_not_null NOT NULL,
    outcome sqs2pg.delivery_outcome CONSTRAINT delivery_outcome_not_null NOT NULL,
    seen_at timestamp with time zone
);

CREATE TABLE sqs2pg.delivery_20261202 (
    key uuid CONSTRAINT delivery_key_not_null NOT NULL,
    message_id text CONSTRAINT delivery_message_id_not_null NOT NULL,
    pipeline smallint CONSTRAINT delivery_pipeline_not_null NOT NULL,
    outcome sqs2pg.delivery_outcome CONSTRAINT delivery_outcome_not_null NOT NULL,
    seen_at timestamp with time zone
);

CREATE TABLE sqs2pg.delivery_undated (
    key uuid CONSTRAINT delivery_key_not_null NOT NULL,
    message_id text CONSTRAINT delivery_message_id_not_null NOT NULL,
    pipeline smallint CONSTRAINT delivery_pipeline_not_null NOT NULL,
    outcome sqs2pg.delivery_outcome CONSTRAINT delivery_outcome_not_null NOT NULL,
    seen_at timestamp with time zone
);

CREATE TABLE sqs2pg.key (
    series text NOT NULL,
    version integer NOT NULL,
    fingerprint text NOT NULL,
    active boolean NOT NULL,
    recorded_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT key_series_check CHECK ((series = ANY (ARRAY['pseudonym'::text, 'vault'::text]))),
    CONSTRAINT key_version_check CHECK ((version > 0))
);

CREATE TABLE sqs2pg.migration (
    version integer NOT NULL,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE sqs2pg.pipeline (
    id smallint NOT NULL,
    name text NOT NULL,
    target text NOT NULL,
    baseline_rows bigint NOT NULL,
    registered_at timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE sqs2pg.pipeline ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME sqs2pg.pipeline_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE sqs2pg.quarantine (
    id bigint NOT NULL,
    key uuid NOT NULL,
    message_id text NOT NULL,
    pipeline smallint NOT NULL,
    reason text NOT NULL,
    detail text NOT NULL,
    attempts integer NOT NULL,
    sent_at timestamp with time zone NOT NULL,
    received_at timestamp with time zone DEFAULT now() NOT NULL,
    body bytea NOT NULL,
    sealed_under text NOT NULL,
    replayed_at timestamp with time zone,
    subject uuid,
    attributes bytea
);

COMMENT ON COLUMN sqs2pg.quarantine.subject IS 'reference of the person, where the body names one';

ALTER TABLE sqs2pg.quarantine ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME sqs2pg.quarantine_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE sqs2pg.suspect (
    key uuid NOT NULL,
    pipeline smallint NOT NULL,
    attempt integer NOT NULL,
    tried_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE sqs2pg.tally (
    id bigint NOT NULL,
    pipeline smallint NOT NULL,
    kind text DEFAULT 'batch'::text NOT NULL,
    written bigint DEFAULT 0 NOT NULL,
    quarantined bigint DEFAULT 0 NOT NULL,
    duplicate bigint DEFAULT 0 NOT NULL,
    target_rows bigint DEFAULT 0 NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL,
    purged bigint DEFAULT 0 NOT NULL,
    target text,
    dropped bigint DEFAULT 0 NOT NULL
);

COMMENT ON COLUMN sqs2pg.tally.purged IS 'ledger entries left as quarantined whose quarantine row was purged';

ALTER TABLE sqs2pg.tally ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME sqs2pg.tally_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE sqs2pg.target (
    pipeline smallint NOT NULL,
    "position" smallint NOT NULL,
    target text NOT NULL,
    baseline_rows bigint NOT NULL,
    registered_at timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE ONLY sqs2pg.delivery ATTACH PARTITION sqs2pg.delivery_20261110 FOR VALUES FROM ('01a1c2c1-2400-0000-0000-000000000000') TO ('01a1c7e7-8000-0000-0000-000000000000');

ALTER TABLE ONLY sqs2pg.delivery ATTACH PARTITION sqs2pg.delivery_20261111 FOR VALUES FROM ('01a1c7e7-8000-0000-0000-000000000000') TO ('01a1cd0d-dc00-0000-0000-000000000000');

ALTER TABLE ONLY sqs2pg.delivery ATTACH PARTITION sqs2pg.delivery_20261112 FOR VALUES FROM ('01a1cd0d-dc00-0000-0000-000000000000') TO ('01a1d234-3800-0000-0000-000000000000');

ALTER TABLE ONLY sqs2pg.delivery ATTACH PARTITION sqs2pg.delivery_20261113 FOR VALUES FROM ('01a1d234-3800-0000-0000-000000000000') TO ('01a1d75a-9400-0000-0000-000000000000');

ALTER TABLE ONLY sqs2pg.delivery ATTACH PARTITION sqs2pg.delivery_20261114 FOR VALUES FROM ('01a1d75a-9400-0000-0000-000000000000') TO ('01a1dc80-f000-0000-0000-000000000000');

ALTER TABLE ONLY sqs2pg.delivery ATTACH PARTITION sqs2pg.delivery_20261115 FOR VALUES FROM ('01a1dc80-f000-0000-0000-000000000000') TO ('01a1e1a7-4c00-0000-0000-000000000000');

ALTER TABLE ONLY sqs2pg.delivery ATTACH PARTITION sqs2pg.delivery_20261116 FOR VALUES FROM ('01a1e1a7-4c00-0000-0000-000000000000') TO ('01a1e6cd-a800-0000-0000-000000000000');

ALTER TABLE ONLY sqs2pg.delivery ATTACH PARTITION sqs2pg.delivery_20261117 FOR VALUES FROM ('01a1e6cd-a800-0000-0000-000000000000') TO ('01a1ebf4-0400-0000-0000-000000000000');

ALTER TABLE ONLY sqs2pg.delivery ATTACH PARTITION sqs2pg.delivery_20261118 FOR VALUES FROM ('01a1ebf4-0400-0000-0000-000000000000') TO ('01a1f11a-6000-0000-0000-000000000000');

ALTER TABLE ONLY sqs2pg.delivery ATTACH PARTITION sqs2pg.delivery_20261119 FOR VALUES FROM ('01a1f11a-6000-0000-0000-000000000000') TO ('01a1f640-bc00-0000-0000-000000000000');

ALTER TABLE ONLY sqs2pg.delivery ATTACH PARTITION sqs2pg.delivery_20261120 FOR VALUES FROM ('01a1f640-bc00-0000-0000-000000000000') TO ('01a1fb67-1800-0000-0000-000000000000');

ALTER TABLE ONLY sqs2pg.delivery ATTACH PARTITION sqs2pg.delivery_20261121 FOR VALUES FROM ('01a1fb67-1800-0000-0000-000000000000') TO ('01a2008d-7400-0000-0000-000000000000');

ALTER TABLE ONLY sqs2pg.delivery ATTACH PARTITION sqs2pg.delivery_20261122 FOR VALUES FROM ('01a2008d-7400-0000-0000-000000000000') TO ('01a205b3-d000-0000-0000-000000000000');

ALTER TABLE ONLY sqs2pg.delivery ATTACH PARTITION sqs2pg.delivery_20261123 FOR VALUES FROM ('01a205b3-d000-0000-0000-000000000000') TO ('01a20ada-2c00-0000-0000-000000000000');

ALTER TABLE ONLY sqs2pg.delivery ATTACH PARTITION sqs2pg.delivery_20261124 FOR VALUES FROM ('01a20ada-2c00-0000-0000-000000000000') TO ('01a21000-8800-0000-0000-000000000000');

ALTER TABLE ONLY sqs2pg.delivery ATTACH PARTITION sqs2pg.delivery_20261125 FOR VALUES FROM ('01a21000-8800-0000-0000-000000000000') TO ('01a21526-e400-0000-0000-000000000000');

ALTER TABLE ONLY sqs2pg.delivery ATTACH PARTITION sqs2pg.delivery_20261126 FOR VALUES FROM ('01a21526-e400-0000-0000-000000000000') TO ('01a21a4d-4000-0000-0000-000000000000');

ALTER TABLE ONLY sqs2pg.delivery ATTACH PARTITION sqs2pg.delivery_20261127 FOR VALUES FROM ('01a21a4d-4000-0000-0000-000000000000') TO ('01a21f73-9c00-0000-0000-000000000000');

ALTER TABLE ONLY sqs2pg.delivery ATTACH PARTITION sqs2pg.delivery_20261128 FOR VALUES FROM ('01a21f73-9c00-0000-0000-000000000000') TO ('01a22499-f800-0000-0000-000000000000');

ALTER TABLE ONLY sqs2pg.delivery ATTACH PARTITION sqs2pg.delivery_20261129 FOR VALUES FROM ('01a22499-f800-0000-0000-000000000000') TO ('01a229c0-5400-0000-0000-000000000000');

ALTER TABLE ONLY sqs2pg.delivery ATTACH PARTITION sqs2pg.delivery_20261130 FOR VALUES FROM ('01a229c0-5400-0000-0000-000000000000') TO ('01a22ee6-b000-0000-0000-000000000000');

ALTER TABLE ONLY sqs2pg.delivery ATTACH PARTITION sqs2pg.delivery_20261201 FOR VALUES FROM ('01a22ee6-b000-0000-0000-000000000000') TO ('01a2340d-0c00-0000-0000-000000000000');

ALTER TABLE ONLY sqs2pg.delivery ATTACH PARTITION sqs2pg.delivery_20261202 FOR VALUES FROM ('01a2340d-0c00-0000-0000-000000000000') TO ('01a23933-6800-0000-0000-000000000000');

ALTER TABLE ONLY sqs2pg.delivery ATTACH PARTITION sqs2pg.delivery_undated FOR VALUES FROM (MINVALUE) TO ('01a1c2c1-2400-0000-0000-000000000000');

INSERT INTO pii.state VALUES (true, 1, 1000, NULL, NULL);

INSERT INTO public.user_logins VALUES ('u1', NULL, NULL, NULL, NULL, NULL, '2020-01-01');

INSERT INTO sqs2pg.audit_head VALUES (true, 0, '\x0000000000000000000000000000000000000000000000000000000000000000');

INSERT INTO sqs2pg.delivery_undated VALUES ('00000000-0000-7000-8000-000000000001', 'm1', 1, 'written', NULL);
INSERT INTO sqs2pg.delivery_undated VALUES ('00000000-0000-7000-8000-000000000002', 'm2', 1, 'quarantined', NULL);

INSERT INTO sqs2pg.key VALUES ('pseudonym', 1, 'ffffffffffffffff', true, '2026-11-25 14:57:34.60009+00');

INSERT INTO sqs2pg.migration VALUES (1, 'books', 'e67e6074301599e158a5e25680c1a70ae3bd4199b7373afe4e88fed51437819a', '2026-11-25 14:57:34.60009+00');
INSERT INTO sqs2pg.migration VALUES (2, 'audit', '152f217607450b7249e76621f92a8c06d292b3dbe9cce7cea300f8dbeddee8e7', '2026-11-25 14:57:34.60009+00');
INSERT INTO sqs2pg.migration VALUES (3, 'retention', 'cd6f6803030589a8d38ac85bbf481da86b130250cbdecac53f354b1b0e21abf4', '2026-11-25 14:57:34.60009+00');
INSERT INTO sqs2pg.migration VALUES (5, 'vault', '48d79711c67d405c986de187fc47c29daea052cbdadf8be9b3ea0ec0a9a863e8', '2026-11-25 14:57:34.60009+00');
INSERT INTO sqs2pg.migration VALUES (6, 'targets', 'f4eac225d97f1ad560d7c92b79072f3fa7104bbf5ff5a55b221ffee360170695', '2026-11-25 14:57:34.60009+00');

INSERT INTO sqs2pg.pipeline OVERRIDING SYSTEM VALUE VALUES (1, 'user_logins', 'public.user_logins', 0, '2026-11-25 14:57:34.60009+00');

INSERT INTO sqs2pg.quarantine OVERRIDING SYSTEM VALUE VALUES (1, '00000000-0000-7000-8000-000000000002', 'm2', 1, 'not_json', '', 1, '1970-01-01 00:00:00+00', '2026-11-25 14:57:34.60009+00', '\x00', 'pseudonym:1', NULL, NULL, NULL);

INSERT INTO sqs2pg.tally OVERRIDING SYSTEM VALUE VALUES (1, 1, 'batch', 1, 1, 0, 1, '2026-11-25 14:57:34.60009+00', 0, NULL, 0);

SELECT pg_catalog.setval('pii.erasure_id_seq', 1, false);

SELECT pg_catalog.setval('sqs2pg.pipeline_id_seq', 1, true);

SELECT pg_catalog.setval('sqs2pg.quarantine_id_seq', 1, true);

SELECT pg_catalog.setval('sqs2pg.tally_id_seq', 1, true);

ALTER TABLE ONLY pii.erasure
    ADD CONSTRAINT erasure_pkey PRIMARY KEY (id);

ALTER TABLE ONLY pii.request
    ADD CONSTRAINT request_pkey PRIMARY KEY (id);

ALTER TABLE ONLY pii.state
    ADD CONSTRAINT state_pkey PRIMARY KEY (one);

ALTER TABLE ONLY pii.subject_key
    ADD CONSTRAINT subject_key_pkey PRIMARY KEY (subject);

ALTER TABLE ONLY pii.token_map
    ADD CONSTRAINT token_map_pkey PRIMARY KEY (old_token);

ALTER TABLE ONLY pii.value
    ADD CONSTRAINT value_pkey PRIMARY KEY (subject, field, token);

ALTER TABLE ONLY sqs2pg.audit_head
    ADD CONSTRAINT audit_head_pkey PRIMARY KEY (one);

ALTER TABLE ONLY sqs2pg.audit
    ADD CONSTRAINT audit_pkey PRIMARY KEY (sequence);

ALTER TABLE ONLY sqs2pg.delivery
    ADD CONSTRAINT delivery_pkey PRIMARY KEY (key);

ALTER TABLE ONLY sqs2pg.delivery_20261110
    ADD CONSTRAINT delivery_20261110_pkey PRIMARY KEY (key);

ALTER TABLE ONLY sqs2pg.delivery_20261111
    ADD CONSTRAINT delivery_20261111_pkey PRIMARY KEY (key);

ALTER TABLE ONLY sqs2pg.delivery_20261112
    ADD CONSTRAINT delivery_20261112_pkey PRIMARY KEY (key);

ALTER TABLE ONLY sqs2pg.delivery_20261113
    ADD CONSTRAINT delivery_20261113_pkey PRIMARY KEY (key);

ALTER TABLE ONLY sqs2pg.delivery_20261114
    ADD CONSTRAINT delivery_20261114_pkey PRIMARY KEY (key);

ALTER TABLE ONLY sqs2pg.delivery_20261115
    ADD CONSTRAINT delivery_20261115_pkey PRIMARY KEY (key);

ALTER TABLE ONLY sqs2pg.delivery_20261116
    ADD CONSTRAINT delivery_20261116_pkey PRIMARY KEY (key);

ALTER TABLE ONLY sqs2pg.delivery_20261117
    ADD CONSTRAINT delivery_20261117_pkey PRIMARY KEY (key);

ALTER TABLE ONLY sqs2pg.delivery_20261118
    ADD CONSTRAINT delivery_20261118_pkey PRIMARY KEY (key);

ALTER TABLE ONLY sqs2pg.delivery_20261119
    ADD CONSTRAINT delivery_20261119_pkey PRIMARY KEY (key);

ALTER TABLE ONLY sqs2pg.delivery_20261120
    ADD CONSTRAINT delivery_20261120_pkey PRIMARY KEY (key);

ALTER TABLE ONLY sqs2pg.delivery_20261121
    ADD CONSTRAINT delivery_20261121_pkey PRIMARY KEY (key);

ALTER TABLE ONLY sqs2pg.delivery_20261122
    ADD CONSTRAINT delivery_20261122_pkey PRIMARY KEY (key);

ALTER TABLE ONLY sqs2pg.delivery_20261123
    ADD CONSTRAINT delivery_20261123_pkey PRIMARY KEY (key);

ALTER TABLE ONLY sqs2pg.delivery_20261124
    ADD CONSTRAINT delivery_20261124_pkey PRIMARY KEY (key);

ALTER TABLE ONLY sqs2pg.delivery_20261125
    ADD CONSTRAINT delivery_20261125_pkey PRIMARY KEY (key);

ALTER TABLE ONLY sqs2pg.delivery_20261126
    ADD CONSTRAINT delivery_20261126_pkey PRIMARY KEY (key);

ALTER TABLE ONLY sqs2pg.delivery_20261127
    ADD CONSTRAINT delivery_20261127_pkey PRIMARY KEY (key);

ALTER TABLE ONLY sqs2pg.delivery_20261128
    ADD CONSTRAINT delivery_20261128_pkey PRIMARY KEY (key);

ALTER TABLE ONLY sqs2pg.delivery_20261129
    ADD CONSTRAINT delivery_20261129_pkey PRIMARY KEY (key);

ALTER TABLE ONLY sqs2pg.delivery_20261130
    ADD CONSTRAINT delivery_20261130_pkey PRIMARY KEY (key);

ALTER TABLE ONLY sqs2pg.delivery_20261201
    ADD CONSTRAINT delivery_20261201_pkey PRIMARY KEY (key);

ALTER TABLE ONLY sqs2pg.delivery_20261202
    ADD CONSTRAINT delivery_20261202_pkey PRIMARY KEY (key);

ALTER TABLE ONLY sqs2pg.delivery_undated
    ADD CONSTRAINT delivery_undated_pkey PRIMARY KEY (key);

ALTER TABLE ONLY sqs2pg.key
    ADD CONSTRAINT key_pkey PRIMARY KEY (series, version);

ALTER TABLE ONLY sqs2pg.migration
    ADD CONSTRAINT migration_pkey PRIMARY KEY (version);

ALTER TABLE ONLY sqs2pg.pipeline
    ADD CONSTRAINT pipeline_name_key UNIQUE (name);

ALTER TABLE ONLY sqs2pg.pipeline
    ADD CONSTRAINT pipeline_pkey PRIMARY KEY (id);

ALTER TABLE ONLY sqs2pg.quarantine
    ADD CONSTRAINT quarantine_pkey PRIMARY KEY (id);

ALTER TABLE ONLY sqs2pg.suspect
    ADD CONSTRAINT suspect_pkey PRIMARY KEY (key);

ALTER TABLE ONLY sqs2pg.tally
    ADD CONSTRAINT tally_pkey PRIMARY KEY (id);

ALTER TABLE ONLY sqs2pg.target
    ADD CONSTRAINT target_pkey PRIMARY KEY (pipeline, target);

CREATE UNIQUE INDEX erasure_open ON pii.erasure USING btree (subject) WHERE (finished_at IS NULL);

CREATE INDEX request_role ON pii.request USING btree (role, at);

CREATE INDEX value_token ON pii.value USING btree (token);

CREATE UNIQUE INDEX key_one_active ON sqs2pg.key USING btree (series) WHERE active;

CREATE INDEX quarantine_message_id ON sqs2pg.quarantine USING btree (message_id);

CREATE INDEX quarantine_open ON sqs2pg.quarantine USING btree (reason, received_at) WHERE (replayed_at IS NULL);

CREATE INDEX quarantine_received_at ON sqs2pg.quarantine USING btree (received_at);

CREATE INDEX quarantine_subject ON sqs2pg.quarantine USING btree (subject) WHERE (subject IS NOT NULL);

ALTER INDEX sqs2pg.delivery_pkey ATTACH PARTITION sqs2pg.delivery_20261110_pkey;

ALTER INDEX sqs2pg.delivery_pkey ATTACH PARTITION sqs2pg.delivery_20261111_pkey;

ALTER INDEX sqs2pg.delivery_pkey ATTACH PARTITION sqs2pg.delivery_20261112_pkey;

ALTER INDEX sqs2pg.delivery_pkey ATTACH PARTITION sqs2pg.delivery_20261113_pkey;

ALTER INDEX sqs2pg.delivery_pkey ATTACH PARTITION sqs2pg.delivery_20261114_pkey;

ALTER INDEX sqs2pg.delivery_pkey ATTACH PARTITION sqs2pg.delivery_20261115_pkey;

ALTER INDEX sqs2pg.delivery_pkey ATTACH PARTITION sqs2pg.delivery_20261116_pkey;

ALTER INDEX sqs2pg.delivery_pkey ATTACH PARTITION sqs2pg.delivery_20261117_pkey;

ALTER INDEX sqs2pg.delivery_pkey ATTACH PARTITION sqs2pg.delivery_20261118_pkey;

ALTER INDEX sqs2pg.delivery_pkey ATTACH PARTITION sqs2pg.delivery_20261119_pkey;

ALTER INDEX sqs2pg.delivery_pkey ATTACH PARTITION sqs2pg.delivery_20261120_pkey;

ALTER INDEX sqs2pg.delivery_pkey ATTACH PARTITION sqs2pg.delivery_20261121_pkey;

ALTER INDEX sqs2pg.delivery_pkey ATTACH PARTITION sqs2pg.delivery_20261122_pkey;

ALTER INDEX sqs2pg.delivery_pkey ATTACH PARTITION sqs2pg.delivery_20261123_pkey;

ALTER INDEX sqs2pg.delivery_pkey ATTACH PARTITION sqs2pg.delivery_20261124_pkey;

ALTER INDEX sqs2pg.delivery_pkey ATTACH PARTITION sqs2pg.delivery_20261125_pkey;

ALTER INDEX sqs2pg.delivery_pkey ATTACH PARTITION sqs2pg.delivery_20261126_pkey;

ALTER INDEX sqs2pg.delivery_pkey ATTACH PARTITION sqs2pg.delivery_20261127_pkey;

ALTER INDEX sqs2pg.delivery_pkey ATTACH PARTITION sqs2pg.delivery_20261128_pkey;

ALTER INDEX sqs2pg.delivery_pkey ATTACH PARTITION sqs2pg.delivery_20261129_pkey;

ALTER INDEX sqs2pg.delivery_pkey ATTACH PARTITION sqs2pg.delivery_20261130_pkey;

ALTER INDEX sqs2pg.delivery_pkey ATTACH PARTITION sqs2pg.delivery_20261201_pkey;

ALTER INDEX sqs2pg.delivery_pkey ATTACH PARTITION sqs2pg.delivery_20261202_pkey;

ALTER INDEX sqs2pg.delivery_pkey ATTACH PARTITION sqs2pg.delivery_undated_pkey;

CREATE TRIGGER require_live_key AFTER INSERT ON pii.value REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION pii.require_live_key();

ALTER TABLE pii.value ENABLE ALWAYS TRIGGER require_live_key;

CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON sqs2pg.audit FOR EACH ROW EXECUTE FUNCTION sqs2pg.refuse_change();

ALTER TABLE sqs2pg.audit ENABLE ALWAYS TRIGGER append_only;

CREATE TRIGGER append_only BEFORE DELETE ON sqs2pg.audit_head FOR EACH ROW EXECUTE FUNCTION sqs2pg.refuse_change();

ALTER TABLE sqs2pg.audit_head ENABLE ALWAYS TRIGGER append_only;

CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON sqs2pg.audit FOR EACH STATEMENT EXECUTE FUNCTION sqs2pg.refuse_change();

ALTER TABLE sqs2pg.audit ENABLE ALWAYS TRIGGER append_only_truncate;

CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON sqs2pg.audit_head FOR EACH STATEMENT EXECUTE FUNCTION sqs2pg.refuse_change();

ALTER TABLE sqs2pg.audit_head ENABLE ALWAYS TRIGGER append_only_truncate;

REVOKE ALL ON FUNCTION pii.erased_at(of_subject uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION pii.fetch_reveal(request bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION pii.flush() FROM PUBLIC;

REVOKE ALL ON FUNCTION pii.lock_alone() FROM PUBLIC;

REVOKE ALL ON FUNCTION pii.lock_shared() FROM PUBLIC;

REVOKE ALL ON FUNCTION pii.missing(subjects uuid[], fields text[], tokens text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION pii.open_subjects(subjects uuid[], generations integer[], wrapped_keys bytea[], version integer, sealed_subjects bytea[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION pii.reference_key(OUT wrapped bytea, OUT wrapped_by text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pii.request_reveal(wanted_token text, wanted_subject uuid, most integer, reason text, ticket text, OUT granted boolean, OUT sequence bigint, OUT hash bytea) FROM PUBLIC;

REVOKE ALL ON FUNCTION pii.require_live_key() FROM PUBLIC;

REVOKE ALL ON FUNCTION pii.set_reference_key(wrapped bytea, wrapped_by text) FROM PUBLIC;

REVOKE ALL ON FUNCTION sqs2pg.attach_days(first_day date, last_day date) FROM PUBLIC;

REVOKE ALL ON FUNCTION sqs2pg.compact_tally(keep_from timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION sqs2pg.drop_day(keep_from date) FROM PUBLIC;

REVOKE ALL ON FUNCTION sqs2pg.drop_undated(keep_from timestamp with time zone, most integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION sqs2pg.record_act(act text, subject text, reason text, ticket text, OUT sequence bigint, OUT hash bytea) FROM PUBLIC;
