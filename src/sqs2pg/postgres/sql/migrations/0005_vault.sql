-- The vault: what lets a masked value be recovered, and a person be erased. Off unless
-- `vault.enabled`; the tables are there either way.
--
-- A person is a *subject*, named by a reference: an HMAC of its canonical name under a key that is
-- never rotated. Each subject has one random data key, wrapped under the key-encryption key of a
-- vault root; each distinct value is stored once a subject, sealed under that data key. An erasure
-- destroys the data key with the values.

CREATE SCHEMA pii;

COMMENT ON SCHEMA pii IS 'The vault of sqs2pg: sealed originals of masked values, and the keys they are sealed under.';

CREATE TABLE pii.state (
    one                   boolean PRIMARY KEY DEFAULT true CHECK (one),
    epoch                 bigint NOT NULL DEFAULT 1,  -- moves on with every erasure; caches heed it
    reveals_per_hour_max  integer NOT NULL DEFAULT 1000 CHECK (reveals_per_hour_max >= 0), -- values, a role
    reference_key         bytea,      -- wrapped; makes subject references; never replaced
    reference_wrapped_by  text        -- series:version of the root it is wrapped under
);
INSERT INTO pii.state DEFAULT VALUES;

CREATE TABLE pii.subject_key (
    subject        uuid PRIMARY KEY,        -- the reference
    generation     integer NOT NULL CHECK (generation > 0),
    wrapped_key    bytea,                   -- null once destroyed
    key_version    integer,                 -- of the vault root it is wrapped under
    sealed_subject bytea,                   -- who it is, under the data key
    created_at     timestamptz NOT NULL DEFAULT now(),
    destroyed_at   timestamptz,
    CHECK ((wrapped_key IS NULL) = (destroyed_at IS NOT NULL)),
    CHECK ((wrapped_key IS NULL) = (key_version IS NULL)),
    CHECK ((wrapped_key IS NULL) = (sealed_subject IS NULL))
);

CREATE TABLE pii.value (
    subject    uuid NOT NULL,
    generation integer NOT NULL,            -- of the subject's key that seals it
    field      text NOT NULL,
    token      text NOT NULL,               -- as it stands in the target
    sealed     bytea NOT NULL,
    PRIMARY KEY (subject, field, token)
);
CREATE INDEX value_token ON pii.value (token);

-- One row an erasure that was begun. The random name its rows get is kept until it is finished,
-- so that one that is killed and run again gives them one name; then nothing tells who it was.
CREATE TABLE pii.erasure (
    id           bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    subject      uuid NOT NULL,
    pseudonym    uuid,                       -- what user_id becomes; null once finished
    begun_at     timestamptz NOT NULL DEFAULT now(),
    finished_at  timestamptz,
    rows_changed bigint NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX erasure_open ON pii.erasure (subject) WHERE finished_at IS NULL;

-- Requests to reveal, each with its row of the audit; looked at for ten minutes, kept for a day.
CREATE TABLE pii.request (
    id          bigint PRIMARY KEY,         -- the audit's sequence
    role        text NOT NULL,              -- session_user
    at          timestamptz NOT NULL,
    transaction xid8 NOT NULL,
    token       text,
    subject     uuid,
    most        integer NOT NULL            -- values that may be fetched, and that count
);
CREATE INDEX request_role ON pii.request (role, at);

-- While a rekey runs: what old tokens have become. Emptied when it is done, since whoever has the
-- old root could follow it from a guess to a new token.
CREATE TABLE pii.token_map (
    old_token text PRIMARY KEY,
    new_token text NOT NULL
);

REVOKE ALL ON ALL TABLES IN SCHEMA pii FROM PUBLIC;

-- Erasure against ingest. A batch holds this lock shared from its first statement to its end; an
-- erasure takes it alone to destroy a key. So a batch is either wholly before an erasure, which
-- then finds its rows, or begins after it and reads the epoch that tells its cache to forget.
CREATE FUNCTION pii.lock_shared() RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$ SELECT pg_advisory_xact_lock_shared(hashtext('sqs2pg.forget')) $$;

CREATE FUNCTION pii.lock_alone() RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$ SELECT pg_advisory_xact_lock(hashtext('sqs2pg.forget')) $$;

-- Of the values named, those that are not stored yet, each with its subject's key if it has one
-- (`wrapped_key` null: it has none, and `generation` is that of the key to make). The only way to
-- a wrapped key for who may not read the tables, and only by naming the subject.
CREATE FUNCTION pii.missing(subjects uuid[], fields text[], tokens text[])
RETURNS TABLE (entry integer, generation integer, wrapped_key bytea, key_version integer)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pii, pg_temp
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

-- Give subjects the keys offered, unless another was quicker; return the keys they have now.
-- `subjects` must be sorted: two batches that meet then wait, and never deadlock.
CREATE FUNCTION pii.open_subjects(
    subjects uuid[], generations integer[], wrapped_keys bytea[], version integer,
    sealed_subjects bytea[])
RETURNS TABLE (subject uuid, generation integer, wrapped_key bytea, key_version integer)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pii, pg_temp
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

-- No value is stored under a key that is not there, whatever the writer's cache says. The lock
-- first: the look at the keys that follows has a snapshot of its own.
CREATE FUNCTION pii.require_live_key() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pii, pg_temp
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
CREATE TRIGGER require_live_key AFTER INSERT ON pii.value
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION pii.require_live_key();
ALTER TABLE pii.value ENABLE ALWAYS TRIGGER require_live_key;

-- The key of subject references, wrapped. Set once; what is there already wins.
CREATE FUNCTION pii.reference_key(OUT wrapped bytea, OUT wrapped_by text)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pii, pg_temp
AS $$ SELECT s.reference_key, s.reference_wrapped_by FROM pii.state s $$;

CREATE FUNCTION pii.set_reference_key(wrapped bytea, wrapped_by text) RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pii, pg_temp
AS $$
    UPDATE pii.state SET reference_key = wrapped, reference_wrapped_by = wrapped_by
     WHERE reference_key IS NULL
$$;

-- Ask to reveal up to `most` values: of a token, of a subject, or of one in the other. Commit it,
-- then fetch. `granted` is false where the role has had its share of the hour; that is on record
-- too.
CREATE FUNCTION pii.request_reveal(
    wanted_token text, wanted_subject uuid, most integer, reason text, ticket text DEFAULT '',
    OUT granted boolean, OUT sequence bigint, OUT hash bytea)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pii, pg_temp
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

-- Make sure that what is committed is on disk, whatever the committing session's setting was.
CREATE FUNCTION pii.flush() RETURNS void
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
    -- Before 17 only the WAL writer can be waited for: it takes three of its delays at the most.
    FOR i IN 1 .. 500 LOOP
        EXIT WHEN pg_current_wal_flush_lsn() >= here;
        PERFORM pg_sleep(0.01);
    END LOOP;
END
$$;

-- The ciphertexts of a request that this role has committed within the last ten minutes.
CREATE FUNCTION pii.fetch_reveal(request bigint)
RETURNS TABLE (subject uuid, generation integer, field text, token text, sealed bytea,
               wrapped_key bytea, key_version integer, sealed_subject bytea, shared_by bigint)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pii, pg_temp
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

-- When a subject was erased; null where it was not, or has come back since.
CREATE FUNCTION pii.erased_at(of_subject uuid) RETURNS timestamptz
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pii, pg_temp
AS $$ SELECT k.destroyed_at FROM pii.subject_key k WHERE k.subject = of_subject $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA pii FROM PUBLIC;

-- Whose message it is, where that can be read: an erasure removes the bodies of its subject.
ALTER TABLE sqs2pg.quarantine ADD COLUMN subject uuid;
COMMENT ON COLUMN sqs2pg.quarantine.subject IS 'reference of the person, where the body names one';
CREATE INDEX quarantine_subject ON sqs2pg.quarantine (subject) WHERE subject IS NOT NULL;
