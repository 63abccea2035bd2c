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

CREATE SCHEMA sqs2pg;

COMMENT ON SCHEMA sqs2pg IS 'The books of sqs2pg: who was delivered, what was set aside, what was counted.';

CREATE TYPE sqs2pg.delivery_outcome AS ENUM (
    'written',
    'quarantined'
);

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

CREATE FUNCTION sqs2pg.day_key(day date) RETURNS uuid
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT (lpad(to_hex((day - date '1970-01-01')::bigint * 86400000), 12, '0')
            || '00000000000000000000')::uuid
$$;

SET default_tablespace = '';

SET default_table_access_method = heap;

CREATE TABLE public.user_logins (
    user_id character varying(128),
    device_type character varying(32),
    masked_ip character varying(256),
    masked_device_id character varying(256),
    locale character varying(32),
    app_version integer,
    create_date date
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
    replayed_at timestamp with time zone
);

ALTER TABLE sqs2pg.quarantine ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME sqs2pg.quarantine_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE sqs2pg.tally (
    id bigint NOT NULL,
    pipeline smallint NOT NULL,
    kind text DEFAULT 'batch'::text NOT NULL,
    written bigint DEFAULT 0 NOT NULL,
    quarantined bigint DEFAULT 0 NOT NULL,
    duplicate bigint DEFAULT 0 NOT NULL,
    target_rows bigint DEFAULT 0 NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE sqs2pg.tally ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME sqs2pg.tally_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
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

INSERT INTO public.user_logins VALUES ('u1', NULL, NULL, NULL, NULL, NULL, '2020-01-01');

INSERT INTO sqs2pg.delivery_undated VALUES ('00000000-0000-7000-8000-000000000001', 'm1', 1, 'written', NULL);
INSERT INTO sqs2pg.delivery_undated VALUES ('00000000-0000-7000-8000-000000000002', 'm2', 1, 'quarantined', NULL);

INSERT INTO sqs2pg.key VALUES ('pseudonym', 1, 'ffffffffffffffff', true, '2026-11-25 14:57:30.070392+00');

INSERT INTO sqs2pg.migration VALUES (1, 'books', 'e67e6074301599e158a5e25680c1a70ae3bd4199b7373afe4e88fed51437819a', '2026-11-25 14:57:30.070392+00');

INSERT INTO sqs2pg.pipeline OVERRIDING SYSTEM VALUE VALUES (1, 'user_logins', 'public.user_logins', 0, '2026-11-25 14:57:30.070392+00');

INSERT INTO sqs2pg.quarantine OVERRIDING SYSTEM VALUE VALUES (1, '00000000-0000-7000-8000-000000000002', 'm2', 1, 'not_json', '', 1, '1970-01-01 00:00:00+00', '2026-11-25 14:57:30.070392+00', '\x00', 'pseudonym:1', NULL);

INSERT INTO sqs2pg.tally OVERRIDING SYSTEM VALUE VALUES (1, 1, 'batch', 1, 1, 0, 1, '2026-11-25 14:57:30.070392+00');

SELECT pg_catalog.setval('sqs2pg.pipeline_id_seq', 1, true);

SELECT pg_catalog.setval('sqs2pg.quarantine_id_seq', 1, true);

SELECT pg_catalog.setval('sqs2pg.tally_id_seq', 1, true);

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

ALTER TABLE ONLY sqs2pg.tally
    ADD CONSTRAINT tally_pkey PRIMARY KEY (id);

CREATE UNIQUE INDEX key_one_active ON sqs2pg.key USING btree (series) WHERE active;

CREATE INDEX quarantine_message_id ON sqs2pg.quarantine USING btree (message_id);

CREATE INDEX quarantine_open ON sqs2pg.quarantine USING btree (reason, received_at) WHERE (replayed_at IS NULL);

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

REVOKE ALL ON FUNCTION sqs2pg.attach_days(first_day date, last_day date) FROM PUBLIC;
