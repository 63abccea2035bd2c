-- The schema of sqs2pg: everything it keeps in the database besides the target tables.
--
-- `sqs2pg migrate` runs this file once, in one transaction, as the role that will own everything in
-- it, and records its SHA-256 in sqs2pg.migration. The file may change until the first release.
-- From then on it is frozen, and every change to the schema is a migration of its own (0002, 0003,
-- …).
--
--   1. Schemas and migrations
--   2. Pipelines and their targets
--   3. Deliveries: the ledger
--   4. Quarantine and suspects
--   5. Tally
--   6. Audit
--   7. Keys
--   8. Partitions of targets
--   9. Workers and pauses
--  10. Backfill
--  11. Vault: tables (schema pii)
--  12. Vault: functions (schema pii)
--  13. Privileges
--
-- Two rules hold for every function. It fixes its search_path, so that nobody can slip another
-- table or operator under it. Where it is SECURITY DEFINER, it does one bounded thing with the
-- owner's rights, so that its callers need no rights of their own to the tables.
--
-- And none takes an advisory lock. Those have no privileges: any login of the database could hold
-- one and stop the work. What must not run at the same time takes a lock on a table of ours.

------------------------------------------------------------------------------------------------
-- 1. Schemas and migrations
------------------------------------------------------------------------------------------------

CREATE SCHEMA sqs2pg;
COMMENT ON SCHEMA sqs2pg IS 'The books of sqs2pg: who was delivered, what was set aside, what was counted.';

CREATE SCHEMA pii;
COMMENT ON SCHEMA pii IS 'The vault of sqs2pg: sealed originals of masked values, and the keys they are sealed under.';

-- The migrations that this database has. `migrate` writes one row for each file it has run.
CREATE TABLE sqs2pg.migration (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    checksum   text NOT NULL,              -- SHA-256 of the file; shows that the file has changed
    applied_at timestamptz NOT NULL DEFAULT now()
);

------------------------------------------------------------------------------------------------
-- 2. Pipelines and their targets
------------------------------------------------------------------------------------------------

-- One row per pipeline. The other tables name a pipeline by this smallint: two bytes per message
-- instead of a name.
CREATE TABLE sqs2pg.pipeline (
    id            smallint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    name          text NOT NULL UNIQUE,
    target        text NOT NULL,            -- schema.table, quoted where SQL requires it
    baseline_rows bigint NOT NULL,          -- rows in the target before this pipeline's first row
    registered_at timestamptz NOT NULL DEFAULT now(),
    -- `migrate` records both from the settings; the functions that delete take their bounds from
    -- here, so that no caller can choose them.
    ledger_retention_days     integer NOT NULL DEFAULT 30 CHECK (ledger_retention_days >= 15),
    quarantine_retention_days integer NOT NULL DEFAULT 30 CHECK (quarantine_retention_days >= 1)
);

-- One row per target of a pipeline. Where routes send records to several targets, `verify` compares
-- each of them with a baseline of its own.
CREATE TABLE sqs2pg.target (
    pipeline      smallint NOT NULL,
    position      smallint NOT NULL,        -- from 0; 0 is the pipeline's own target
    target        text NOT NULL,            -- schema.table, quoted where SQL requires it
    baseline_rows bigint NOT NULL,          -- rows in the target before any pipeline's first row
    registered_at timestamptz NOT NULL DEFAULT now(),
    subject_column text,                    -- says whose a row is; NULL where none does
    -- What the pipeline's settings say of a row whose key the table has. A filled table gets another
    -- mode only with `migrate --change-mode`, which counts its rows anew.
    mode          text NOT NULL DEFAULT 'append' CHECK (mode IN ('append', 'upsert', 'ignore')),
    -- `migrate` records it from the settings, for the function that deletes by it.
    tombstone_retention_days integer NOT NULL DEFAULT 30 CHECK (tombstone_retention_days >= 1),
    -- Rows of a state table whose version is older are deleted; 0: none is. `migrate` records both.
    row_retention_days integer NOT NULL DEFAULT 0 CHECK (row_retention_days >= 0),
    retention_column   text NOT NULL DEFAULT '',  -- a date or a timestamp
    trimmed_at         timestamptz,               -- when upkeep last began to look for such rows
    PRIMARY KEY (pipeline, target)
);

-- The rows of state tables that a message or an erasure has deleted: which version, and a mark of the
-- key, an HMAC under the key that never rotates. An older version that comes later does not bring the
-- row back.
CREATE TABLE sqs2pg.tombstone (
    target     text NOT NULL,               -- schema.table, quoted where SQL requires it
    key        bytea NOT NULL,              -- 16 bytes for each column of the key; an erased person's
                                            -- may have those of their id alone, for all their rows
    version    jsonb NOT NULL,              -- of the target's own type, as JSON; null is the oldest
    deleted_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (target, key)
);
CREATE INDEX tombstone_deleted_at ON sqs2pg.tombstone (target, deleted_at);

-- The keys that a batch merges, while it does, of targets where rows are deleted. It has a committed
-- row never: who adds a key waits for whoever added it before, until that transaction ends. A key is
-- a hash of the target and the mark: two keys with one hash wait for each other, and that is all.
CREATE UNLOGGED TABLE sqs2pg.key_guard (
    key bigint PRIMARY KEY
);

-- Delete up to 10,000 tombstones that are past the longest retention on record for their target;
-- return how many were deleted.
CREATE FUNCTION sqs2pg.drop_tombstones() RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
AS $$
DECLARE
    dropped integer;
BEGIN
    DELETE FROM sqs2pg.tombstone WHERE ctid = ANY (ARRAY(
        SELECT b.ctid FROM sqs2pg.tombstone b
          JOIN (SELECT t.target, max(t.tombstone_retention_days) AS days
                  FROM sqs2pg.target t GROUP BY t.target) kept USING (target)
         WHERE b.deleted_at < now() - kept.days * interval '24 hours'
         LIMIT 10000 FOR UPDATE OF b SKIP LOCKED));
    GET DIAGNOSTICS dropped = ROW_COUNT;
    RETURN dropped;
END
$$;

------------------------------------------------------------------------------------------------
-- 3. Deliveries: the ledger
------------------------------------------------------------------------------------------------

CREATE TYPE sqs2pg.delivery_outcome AS ENUM ('written', 'quarantined');

-- The ledger: one row per message, written in the same transaction as the message's rows, so that a
-- message that is delivered again is recognised. The key has the shape of a UUIDv7 (RFC 9562): the
-- message's SentTimestamp, then bits of its MessageId. Each partition is one UTC day. There is no
-- default partition: a missing day fails at once and is repaired, where a default partition would
-- grow unseen.
CREATE TABLE sqs2pg.delivery (
    key        uuid NOT NULL PRIMARY KEY,
    message_id text NOT NULL,
    pipeline   smallint NOT NULL,
    outcome    sqs2pg.delivery_outcome NOT NULL DEFAULT 'written',
    seen_at    timestamptz                  -- set only where the key holds no timestamp
) PARTITION BY RANGE (key);

-- The partition for messages older than the kept days, and for keys without a timestamp (FIFO). It
-- is never dropped, so no message is too old to be recognised. Its upper bound rises as days are
-- dropped.
CREATE TABLE sqs2pg.delivery_undated (LIKE sqs2pg.delivery INCLUDING ALL);

-- Return the first key of a UTC day: the day's first millisecond in the leading 48 bits, then
-- zeros.
CREATE FUNCTION sqs2pg.day_key(day date) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT (lpad(to_hex((day - date '1970-01-01')::bigint * 86400000), 12, '0')
            || '00000000000000000000')::uuid
$$;

-- Whoever attaches or drops a day locks this table first, until its transaction ends. It has no
-- rows, and nobody but its owner has a privilege on it.
CREATE TABLE sqs2pg.days_lock ();

-- Return the UTC day that a ledger key belongs to.
CREATE FUNCTION sqs2pg.key_day(key uuid) RETURNS date
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT date '1970-01-01'
        + (('x0000' || left(replace(key::text, '-', ''), 12))::bit(64)::bigint / 86400000)::integer
$$;

-- Attach the day partitions that are missing from first_day to last_day; return how many were.
-- Only days near today are attached: from the end of the undated partition to eight days ahead. Days
-- outside are skipped, so that a caller can make no more partitions than the ledger has days.
-- Each is created as a table of its own and then attached. ATTACH takes SHARE UPDATE EXCLUSIVE on
-- the ledger, so inserts continue.
CREATE FUNCTION sqs2pg.attach_days(first_day date, last_day date) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
AS $$
DECLARE
    dated_from date;
    day date;
    partition text;
    attached integer := 0;
BEGIN
    LOCK TABLE sqs2pg.days_lock IN EXCLUSIVE MODE;
    SELECT sqs2pg.key_day(substring(
               pg_get_expr(c.relpartbound, c.oid) FROM 'TO \(''([^'']+)''\)')::uuid)
      INTO dated_from FROM pg_class c WHERE c.oid = 'sqs2pg.delivery_undated'::regclass;
    FOR day IN
        SELECT generate_series(
            greatest(first_day, coalesce(dated_from, (now() AT TIME ZONE 'UTC')::date - 15)),
            least(last_day, (now() AT TIME ZONE 'UTC')::date + 8), interval '1 day')::date
    LOOP
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

-- Return the first day that the ledger must keep: the pipelines of a database share it, so the
-- longest retention on record counts. NULL where no pipeline is registered.
CREATE FUNCTION sqs2pg.ledger_keeps_from() RETURNS date
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT (now() AT TIME ZONE 'UTC')::date - max(p.ledger_retention_days) FROM sqs2pg.pipeline p
$$;

-- Drop the oldest day of the ledger if it is past the retention on record; return whether one was
-- dropped. One day per call keeps each lock short: only the day itself is locked while its rows are
-- counted, and the whole ledger is locked only to move the bound. The tally gets what was dropped,
-- so that the books still balance.
CREATE FUNCTION sqs2pg.drop_day() RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
AS $$
DECLARE
    partition text;
    day date;
BEGIN
    LOCK TABLE sqs2pg.days_lock IN EXCLUSIVE MODE;
    SELECT c.relname, to_date(right(c.relname, 8), 'YYYYMMDD') INTO partition, day
      FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
     WHERE i.inhparent = 'sqs2pg.delivery'::regclass AND c.relname ~ '^delivery_[0-9]{8}$'
     ORDER BY c.relname LIMIT 1;
    IF (day < sqs2pg.ledger_keeps_from()) IS NOT TRUE THEN
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

-- Delete up to 10,000 rows whose key has no timestamp (FIFO, dedupe_key) and that were seen before
-- the retention on record; return how many were deleted.
CREATE FUNCTION sqs2pg.drop_undated() RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
AS $$
DECLARE
    keep_from timestamptz := sqs2pg.ledger_keeps_from()::timestamp AT TIME ZONE 'UTC';
    dropped integer;
BEGIN
    WITH gone AS (
        DELETE FROM sqs2pg.delivery_undated WHERE ctid = ANY (ARRAY(
            SELECT u.ctid FROM sqs2pg.delivery_undated u WHERE u.seen_at < keep_from LIMIT 10000))
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

-- Turn entries from written to quarantined, but only those that the caller's own transaction has
-- entered or changed (their xmin is its number). So a role that may add to the ledger needs no
-- UPDATE on it, and cannot rewrite what was committed.
CREATE FUNCTION sqs2pg.mark_quarantined(keys uuid[]) RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE sqs2pg.delivery d SET outcome = 'quarantined'
     WHERE d.key = ANY (keys) AND d.xmin = pg_current_xact_id()::xid
$$;

-- The ledger begins 15 days ago, because SQS keeps a message for 14 days at most.
DO $$
BEGIN
    EXECUTE format('ALTER TABLE sqs2pg.delivery ATTACH PARTITION sqs2pg.delivery_undated FOR VALUES FROM (MINVALUE) TO (%L)',
                   sqs2pg.day_key((now() AT TIME ZONE 'UTC')::date - 15));
    PERFORM sqs2pg.attach_days((now() AT TIME ZONE 'UTC')::date - 15, (now() AT TIME ZONE 'UTC')::date + 7);
END
$$;

------------------------------------------------------------------------------------------------
-- 4. Quarantine and suspects
------------------------------------------------------------------------------------------------

-- One row per message that cannot be written, with its sealed body.
CREATE TABLE sqs2pg.quarantine (
    id           bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    key          uuid NOT NULL,             -- of the ledger
    message_id   text NOT NULL,
    pipeline     smallint NOT NULL,
    reason       text NOT NULL,             -- a code, never a quotation
    detail       text NOT NULL,             -- a field, column or constraint, never a value
    target       text NOT NULL DEFAULT '',  -- schema.table that its rows are for; '' if not known
    attempts     integer NOT NULL,          -- deliveries so far, including this one
    sent_at      timestamptz NOT NULL,
    received_at  timestamptz NOT NULL DEFAULT now(),
    body         bytea NOT NULL,            -- sealed: AES-256-GCM
    sealed_under text NOT NULL,             -- series:version of the key
    replayed_at  timestamptz,
    subject      uuid,                      -- an erasure deletes the bodies of its subject
    attributes   bytea,                     -- what the mapping reads beside the body, sealed too
    amended      bigint                     -- the act that wrote a mended body in its place
);
COMMENT ON COLUMN sqs2pg.quarantine.subject IS 'reference of the person, where the body names one';
-- Somebody looks for a message now and then, and each dead letter would pay for a B-tree of random
-- ids: a quarter of its entry. This index costs almost nothing, and finds the few blocks to search.
CREATE INDEX quarantine_message_id ON sqs2pg.quarantine USING brin (message_id text_bloom_ops);
-- The filter of the first blocks is there from the start, and each entry would write it anew. VACUUM
-- makes filters only of blocks that are full.
SELECT brin_desummarize_range('sqs2pg.quarantine_message_id', 0);
CREATE INDEX quarantine_open ON sqs2pg.quarantine (reason, received_at) WHERE replayed_at IS NULL;
-- Retention, `quarantine list` and `quarantine purge` filter by age.
CREATE INDEX quarantine_received_at ON sqs2pg.quarantine (received_at);
CREATE INDEX quarantine_subject ON sqs2pg.quarantine (subject) WHERE subject IS NOT NULL;

-- One row per message that is being tried alone, because it was delivered too often. The row is
-- committed before the try. If it is still there at the next delivery, the message crashed its
-- worker.
CREATE TABLE sqs2pg.suspect (
    key      uuid PRIMARY KEY,
    pipeline smallint NOT NULL,
    attempt  integer NOT NULL,               -- the delivery that is being tried
    tried_at timestamptz NOT NULL DEFAULT now()
);

------------------------------------------------------------------------------------------------
-- 5. Tally
------------------------------------------------------------------------------------------------

-- What each batch did, one row per batch, inserted in the batch's transaction and never updated.
-- `verify` compares ledger and target with these counts. A batch that wrote to several targets adds
-- a row for each further target, with its target_rows and no messages. Retention and purges add
-- rows of their own, by kind.
CREATE TABLE sqs2pg.tally (
    id          bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    pipeline    smallint NOT NULL,
    kind        text NOT NULL DEFAULT 'batch',
    written     bigint NOT NULL DEFAULT 0,   -- messages
    quarantined bigint NOT NULL DEFAULT 0,   -- messages
    duplicate   bigint NOT NULL DEFAULT 0,   -- extra deliveries
    target_rows bigint NOT NULL DEFAULT 0,   -- rows added to the target; negative: removed
    at          timestamptz NOT NULL DEFAULT now(),
    purged      bigint NOT NULL DEFAULT 0,   -- messages
    target      text,                        -- NULL: the pipeline's own target
    dropped     bigint NOT NULL DEFAULT 0,   -- records that no route took and the settings drop
    -- What became of the target's lines. Of batches and replays, target_rows is the first of these
    -- less the last.
    rows_inserted   bigint NOT NULL DEFAULT 0,
    rows_updated    bigint NOT NULL DEFAULT 0,
    rows_superseded bigint NOT NULL DEFAULT 0,  -- older than the row of their key
    rows_ignored    bigint NOT NULL DEFAULT 0,  -- the first row of their key stays
    rows_deleted    bigint NOT NULL DEFAULT 0,
    -- Whoever may add rows must not make a sum that no bigint holds: it would stop `verify` and upkeep.
    CHECK (greatest(abs(written), abs(quarantined), abs(duplicate), abs(target_rows), abs(purged),
                    abs(dropped), abs(rows_inserted), abs(rows_updated), abs(rows_superseded),
                    abs(rows_ignored), abs(rows_deleted)) <= 1000000000000)
);
-- A purge deletes the quarantine row and leaves the ledger's row as it was. The tally counts it, so
-- that the books still balance.
COMMENT ON COLUMN sqs2pg.tally.purged IS
    'ledger entries left as quarantined whose quarantine row was purged';

-- Merge the rows older than 24 hours into one row per UTC day, pipeline, kind and target; return how
-- many rows were merged.
CREATE FUNCTION sqs2pg.compact_tally() RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
AS $$
DECLARE
    keep_from timestamptz := now() - interval '24 hours';
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
                                  purged, dropped, rows_inserted, rows_updated, rows_superseded,
                                  rows_ignored, rows_deleted, at)
        SELECT pipeline, kind, target, sum(written), sum(quarantined), sum(duplicate),
               sum(target_rows), sum(purged), sum(dropped), sum(rows_inserted), sum(rows_updated),
               sum(rows_superseded), sum(rows_ignored), sum(rows_deleted), max(at)
          FROM old GROUP BY pipeline, kind, target, (at AT TIME ZONE 'UTC')::date
    )
    SELECT count(*) INTO merged FROM old;
    WITH old AS (
        DELETE FROM sqs2pg.digest_change c WHERE c.at < keep_from RETURNING *
    )
    INSERT INTO sqs2pg.digest_change (target, change, at)
    SELECT target, sum(change), max(at) FROM old GROUP BY target;
    RETURN merged;
END
$$;

------------------------------------------------------------------------------------------------
-- 6. Audit
------------------------------------------------------------------------------------------------

-- Every act of a person or of maintenance on the quarantine, on keys and on the vault. Append-only
-- and hash-chained: each row's hash covers its fields and the hash before it, so a row that is
-- changed, removed or moved no longer fits the hashes after it. The owner of the table can still
-- rewrite all of it. Therefore each act also logs an anchor (sequence and hash), which the owner of
-- the database cannot reach.
CREATE TABLE sqs2pg.audit (
    sequence      bigint PRIMARY KEY CHECK (sequence > 0),  -- from 1, without gaps
    at            timestamptz NOT NULL,
    role          text NOT NULL,             -- session_user, as the server knows it
    act           text NOT NULL CHECK (act ~ '^[a-z]+(_[a-z]+)*$' AND length(act) <= 32),
    subject       text NOT NULL CHECK (length(subject) <= 500),  -- ids and counts, never a value
    reason        text NOT NULL CHECK (length(reason) <= 500),   -- as the operator gave it
    ticket        text NOT NULL CHECK (length(ticket) <= 100),
    previous_hash bytea NOT NULL CHECK (length(previous_hash) = 32),  -- zeros before the first
    hash          bytea NOT NULL CHECK (length(hash) = 32)
);

-- One row: sequence and hash of the last row of the audit. Its row lock puts concurrent acts in
-- order. A sequence object would leave gaps where transactions roll back.
CREATE TABLE sqs2pg.audit_head (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    sequence bigint NOT NULL,
    hash     bytea NOT NULL
);
INSERT INTO sqs2pg.audit_head (sequence, hash) VALUES (0, decode(repeat('00', 32), 'hex'));

-- Trigger function: refuse the statement.
CREATE FUNCTION sqs2pg.refuse_change() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'sqs2pg: the audit is append-only' USING ERRCODE = '42501';
END
$$;

-- By row, so that they also fire for a statement on a parent table that somebody has made the audit
-- inherit from.
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON sqs2pg.audit
    FOR EACH ROW EXECUTE FUNCTION sqs2pg.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON sqs2pg.audit
    FOR EACH STATEMENT EXECUTE FUNCTION sqs2pg.refuse_change();
CREATE TRIGGER append_only BEFORE DELETE ON sqs2pg.audit_head
    FOR EACH ROW EXECUTE FUNCTION sqs2pg.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON sqs2pg.audit_head
    FOR EACH STATEMENT EXECUTE FUNCTION sqs2pg.refuse_change();
-- ALWAYS: they also fire in a session with session_replication_role = replica. CREATE TRIGGER has
-- no clause for it.
ALTER TABLE sqs2pg.audit ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE sqs2pg.audit ENABLE ALWAYS TRIGGER append_only_truncate;
ALTER TABLE sqs2pg.audit_head ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE sqs2pg.audit_head ENABLE ALWAYS TRIGGER append_only_truncate;

-- Whether an operator's words are NULL, or only spaces, tabs and the like. Beyond ASCII the spaces of
-- Unicode, and what has no width.
CREATE FUNCTION sqs2pg.says_nothing(words text) RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    blank text := '';
BEGIN
    IF current_setting('server_encoding') = 'UTF8' THEN
        SELECT string_agg(chr(c), '') INTO blank FROM unnest(ARRAY[
            133, 160, 173, 5760, 8192, 8193, 8194, 8195, 8196, 8197, 8198, 8199, 8200, 8201, 8202,
            8203, 8204, 8205, 8206, 8207, 8232, 8233, 8239, 8287, 8288, 10240, 12288, 65279]) c;
    END IF;
    RETURN coalesce(translate(words, blank, '') !~ '[^[:space:][:cntrl:]]', true);
END
$$;

-- Append one act; return the new head, which is the anchor once the transaction has committed.
-- SECURITY DEFINER, so that a role may act without being able to write to the audit by hand. The
-- head stays locked until the transaction ends: in a long transaction, call this last. It also
-- makes the caller's transaction commit durably, whatever the role's default, because an act that a
-- crash could take back would not be recorded.
CREATE FUNCTION sqs2pg.record_act(
    act text, subject text, reason text DEFAULT '', ticket text DEFAULT '',
    OUT sequence bigint, OUT hash bytea)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
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

-- Delete up to 5,000 entries of a pipeline's quarantine that are older than its retention on record,
-- on record in the audit and in the tally; return how many, and the audit's new head. Entries that
-- a replay has locked are skipped. `purged` of the tally counts the ledger entries that lose their
-- row: not those of messages that were replayed since, nor those whose ledger day was dropped.
CREATE FUNCTION sqs2pg.purge_expired(
    of_pipeline integer, OUT purged integer, OUT sequence bigint, OUT hash bytea)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
AS $$
DECLARE
    days integer;
    unbooked bigint;
    never_replayed bigint;
BEGIN
    SELECT p.quarantine_retention_days INTO days FROM sqs2pg.pipeline p WHERE p.id = of_pipeline;
    WITH doomed AS MATERIALIZED (
        SELECT q.id FROM sqs2pg.quarantine q
         WHERE q.pipeline = of_pipeline AND q.received_at < now() - days * interval '24 hours'
         ORDER BY q.id LIMIT 5000 FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM sqs2pg.quarantine q USING doomed WHERE q.id = doomed.id
        RETURNING q.key, q.message_id, q.replayed_at
    )
    SELECT count(*), count(*) FILTER (WHERE g.replayed_at IS NULL),
           count(*) FILTER (WHERE g.replayed_at IS NULL AND EXISTS (
               SELECT FROM sqs2pg.delivery d WHERE d.key = g.key
               AND d.message_id = g.message_id AND d.outcome = 'quarantined'))
      INTO purged, never_replayed, unbooked FROM gone g;
    IF purged > 0 THEN
        INSERT INTO sqs2pg.tally (pipeline, kind, purged) VALUES (of_pipeline, 'purge', unbooked);
        SELECT a.sequence, a.hash INTO sequence, hash FROM sqs2pg.record_act('purge',
            format('pipeline %s, %s quarantine entries, %s never replayed: older than %s days',
                   of_pipeline, purged, never_replayed, days),
            'quarantine.retention_days') a;
    END IF;
END
$$;

------------------------------------------------------------------------------------------------
-- 7. Keys
------------------------------------------------------------------------------------------------

-- The keys on record: fingerprints, never keys. Each series has one active version. Every batch
-- checks it, so that a rolling deploy cannot mix versions unnoticed.
CREATE TABLE sqs2pg.key (
    series      text NOT NULL CHECK (series IN ('pseudonym', 'vault')),
    version     integer NOT NULL CHECK (version BETWEEN 1 AND 9999),  -- as in tokens and key files
    fingerprint text NOT NULL CHECK (fingerprint ~ '^[0-9a-f]{16}$'),
    active      boolean NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (series, version)
);
CREATE UNIQUE INDEX key_one_active ON sqs2pg.key (series) WHERE active;

-- Record the first key of a series, as the active one. Does nothing where the series has a key on
-- record: only the owner adds another, with `keys rotate`.
CREATE FUNCTION sqs2pg.record_first_key(of_series text, of_version integer, of_fingerprint text)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
AS $$
BEGIN
    LOCK TABLE sqs2pg.key IN SHARE ROW EXCLUSIVE MODE;
    INSERT INTO sqs2pg.key (series, version, fingerprint, active)
    SELECT of_series, of_version, of_fingerprint, true
     WHERE NOT EXISTS (SELECT FROM sqs2pg.key k WHERE k.series = of_series);
END
$$;

------------------------------------------------------------------------------------------------
-- 8. Partitions of targets
------------------------------------------------------------------------------------------------

-- The targets that are partitioned by a date, and how. `migrate` writes it; the functions below
-- read it. Each locks the row of its target first, so that one at a time changes its partitions.
CREATE TABLE sqs2pg.partitioned (
    target         text PRIMARY KEY,        -- schema.table, quoted where SQL requires it
    column_name    text NOT NULL,
    every          text NOT NULL CHECK (every IN ('day', 'month')),
    ahead          integer NOT NULL CHECK (ahead BETWEEN 1 AND 100),       -- periods
    retention_days integer NOT NULL DEFAULT 0 CHECK (retention_days >= 0)  -- 0: kept for ever
);

-- Return what the names of a table's partitions begin with: its own name, in at most 50 bytes, so
-- that the whole has at most 63 (NAMEDATALEN - 1). A longer name ends in a part of its hash, because
-- two tables may share their first 41 bytes. postgres/identifiers.py has the same rule.
CREATE FUNCTION sqs2pg.stem(name text) RETURNS text
LANGUAGE sql STABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN octet_length(convert_to(name, 'UTF8')) <= 50 THEN name ELSE left(name, (
               SELECT max(n) FROM generate_series(1, 41) n
                WHERE octet_length(convert_to(left(name, n), 'UTF8')) <= 41))
           || '_' || left(encode(sha256(convert_to(name, 'UTF8')), 'hex'), 8) END
$$;

-- Return the name and the bounds of the period that contains a day.
CREATE FUNCTION sqs2pg.period(target regclass, every text, day date,
                              OUT name text, OUT first date, OUT next date)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT sqs2pg.stem(c.relname) || '_p' || to_char(first, CASE every WHEN 'day' THEN 'YYYYMMDD' ELSE 'YYYYMM' END),
           first, (first + ('1 ' || every)::interval)::date
      FROM pg_class c, LATERAL (SELECT date_trunc(every, day::timestamp)::date AS first) f
     WHERE c.oid = target
$$;

-- Whether a table belongs to another role, and we are a superuser: then we do not work on it. The
-- expressions of its constraints, defaults, indexes and triggers, and the casts of its types, would
-- run as one, and that role would have become superuser.
CREATE FUNCTION sqs2pg.is_of_others(of_table regclass) RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT me.rolsuper AND NOT o.rolsuper
      FROM pg_class c JOIN pg_roles o ON o.oid = c.relowner, pg_roles me
     WHERE c.oid = of_table AND me.rolname = current_user
$$;

-- Return how a target is partitioned; its upkeep by others waits until the transaction ends.
CREATE FUNCTION sqs2pg.take_partitioned(of_target text) RETURNS sqs2pg.partitioned
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    how sqs2pg.partitioned;
BEGIN
    -- A row lock of ours: nobody without UPDATE on the table can hold it.
    SELECT * INTO how FROM sqs2pg.partitioned p WHERE p.target = of_target FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'sqs2pg: no such partitioned target' USING ERRCODE = '22023';
    END IF;
    IF sqs2pg.is_of_others(of_target::regclass) THEN
        RAISE EXCEPTION 'sqs2pg: the partitioned target belongs to another role, and a superuser '
            'does not work on it' USING ERRCODE = '42501';
    END IF;
    RETURN how;
END
$$;

-- The targets whose digest is kept, for `verify --deep`: `migrate` writes it from the settings. A
-- row's digest is the first 8 bytes of SHA-256 over the secret and the row's columns; that of a table
-- is the sum of its rows', in whatever order they came. Nobody but the owner reads the secret.
CREATE TABLE sqs2pg.digest (
    target   text PRIMARY KEY,              -- schema.table, quoted where SQL requires it
    columns  text[] NOT NULL CHECK (cardinality(columns) > 0),  -- key and version
    secret   bytea NOT NULL
        DEFAULT decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex'),
    baseline numeric NOT NULL DEFAULT 0     -- of the rows that no change below accounts for
);

-- What each statement of ours changed in a digest, in its own transaction. Upkeep sums it up.
CREATE TABLE sqs2pg.digest_change (
    target text NOT NULL,
    change numeric NOT NULL,
    at     timestamptz NOT NULL DEFAULT now()
);

-- Return the query of the sum of the digests of a table's rows; $1 is the secret. `rows_of` is quoted.
CREATE FUNCTION sqs2pg.digest_query(columns text[], rows_of text) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('SELECT coalesce(sum((''x'' || encode(substr(sha256($1 || convert_to(
                       ROW(%s)::text, getdatabaseencoding())), 1, 8), ''hex''))::bit(64)::bigint), 0)
                   FROM %s r',
                  (SELECT string_agg('r.' || quote_ident(c), ', ' ORDER BY at)
                     FROM unnest(columns) WITH ORDINALITY u (c, at)), rows_of)
$$;

-- Return the sum of the digests of the rows that a table holds, as the caller's statement sees it.
-- The settings decide how values look as text.
CREATE FUNCTION sqs2pg.digest_of(of_target text, relation text) RETURNS numeric
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET datestyle = 'ISO, YMD' SET intervalstyle = 'postgres' SET timezone = 'UTC'
SET extra_float_digits = 1 SET bytea_output = 'hex'
AS $$
DECLARE
    kept sqs2pg.digest;
    total numeric;
BEGIN
    SELECT * INTO STRICT kept FROM sqs2pg.digest d WHERE d.target = of_target;
    EXECUTE sqs2pg.digest_query(kept.columns, relation) USING kept.secret INTO total;
    RETURN total;
END
$$;

-- Trigger function: note what a statement of ours changed in the digest of the target that the
-- argument names. Statements of others change it by nothing, so that they show as a difference.
CREATE FUNCTION sqs2pg.note_digest() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET datestyle = 'ISO, YMD' SET intervalstyle = 'postgres' SET timezone = 'UTC'
SET extra_float_digits = 1 SET bytea_output = 'hex'
AS $$
DECLARE
    kept sqs2pg.digest;
    part numeric;
    total numeric := 0;
BEGIN
    IF current_setting('sqs2pg.batch', true) IS DISTINCT FROM 'on' THEN
        RETURN NULL;
    END IF;
    SELECT * INTO kept FROM sqs2pg.digest d WHERE d.target = TG_ARGV[0];
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        EXECUTE sqs2pg.digest_query(kept.columns, 'added') USING kept.secret INTO part;
        total := part;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        EXECUTE sqs2pg.digest_query(kept.columns, 'removed') USING kept.secret INTO part;
        total := total - part;
    END IF;
    IF total <> 0 THEN
        INSERT INTO sqs2pg.digest_change (target, change) VALUES (kept.target, total);
    END IF;
    RETURN NULL;
END
$$;

-- Make the triggers on a table that holds rows of a target, where it lacks them.
CREATE FUNCTION sqs2pg.watch(of_target text, relation regclass) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    event text;
    tables text;
BEGIN
    FOR event, tables IN VALUES ('INSERT', 'NEW TABLE AS added'), ('DELETE', 'OLD TABLE AS removed'),
                                ('UPDATE', 'OLD TABLE AS removed NEW TABLE AS added') LOOP
        CONTINUE WHEN EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = relation
                              AND t.tgname = 'sqs2pg_digest_' || lower(event));
        EXECUTE format('CREATE TRIGGER %I AFTER %s ON %s REFERENCING %s
                        FOR EACH STATEMENT EXECUTE FUNCTION sqs2pg.note_digest(%L)',
                       'sqs2pg_digest_' || lower(event), event, relation, tables, of_target);
    END LOOP;
END
$$;

-- Make the triggers on a target and its partitions, where they lack them. A statement fires those of
-- the table that it names, and erasures name partitions.
CREATE FUNCTION sqs2pg.watch_all(of_target text) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT sqs2pg.watch(of_target, c.oid)
      FROM (SELECT of_target::regclass::oid AS oid
            UNION SELECT p.relid FROM pg_partition_tree(of_target::regclass) p) t
      JOIN pg_class c ON c.oid = t.oid
     WHERE c.relkind IN ('r', 'p') AND EXISTS (SELECT FROM sqs2pg.digest d WHERE d.target = of_target)
$$;

-- Keep a digest of a target from here on; return whether its rows were read for it. `anew`: read them
-- even where a digest of these columns is kept already.
CREATE FUNCTION sqs2pg.start_digest(of_target text, of_columns text[], anew boolean) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT anew AND EXISTS (SELECT FROM sqs2pg.digest d
                             WHERE d.target = of_target AND d.columns = of_columns) THEN
        PERFORM sqs2pg.watch_all(of_target);
        RETURN false;
    END IF;
    INSERT INTO sqs2pg.digest (target, columns) VALUES (of_target, of_columns)
        ON CONFLICT (target) DO UPDATE SET columns = excluded.columns;
    -- Nobody may write from here on, until COMMIT.
    EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', of_target::regclass);
    LOCK TABLE sqs2pg.digest_change IN SHARE ROW EXCLUSIVE MODE;
    PERFORM sqs2pg.watch_all(of_target);
    DELETE FROM sqs2pg.digest_change c WHERE c.target = of_target;
    UPDATE sqs2pg.digest d SET baseline = sqs2pg.digest_of(of_target, of_target::regclass::text)
     WHERE d.target = of_target;
    RETURN true;
END
$$;

-- Keep no digest of a target any more, unless another pipeline writes to it too; return whether one
-- was kept.
CREATE FUNCTION sqs2pg.stop_digest(of_target text) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_trigger record;
BEGIN
    IF (SELECT count(*) FROM sqs2pg.target t WHERE t.target = of_target) > 1
       OR NOT EXISTS (SELECT FROM sqs2pg.digest d WHERE d.target = of_target) THEN
        RETURN false;
    END IF;
    FOR found_trigger IN
        SELECT t.tgrelid::regclass AS relation, t.tgname AS name FROM pg_trigger t
         WHERE t.tgfoid = 'sqs2pg.note_digest'::regproc AND NOT t.tgisinternal
           AND (t.tgrelid = of_target::regclass
                OR t.tgrelid IN (SELECT p.relid FROM pg_partition_tree(of_target::regclass) p)) LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', found_trigger.name, found_trigger.relation);
    END LOOP;
    DELETE FROM sqs2pg.digest d WHERE d.target = of_target;
    DELETE FROM sqs2pg.digest_change c WHERE c.target = of_target;
    RETURN true;
END
$$;

-- Attach the period that contains a day, and move the rows of that period out of the default
-- partition, in one transaction. Return how many rows moved, or NULL if a table of the period's name
-- is there already. With the caller's own rights: for the owner, who may attach any period.
-- Columns are named, because the two tables may have them in another order and a generated column
-- cannot be inserted. Identity is left out: a partition gets its parent's when it is attached. The
-- partition gets its parent's owner, who could not alter the whole table otherwise.
CREATE FUNCTION sqs2pg.attach_period(of_target text, day date) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
AS $$
DECLARE
    how sqs2pg.partitioned := sqs2pg.take_partitioned(of_target);
    parent regclass := of_target::regclass;
    fallback regclass;
    part record;
    schema text;
    owner text;
    columns text;
    moved bigint := 0;
BEGIN
    SELECT * INTO part FROM sqs2pg.period(parent, how.every, day);
    SELECT n.nspname, pg_get_userbyid(c.relowner) INTO schema, owner
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = parent;
    IF to_regclass(format('%I.%I', schema, part.name)) IS NOT NULL THEN
        RETURN NULL;
    END IF;
    SELECT partdefid INTO fallback FROM pg_partitioned_table WHERE partrelid = parent AND partdefid <> 0;
    EXECUTE format('CREATE TABLE %I.%I (LIKE %s INCLUDING ALL EXCLUDING IDENTITY)', schema, part.name, parent);
    IF EXISTS (SELECT FROM sqs2pg.digest d WHERE d.target = of_target) THEN
        PERFORM sqs2pg.watch(of_target, format('%I.%I', schema, part.name)::regclass);
    END IF;
    IF owner <> current_user THEN
        EXECUTE format('ALTER TABLE %I.%I OWNER TO %I', schema, part.name, owner);
    END IF;
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

-- Attach the first missing period near today: the last one, this one, or one of those ahead that are
-- on record. Return whether one was attached.
CREATE FUNCTION sqs2pg.attach_next_period(of_target text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
AS $$
DECLARE
    how sqs2pg.partitioned := sqs2pg.take_partitioned(of_target);
    day date;
BEGIN
    FOR n IN -1 .. how.ahead LOOP
        day := date_trunc(how.every, now() AT TIME ZONE 'UTC') + n * ('1 ' || how.every)::interval;
        IF sqs2pg.attach_period(of_target, day) IS NOT NULL THEN
            RETURN true;
        END IF;
    END LOOP;
    RETURN false;
END
$$;

-- Record in the tally that retention has removed rows of a target, so that the books still balance.
CREATE FUNCTION sqs2pg.tally_retention(of_target text, removed bigint) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO sqs2pg.tally (pipeline, kind, target_rows, target)
    SELECT min(t.pipeline), 'target_retention', -removed, of_target
      FROM sqs2pg.target t WHERE t.target = of_target AND removed > 0 HAVING count(*) > 0
$$;

-- Detach and drop the oldest period that is wholly past the retention on record; return how many
-- rows it held, or NULL if there is none. The partitions of this target are chosen first, in a step
-- of their own: in one WHERE a plan may cast the bounds of all partitions to dates, and those of the
-- ledger are uuids (SQLSTATE 22007).
CREATE FUNCTION sqs2pg.drop_period(of_target text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
AS $$
DECLARE
    how sqs2pg.partitioned := sqs2pg.take_partitioned(of_target);
    parent regclass := of_target::regclass;
    oldest regclass;
    dropped bigint;
BEGIN
    IF how.retention_days = 0 THEN
        RETURN NULL;
    END IF;
    WITH ours AS MATERIALIZED (
        SELECT c.oid::regclass AS part,
               substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \(''([^'']+)''') AS upper
          FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent = parent
    )
    SELECT part INTO oldest FROM ours
     WHERE upper::date <= (now() AT TIME ZONE 'UTC')::date - how.retention_days
     ORDER BY upper::date LIMIT 1;
    IF oldest IS NULL THEN
        RETURN NULL;
    END IF;
    EXECUTE format('ALTER TABLE %s DETACH PARTITION %s', parent, oldest);
    EXECUTE format('SELECT count(*) FROM %s', oldest) INTO dropped;
    INSERT INTO sqs2pg.digest_change (target, change)
    SELECT d.target, -sqs2pg.digest_of(d.target, oldest::text) FROM sqs2pg.digest d
     WHERE d.target = of_target;
    EXECUTE format('DROP TABLE %s', oldest);
    PERFORM sqs2pg.tally_retention(of_target, dropped);
    RETURN dropped;
END
$$;

-- Delete up to 10,000 rows of the default partition whose date is past the retention on record;
-- return how many. Without this, rows that came late, for a period that was dropped or was never
-- attached, would stay for ever.
CREATE FUNCTION sqs2pg.trim_default(of_target text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
AS $$
DECLARE
    how sqs2pg.partitioned := sqs2pg.take_partitioned(of_target);
    fallback regclass;
    removed bigint;
BEGIN
    SELECT partdefid INTO fallback FROM pg_partitioned_table
     WHERE partrelid = of_target::regclass AND partdefid <> 0;
    IF how.retention_days = 0 OR fallback IS NULL THEN
        RETURN 0;
    END IF;
    PERFORM set_config('sqs2pg.batch', 'on', true);
    EXECUTE format('DELETE FROM ONLY %s WHERE ctid = ANY (ARRAY(
                        SELECT d.ctid FROM ONLY %s d WHERE d.%I < %L LIMIT 10000))',
                   fallback, fallback, how.column_name,
                   (now() AT TIME ZONE 'UTC')::date - how.retention_days);
    GET DIAGNOSTICS removed = ROW_COUNT;
    PERFORM sqs2pg.tally_retention(of_target, removed);
    RETURN removed;
END
$$;

-- Delete the rows of a state table that are past the retention on record, 10,000 at most, in one
-- range of pages of one of its tables: `part` counts the tables. A pass begins with page -1, once in
-- 50 minutes, because every process of a fleet tries. Return where to go on, NULL at the end, and how
-- many rows were deleted. No index is needed, and none is wanted: on the column that orders versions
-- it would make each update write to all indexes. Rows that a batch has locked are left for the next
-- time, so that the two never wait for each other.
CREATE FUNCTION sqs2pg.trim_rows(
    of_target text, INOUT part integer, INOUT page bigint, OUT removed bigint)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
SET row_security = off
AS $$
DECLARE
    days integer;
    by_column text;
    leaf regclass;
    cutoff text;
    pages_at_once CONSTANT bigint := 4096;
    rows_at_once CONSTANT bigint := 10000;
BEGIN
    removed := 0;
    -- The longest retention counts, and a pipeline without one keeps every row.
    SELECT CASE WHEN min(t.row_retention_days) > 0 THEN max(t.row_retention_days) ELSE 0 END,
           CASE WHEN count(DISTINCT t.retention_column) = 1 THEN min(t.retention_column) END
      INTO days, by_column FROM sqs2pg.target t WHERE t.target = of_target;
    IF days IS NULL OR days = 0 OR by_column IS NULL THEN
        part := NULL;
        RETURN;
    END IF;
    IF page < 0 THEN
        UPDATE sqs2pg.target t SET trimmed_at = now() WHERE t.target = of_target
           AND coalesce(t.trimmed_at, '-infinity') < now() - interval '50 minutes';
        IF NOT FOUND THEN
            part := NULL;
            RETURN;
        END IF;
        page := 0;
    END IF;
    SELECT c.oid INTO leaf
      FROM (SELECT of_target::regclass::oid AS oid
            UNION SELECT p.relid FROM pg_partition_tree(of_target::regclass) p) t
      JOIN pg_class c ON c.oid = t.oid
     WHERE c.relkind = 'r' ORDER BY c.oid OFFSET part LIMIT 1;
    IF leaf IS NULL THEN
        part := NULL;
        RETURN;
    END IF;
    IF sqs2pg.is_of_others(leaf) OR sqs2pg.is_of_others(of_target::regclass) THEN
        RAISE EXCEPTION 'sqs2pg: the target belongs to another role, and a superuser does not work '
            'on it' USING ERRCODE = '42501';
    END IF;
    SELECT CASE a.atttypid::regtype::text
               WHEN 'date' THEN ((now() AT TIME ZONE 'UTC')::date - days)::text
               WHEN 'timestamp without time zone'
                   THEN ((now() AT TIME ZONE 'UTC') - days * interval '24 hours')::text
               WHEN 'timestamp with time zone' THEN (now() - days * interval '24 hours')::text END
      INTO cutoff FROM pg_attribute a
     WHERE a.attrelid = leaf AND a.attname = by_column AND NOT a.attisdropped;
    IF cutoff IS NULL THEN
        RAISE EXCEPTION 'sqs2pg: the column of a retention is no date or timestamp'
            USING ERRCODE = '22023';
    END IF;
    PERFORM set_config('sqs2pg.batch', 'on', true);
    EXECUTE format('DELETE FROM ONLY %s WHERE ctid = ANY (ARRAY(
                        SELECT d.ctid FROM ONLY %s d
                         WHERE d.ctid >= ''(%s,0)''::tid AND d.ctid < ''(%s,0)''::tid AND d.%I < %L
                         LIMIT %s FOR UPDATE SKIP LOCKED))',
                   leaf, leaf, page, page + pages_at_once, by_column, cutoff, rows_at_once);
    GET DIAGNOSTICS removed = ROW_COUNT;
    PERFORM sqs2pg.tally_retention(of_target, removed);
    IF removed < rows_at_once THEN
        page := page + pages_at_once;
        IF page * current_setting('block_size')::bigint >= pg_relation_size(leaf) THEN
            part := part + 1;
            page := 0;
        END IF;
    END IF;
END
$$;

------------------------------------------------------------------------------------------------
-- 9. Workers and pauses
------------------------------------------------------------------------------------------------

-- One row per process of a fleet, renewed every few seconds. Only people and the status page read
-- it. No delivery depends on it, and a lost row comes back with the next heartbeat. Rows are small
-- and change often: the free half of each page lets them change in place.
CREATE TABLE sqs2pg.worker (
    id           uuid PRIMARY KEY,
    pipeline     smallint NOT NULL,
    host         text NOT NULL,
    pid          integer NOT NULL,
    version      text NOT NULL,             -- of sqs2pg
    started_at   timestamptz NOT NULL,
    heartbeat_at timestamptz NOT NULL DEFAULT now(),
    state        text NOT NULL,             -- running, waiting (for the database), pausing, paused
    received     bigint NOT NULL DEFAULT 0, -- messages since it started, including redeliveries
    written      bigint NOT NULL DEFAULT 0,
    duplicate    bigint NOT NULL DEFAULT 0,
    quarantined  bigint NOT NULL DEFAULT 0,
    in_flight    integer NOT NULL DEFAULT 0,
    per_second   real NOT NULL DEFAULT 0,   -- messages settled since the heartbeat before
    last_fault   text NOT NULL DEFAULT '',  -- a code, never a quotation
    batch_s_max  real NOT NULL DEFAULT 0    -- `check` compares the visibility timeout with it
) WITH (fillfactor = 50);
COMMENT ON TABLE sqs2pg.worker IS 'Worker processes by their last heartbeat; stale rows are removed.';
COMMENT ON COLUMN sqs2pg.worker.batch_s_max IS 'seconds of its longest batch since it began';
CREATE INDEX worker_heartbeat ON sqs2pg.worker (pipeline, heartbeat_at);

-- One row per pipeline that is paused. Its workers read it every few seconds: they receive nothing
-- until it is gone. `pause` and `resume` are granted to nobody, so that the owner decides who may.
CREATE TABLE sqs2pg.pause (
    pipeline  smallint PRIMARY KEY,
    code      text NOT NULL CHECK (code IN ('by_operator', 'quarantine_share')),
    paused_by text NOT NULL,                -- session_user
    reason    text NOT NULL CHECK (length(reason) <= 500),  -- as the operator gave it
    paused_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Pause a pipeline, on record in the audit as `what`; return whether it was not paused before, and the
-- audit's new head. A pause that is there already stays as it was recorded.
CREATE FUNCTION sqs2pg.put_pause(
    of_pipeline integer, of_code text, why text, what text,
    OUT changed boolean, OUT sequence bigint, OUT hash bytea)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO sqs2pg.pause (pipeline, code, paused_by, reason)
    SELECT p.id, of_code, session_user::text, why FROM sqs2pg.pipeline p WHERE p.id = of_pipeline
    ON CONFLICT DO NOTHING;
    changed := FOUND;
    IF changed THEN
        SELECT a.sequence, a.hash INTO sequence, hash FROM sqs2pg.record_act('pause', what, why) a;
    END IF;
END
$$;

-- The same for an operator.
CREATE FUNCTION sqs2pg.pause(
    of_pipeline integer, why text, OUT changed boolean, OUT sequence bigint, OUT hash bytea)
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
AS $$
    SELECT * FROM sqs2pg.put_pause(
        of_pipeline, 'by_operator', why, format('pipeline %s', of_pipeline))
$$;

-- The same for a pipeline that pauses itself, because most of what comes is bad. A login that may call
-- this can stop a pipeline of its database, and cannot start one.
CREATE FUNCTION sqs2pg.pause_itself(
    of_pipeline integer, OUT changed boolean, OUT sequence bigint, OUT hash bytea)
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
AS $$
    SELECT * FROM sqs2pg.put_pause(
        of_pipeline, 'quarantine_share', '',
        format('pipeline %s, by itself: quarantine_share_max', of_pipeline))
$$;

-- End a pause, on record in the audit; return whether there was one, and the audit's new head.
CREATE FUNCTION sqs2pg.resume(
    of_pipeline integer, why text, OUT changed boolean, OUT sequence bigint, OUT hash bytea)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
AS $$
BEGIN
    DELETE FROM sqs2pg.pause p WHERE p.pipeline = of_pipeline;
    changed := FOUND;
    IF changed THEN
        SELECT a.sequence, a.hash INTO sequence, hash
          FROM sqs2pg.record_act('resume', format('pipeline %s', of_pipeline), why) a;
    END IF;
END
$$;

-- What messages had that no field of the mapping names: how producers drift. Workers add what they
-- have counted; the status page and `check` read it. `mapping` stands for the names that the mapping
-- knows, so that what is mapped since is not shown. A name is recorded only with `report_unknown`.
CREATE TABLE sqs2pg.unknown_field (
    pipeline smallint NOT NULL,
    mapping  text NOT NULL,
    path     text NOT NULL,                 -- as the source of a field; empty: not recorded
    type     text NOT NULL,                 -- text, number, boolean, null, object, array
    seen     bigint NOT NULL,
    first_at timestamptz NOT NULL DEFAULT now(),
    last_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (pipeline, mapping, path, type)
);
COMMENT ON TABLE sqs2pg.unknown_field IS 'Fields of messages that no mapping names, and how often.';

------------------------------------------------------------------------------------------------
-- 10. Backfill
------------------------------------------------------------------------------------------------

-- How far each archive has been written. The line number moves in the same transaction as the rows.
-- A row is never deleted, so that an archive that is given again years later is recognised.
CREATE TABLE sqs2pg.backfill (
    pipeline    smallint NOT NULL,
    digest      text NOT NULL,              -- of the content: sha256:…, or etag:… with its place
    source      text NOT NULL,              -- path or s3:// URL, as last given
    size_bytes  bigint NOT NULL,            -- as stored
    line        bigint NOT NULL DEFAULT 0,  -- records committed
    begun_at    timestamptz NOT NULL DEFAULT now(),
    moved_at    timestamptz,
    finished_at timestamptz,
    claimed_by  text,                       -- the transaction of the run that has it, or a worker
    claimed_until timestamptz,              -- of a worker's claim; NULL: as long as the transaction lasts
    left_behind bigint[] NOT NULL DEFAULT '{}', -- records before `line` that are not committed yet
    PRIMARY KEY (pipeline, digest)
);

-- Move the progress of S3 objects, in the transaction of their rows. A claim runs out where its
-- worker stands still. If another worker has moved an object since, nothing of the batch is committed:
-- not even lines that the two date differently.
CREATE FUNCTION sqs2pg.move_objects(
    of_pipeline smallint, digests text[], before bigint[], after bigint[], ended boolean[],
    claim interval
) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    moved integer;
BEGIN
    UPDATE sqs2pg.backfill b
       SET line = m.after, moved_at = now(),
           -- A backfill that has left lines behind tries them again.
           finished_at = CASE WHEN m.ended AND b.left_behind = '{}' THEN now() END,
           claimed_until = CASE WHEN NOT m.ended THEN clock_timestamp() + claim END
      FROM unnest(digests, before, after, ended) AS m (digest, before, after, ended)
     WHERE b.pipeline = of_pipeline AND b.digest = m.digest AND b.line = m.before
       AND b.finished_at IS NULL;
    GET DIAGNOSTICS moved = ROW_COUNT;
    IF moved <> cardinality(digests) THEN
        RAISE EXCEPTION 'another worker has moved an object' USING ERRCODE = 'serialization_failure';
    END IF;
END
$$;

------------------------------------------------------------------------------------------------
-- 11. Vault: tables
------------------------------------------------------------------------------------------------
-- What makes it possible to recover a masked value and to erase a person. The tables exist in every
-- database; they are used only with `vault.enabled`.
--
-- A person is a subject, named by a reference: an HMAC of the person's normalised id under a key
-- that is never rotated. Each subject has one random data key, wrapped under the key-encryption key
-- of a vault root. Each distinct value is stored once per subject, sealed under that data key. An
-- erasure destroys the data key together with the values.

-- One row: the state of the whole vault.
CREATE TABLE pii.state (
    one                   boolean PRIMARY KEY DEFAULT true CHECK (one),
    epoch                 bigint NOT NULL DEFAULT 1,  -- rises with every erasure and empties caches
    reveals_per_hour_max  integer NOT NULL DEFAULT 1000 CHECK (reveals_per_hour_max >= 0), -- values per role
    people_per_hour_max   integer NOT NULL DEFAULT 10 CHECK (people_per_hour_max >= 0), -- whole people per role
    reference_key         bytea,      -- wrapped; makes the references of subjects; never replaced
    reference_wrapped_by  text,       -- series:version of the root it is wrapped under
    unheld_from           timestamptz NOT NULL DEFAULT now()  -- when upkeep next looks for values that no target holds
);
INSERT INTO pii.state DEFAULT VALUES;

-- One row per subject, with its wrapped data key until an erasure destroys it. A person who comes
-- back after an erasure gets a new key, of the next generation.
CREATE TABLE pii.subject_key (
    subject        uuid PRIMARY KEY,        -- the reference
    generation     integer NOT NULL CHECK (generation > 0),
    wrapped_key    bytea,                   -- NULL once destroyed
    key_version    integer,                 -- of the vault root it is wrapped under
    sealed_subject bytea,                   -- the person's id, sealed under the data key
    created_at     timestamptz NOT NULL DEFAULT now(),
    destroyed_at   timestamptz,
    CHECK ((wrapped_key IS NULL) = (destroyed_at IS NOT NULL)),
    CHECK ((wrapped_key IS NULL) = (key_version IS NULL)),
    CHECK ((wrapped_key IS NULL) = (sealed_subject IS NULL))
);

-- One row per distinct original value of a subject and a field. The indexes have the token's hash of
-- 64 bits instead of the token: they are a third as large, and that is most of what a new value
-- costs. A search for a token alone, which only a reveal makes, has an index of Bloom filters, one for
-- each 16 pages: it is a hundredth as large as the table, and a new value does not touch it. Vacuum
-- adds the new pages to it; those that are not in it yet are searched themselves, so vacuum runs
-- early. Among a million values of one subject two have a hash in common with a probability of
-- 10**-7; the second one would not be kept.
CREATE TABLE pii.value (
    subject    uuid NOT NULL,
    generation integer NOT NULL,            -- of the subject's key that seals it
    field      text NOT NULL,
    token      text NOT NULL,               -- the masked value, as it stands in the target
    sealed     bytea NOT NULL,
    token_hash bigint NOT NULL CHECK (token_hash = hashtextextended(token, 0)),
    PRIMARY KEY (subject, token_hash, field)
) WITH (autovacuum_vacuum_insert_scale_factor = 0.05);
CREATE INDEX value_token ON pii.value
    USING brin (token_hash int8_bloom_ops (n_distinct_per_range = 800, false_positive_rate = 0.002))
    WITH (pages_per_range = 16);

-- One row per erasure that was begun. It keeps the random name that the person's rows get until the
-- erasure is finished, so that an erasure that is killed and run again uses the same name. After
-- that nothing says who it was. The counts tell whether anything of that person was found.
CREATE TABLE pii.erasure (
    id           bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    subject      uuid NOT NULL,
    pseudonym    uuid,                       -- what user_id becomes; NULL once finished
    begun_at     timestamptz NOT NULL DEFAULT now(),
    finished_at  timestamptz,
    keys_destroyed bigint NOT NULL DEFAULT 0,
    values_removed bigint NOT NULL DEFAULT 0,
    bodies_removed bigint NOT NULL DEFAULT 0, -- from the quarantine
    rows_changed   bigint NOT NULL DEFAULT 0, -- cleared
    rows_deleted   bigint NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX erasure_open ON pii.erasure (subject) WHERE finished_at IS NULL;

-- One row per granted request to reveal values. It may be fetched for ten minutes and is kept for a
-- day.
CREATE TABLE pii.request (
    id          bigint PRIMARY KEY,         -- the sequence of its row in the audit
    role        text NOT NULL,              -- session_user
    at          timestamptz NOT NULL,
    transaction xid8 NOT NULL,
    token       text,
    subject     uuid,
    most        integer NOT NULL,           -- values that may be fetched; counted against the limit
    everything  boolean NOT NULL DEFAULT false, -- all that is held on the subject; a limit of its own
    entries     bigint[]                    -- of the quarantine, whose bodies may be fetched
);
CREATE INDEX request_role ON pii.request (role, at);

-- The texts that stand for the person of a request for everything, by target. They come in by COPY,
-- because the server may log a function's parameters, and are removed as soon as the rows were
-- fetched. UNLOGGED: they go to no WAL archive and no replica. `role` is always the inserting login,
-- since nobody else may name it.
CREATE UNLOGGED TABLE pii.requested_name (
    request  bigint NOT NULL,
    role     text NOT NULL DEFAULT session_user,
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    target   text NOT NULL,                 -- schema.table, quoted where SQL requires it
    spelling text NOT NULL
);
CREATE INDEX requested_name_request ON pii.requested_name (request);

-- The columns that may hold the tokens of a field, sealed or not, noted when a pipeline starts. A value
-- goes only once no column holds its token any more, so none is ever taken off the list.
CREATE TABLE pii.holder (
    target      text NOT NULL,              -- schema.table, quoted where SQL requires it
    column_name text NOT NULL,
    field       text NOT NULL,              -- as in pii.value
    PRIMARY KEY (target, column_name, field)
);

-- Sealed values whose token no target held when upkeep looked. They are taken from pii.value first, so
-- that whoever writes such a token from then on seals it again, and come back if a row with it had
-- been written meanwhile.
CREATE TABLE pii.unheld (
    subject    uuid NOT NULL,               -- these as in pii.value, in the same order
    generation integer NOT NULL,
    field      text NOT NULL,
    token      text NOT NULL,
    sealed     bytea NOT NULL,
    token_hash bigint NOT NULL,
    PRIMARY KEY (subject, token_hash, field)
);

-- Whoever looks for values that no target holds locks this table first, until its transaction ends.
CREATE TABLE pii.unheld_lock ();

-- The new token for each old one, while a rekey runs. It is emptied at the end, because whoever has
-- the old root could follow it from a guessed value to the new token.
CREATE TABLE pii.token_map (
    old_token text PRIMARY KEY,
    new_token text NOT NULL
);

------------------------------------------------------------------------------------------------
-- 12. Vault: functions
------------------------------------------------------------------------------------------------
-- Every batch calls stored, missing, open_subjects and the trigger require_live_key. Their plans are cached
-- for the session, and a plan made while the tables were small would read the whole tables once
-- they have grown. Switching off sequential scans, hash joins and merge joins binds them to the
-- indexes.

-- The erasure lock. It has no rows, and nobody but its owner has a privilege on it.
CREATE TABLE pii.erasure_lock ();

-- Take the erasure lock, shared, until the transaction ends. A batch holds it from its first
-- statement on, and an erasure takes it alone before it destroys a key. So a batch either ends
-- before the erasure, which then finds its rows, or begins after it and reads the new epoch, which
-- empties its cache. ROW SHARE is the weakest mode that EXCLUSIVE excludes.
CREATE FUNCTION pii.lock_shared() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    LOCK TABLE pii.erasure_lock IN ROW SHARE MODE;
END
$$;

-- Take the erasure lock alone: wait for the batches that run, and hold back new ones.
CREATE FUNCTION pii.lock_alone() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    LOCK TABLE pii.erasure_lock IN EXCLUSIVE MODE;
END
$$;

-- Return the hash by which a process knows a stored value, as int8send makes it. Without a search_path
-- of its own, so that the planner puts the expression in the call's place.
CREATE FUNCTION pii.value_hash(subject uuid, field text, token_hash bigint) RETURNS bytea
LANGUAGE sql IMMUTABLE
AS $$
    SELECT pg_catalog.int8send(pg_catalog.uuid_hash_extended(
               subject, pg_catalog.hashtextextended(field, token_hash)))
$$;

-- Return the hashes of values that are stored of subjects, at most 64 of each. What a process learns
-- of a person who comes back is then known for their other values, too.
CREATE FUNCTION pii.stored(subjects uuid[]) RETURNS bytea
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pii, pg_temp
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
BEGIN
    RETURN (
        SELECT string_agg(pii.value_hash(s.subject, v.field, v.token_hash), ''::bytea)
          FROM unnest(subjects) AS s (subject)
         CROSS JOIN LATERAL (
               SELECT o.field, o.token_hash FROM pii.value o WHERE o.subject = s.subject LIMIT 64) v);
END
$$;

-- Return the same of all subjects whose reference has this number in its first bits: what a process reads
-- when it starts. At most a million. Slices have no finer bounds, so that nobody finds a reference by
-- them, and with it a wrapped key.
CREATE FUNCTION pii.stored_slice(number integer, bits integer) RETURNS bytea
LANGUAGE plpgsql STRICT SECURITY DEFINER
SET search_path = pg_catalog, pii, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $$
DECLARE
    least integer := number << (8 - bits);
    most integer := ((number + 1) << (8 - bits)) - 1;
BEGIN
    IF bits NOT IN (0, 4, 8) OR number NOT BETWEEN 0 AND (1 << bits) - 1 THEN
        RAISE EXCEPTION 'sqs2pg: there is no such slice' USING ERRCODE = '22023';
    END IF;
    RETURN (
        SELECT string_agg(pii.value_hash(v.subject, v.field, v.token_hash), ''::bytea)
          FROM (SELECT o.subject, o.field, o.token_hash FROM pii.value o
                 WHERE o.subject BETWEEN (lpad(to_hex(least), 2, '0') || repeat('0', 30))::uuid
                                     AND (lpad(to_hex(most), 2, '0') || repeat('f', 30))::uuid
                 LIMIT 1000000) v);
END
$$;

-- Return those of the named values that are not stored yet, by subject, with the subject's key.
-- `entries` are their numbers, from 1, each as int4send makes it: mostly all values of new people,
-- in one row. Where wrapped_key is NULL the subject has no key, and `generation` is that of the key
-- to create. For a role that may not read the tables, naming the subject is the only way to a
-- wrapped key.
CREATE FUNCTION pii.missing(subjects uuid[], fields text[], tokens text[])
RETURNS TABLE (entries bytea, generation integer, wrapped_key bytea, key_version integer)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pii, pg_temp
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
BEGIN
    -- Most often nothing is missing: the keys are looked up only for what is.
    RETURN QUERY
    WITH absent AS MATERIALIZED (
        SELECT e.subject, string_agg(int4send(e.i::integer), ''::bytea) AS entries
          FROM unnest(subjects, fields, tokens) WITH ORDINALITY AS e (subject, field, token, i)
         WHERE NOT EXISTS (
               SELECT FROM pii.value v
                WHERE v.subject = e.subject AND v.field = e.field
                  AND v.token_hash = hashtextextended(e.token, 0))
         GROUP BY e.subject)
    SELECT string_agg(a.entries, ''::bytea),
           CASE WHEN k.wrapped_key IS NULL THEN coalesce(k.generation, 0) + 1 ELSE k.generation END,
           k.wrapped_key, k.key_version
      FROM absent a LEFT JOIN pii.subject_key k ON k.subject = a.subject
     GROUP BY k.subject, k.generation, k.wrapped_key, k.key_version;
END
$$;

-- Give subjects the offered keys, unless another transaction was first; return the keys of those who
-- have another than the offered one. `subjects` must be distinct. Sorted, so that two batches with the
-- same subjects wait and never deadlock.
CREATE FUNCTION pii.open_subjects(
    subjects uuid[], generations integer[], wrapped_keys bytea[], version integer,
    sealed_subjects bytea[])
RETURNS TABLE (subject uuid, generation integer, wrapped_key bytea, key_version integer)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pii, pg_temp
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
    added bigint;
BEGIN
    PERFORM pii.lock_shared();
    INSERT INTO pii.subject_key (subject, generation, wrapped_key, key_version, sealed_subject)
    SELECT n.subject, n.generation, n.wrapped_key, version, n.sealed_subject
      FROM unnest(subjects, generations, wrapped_keys, sealed_subjects)
           AS n (subject, generation, wrapped_key, sealed_subject)
     ORDER BY n.subject
    ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS added = ROW_COUNT;
    IF added = cardinality(subjects) THEN
        RETURN;
    END IF;
    -- A person who was erased and has come back.
    PERFORM FROM pii.subject_key k
      WHERE k.subject = ANY (subjects) AND k.wrapped_key IS NULL ORDER BY k.subject FOR UPDATE;
    UPDATE pii.subject_key k
       SET generation = n.generation, wrapped_key = n.wrapped_key, key_version = version,
           sealed_subject = n.sealed_subject, created_at = now(), destroyed_at = NULL
      FROM unnest(subjects, generations, wrapped_keys, sealed_subjects)
           AS n (subject, generation, wrapped_key, sealed_subject)
     WHERE k.subject = n.subject AND k.wrapped_key IS NULL AND k.generation = n.generation - 1;
    RETURN QUERY
    SELECT k.subject, k.generation, k.wrapped_key, k.key_version
      FROM unnest(subjects, wrapped_keys) AS n (subject, wrapped_key)
      JOIN pii.subject_key k ON k.subject = n.subject
     WHERE k.wrapped_key IS NOT NULL AND k.wrapped_key <> n.wrapped_key;
END
$$;

-- Trigger function: refuse a value that is sealed under a key that does not exist, whatever the
-- writer's cache says. It takes the lock first, so that the query on the keys has a snapshot of its
-- own, taken after the lock.
CREATE FUNCTION pii.require_live_key() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pii, pg_temp
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
BEGIN
    PERFORM pii.lock_shared();
    IF EXISTS (
        SELECT FROM (SELECT DISTINCT d.subject, d.generation FROM added d) a WHERE NOT EXISTS (
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
ALTER TABLE pii.value ENABLE ALWAYS TRIGGER require_live_key;  -- as for the audit

-- Note which columns hold the tokens of sealed fields. Names of other tables than targets are left
-- out.
CREATE FUNCTION pii.note_holders(targets text[], columns text[], fields text[]) RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pii, pg_temp
AS $$
    INSERT INTO pii.holder (target, column_name, field)
    SELECT DISTINCT n.target, n.column_name, n.field
      FROM unnest(targets, columns, fields) AS n (target, column_name, field)
     WHERE length(n.field) <= 256
       AND EXISTS (SELECT FROM sqs2pg.target t WHERE t.target = n.target)
       AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = to_regclass(n.target)
                   AND a.attname = n.column_name AND NOT a.attisdropped)
    ON CONFLICT DO NOTHING
$$;

-- Return the query of the tokens of a field that targets hold; NULL where its values never go. A log
-- holds a token for ever. So does a table that this owner cannot read whole, or no longer finds.
CREATE FUNCTION pii.held_tokens(of_field text) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pii, pg_temp
AS $$
DECLARE
    place record;
    parts text[] := '{}';
BEGIN
    FOR place IN
        SELECT h.target, h.column_name, c.oid, a.attnum IS NOT NULL AS is_there,
               (SELECT bool_and(t.mode <> 'append') FROM sqs2pg.target t WHERE t.target = h.target)
                   AS keeps_state,
               row_security_active(c.oid) OR sqs2pg.is_of_others(c.oid) AS is_others
          FROM pii.holder h
          LEFT JOIN pg_class c ON c.oid = to_regclass(h.target)
          LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = h.column_name
           AND NOT a.attisdropped
         WHERE h.field = of_field
    LOOP
        IF (place.keeps_state AND place.is_there AND NOT place.is_others
            AND has_table_privilege(place.oid, 'SELECT')) IS NOT TRUE THEN
            RETURN NULL;
        END IF;
        parts := parts || format('SELECT t.%I::text AS token FROM %s t WHERE t.%I IS NOT NULL',
                                 place.column_name, place.target, place.column_name);
    END LOOP;
    RETURN nullif(array_to_string(parts, ' UNION ALL '), '');
END
$$;

-- Take up to 10,000 values of each field whose token no target holds out of pii.value; return how
-- many were taken. After a look that took longer than a second, the next one is a hundred times as far
-- off. Batches wait while the values are taken, not while they are looked for. Afterwards they take
-- none of them for stored: the epoch rises.
CREATE FUNCTION pii.take_unheld() RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pii, pg_temp
SET lock_timeout = '5s'
SET enable_nestloop = off
AS $$
DECLARE
    began timestamptz := clock_timestamp();
    place record;
    held text;
    some_subjects uuid[];
    some_tokens text[];
    subjects uuid[] := '{}';
    fields text[] := '{}';
    tokens text[] := '{}';
    taken integer;
BEGIN
    LOCK TABLE pii.unheld_lock IN EXCLUSIVE MODE;
    IF (SELECT s.unheld_from FROM pii.state s) > began OR EXISTS (SELECT FROM pii.token_map)
       OR NOT EXISTS (SELECT FROM pii.value) THEN
        RETURN 0;
    END IF;
    FOR place IN SELECT DISTINCT h.field FROM pii.holder h LOOP
        held := pii.held_tokens(place.field);
        CONTINUE WHEN held IS NULL;
        EXECUTE format(
            'SELECT array_agg(c.subject), array_agg(c.token)
               FROM (SELECT v.subject, v.token FROM pii.value v
                      WHERE v.field = $1
                        AND NOT EXISTS (SELECT FROM (%s) h WHERE h.token = v.token)
                      LIMIT 10000) c', held)
            INTO some_subjects, some_tokens USING place.field;
        subjects := subjects || some_subjects;
        tokens := tokens || some_tokens;
        fields := fields || array_fill(place.field, ARRAY[coalesce(cardinality(some_subjects), 0)]);
    END LOOP;
    IF cardinality(subjects) > 0 THEN
        PERFORM pii.lock_alone();
        IF EXISTS (SELECT FROM pii.token_map) THEN
            RETURN 0;
        END IF;
        SET LOCAL enable_nestloop = on;
        WITH gone AS (
            DELETE FROM pii.value v USING unnest(subjects, fields, tokens) AS n (subject, field, token)
             WHERE v.subject = n.subject AND v.token_hash = hashtextextended(n.token, 0)
               AND v.field = n.field
            RETURNING v.*
        )
        INSERT INTO pii.unheld SELECT * FROM gone
            ON CONFLICT (subject, token_hash, field) DO UPDATE
            SET generation = excluded.generation, token = excluded.token, sealed = excluded.sealed;
        GET DIAGNOSTICS taken = ROW_COUNT;
    END IF;
    UPDATE pii.state s
       SET unheld_from = clock_timestamp()
               + 100 * greatest(clock_timestamp() - began - interval '1 second', interval '0'),
           epoch = s.epoch + CASE WHEN taken > 0 THEN 1 ELSE 0 END;
    RETURN coalesce(taken, 0);
END
$$;

-- Delete the values that were taken, in an earlier transaction, except those whose token is held after
-- all: they come back. Return how many were deleted, and the audit's new head.
CREATE FUNCTION pii.drop_unheld(OUT dropped integer, OUT sequence bigint, OUT hash bytea)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pii, pg_temp
SET lock_timeout = '5s'
SET enable_nestloop = off
AS $$
#variable_conflict use_column
DECLARE
    place record;
    held text;
    those tid[];
    kept tid[] := '{}';
BEGIN
    dropped := 0;
    -- From here on nobody takes others: addresses in pii.unheld stay those of the same values.
    LOCK TABLE pii.unheld_lock IN EXCLUSIVE MODE;
    IF EXISTS (SELECT FROM pii.token_map) OR NOT EXISTS (SELECT FROM pii.unheld) THEN
        RETURN;
    END IF;
    FOR place IN SELECT DISTINCT u.field FROM pii.unheld u LOOP
        held := pii.held_tokens(place.field);
        EXECUTE 'SELECT array_agg(u.ctid) FROM pii.unheld u WHERE u.field = $1'
            || CASE WHEN held IS NULL THEN ''
               ELSE format(' AND EXISTS (SELECT FROM (%s) h WHERE h.token = u.token)', held) END
            INTO those USING place.field;
        kept := kept || those;
    END LOOP;
    -- An erasure removes what is in both tables, or waits.
    PERFORM pii.lock_shared();
    WITH back AS (DELETE FROM pii.unheld u WHERE u.ctid = ANY (kept) RETURNING u.*)
    INSERT INTO pii.value SELECT * FROM back ON CONFLICT DO NOTHING;
    DELETE FROM pii.unheld;
    GET DIAGNOSTICS dropped = ROW_COUNT;
    IF dropped > 0 THEN
        SELECT a.sequence, a.hash INTO sequence, hash FROM sqs2pg.record_act('values_dropped',
            format('%s sealed values whose token no target holds any more', dropped)) a;
    END IF;
END
$$;

-- Return the wrapped key that makes subject references, and the root that wraps it.
CREATE FUNCTION pii.reference_key(OUT wrapped bytea, OUT wrapped_by text)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pii, pg_temp
AS $$ SELECT s.reference_key, s.reference_wrapped_by FROM pii.state s $$;

-- Store the wrapped key of subject references, unless there is one already.
CREATE FUNCTION pii.set_reference_key(wrapped bytea, wrapped_by text) RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pii, pg_temp
AS $$
    UPDATE pii.state SET reference_key = wrapped, reference_wrapped_by = wrapped_by
     WHERE reference_key IS NULL
$$;

-- Make the caller's transaction wait for the disk when it commits, whatever synchronous_commit the
-- caller sets afterwards. A transaction that removes a file always does (RecordTransactionCommit in
-- xact.c): the file must not be gone before the commit is durable. So it makes a table and drops
-- it, which nobody else sees. A position in the log would not do: behind the commit there may be
-- records, of pruned pages or of transactions that still run, which nobody flushes for a long time.
CREATE FUNCTION pii.commit_at_once() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    name text := 'commit_' || pg_current_xact_id()::text;
BEGIN
    EXECUTE format('CREATE TABLE pii.%I ()', name);
    EXECUTE format('DROP TABLE pii.%I', name);
END
$$;

-- Ask to reveal up to `most` values: of a token, of a subject, or of a token within a subject.
-- Commit, then call fetch_reveal. `granted` is false if the role has used up its values of the
-- hour. A refused request is audited too.
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
    IF most IS NULL OR most NOT BETWEEN 1 AND 1000 OR sqs2pg.says_nothing(reason) THEN
        RAISE EXCEPTION 'sqs2pg: 1 to 1000 values, and a reason' USING ERRCODE = '22023';
    END IF;
    IF current_setting('server_version_num')::integer < 170000 THEN
        PERFORM pii.commit_at_once();
    END IF;
    -- The head first, so that requests are counted one after the other.
    PERFORM FROM sqs2pg.audit_head FOR UPDATE;
    SELECT coalesce(sum(r.most), 0) + request_reveal.most <= max(s.reveals_per_hour_max)
      INTO granted
      FROM pii.state s LEFT JOIN pii.request r
        ON r.role = session_user::text AND NOT r.everything AND r.at > clock_timestamp() - interval '1 hour';
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

-- Make sure that everything committed is on disk, whatever synchronous_commit the committing
-- session had. Only PostgreSQL 17 and later let a session do that. On an older server
-- `commit_at_once` has made sure of the request's own commit.
CREATE FUNCTION pii.flush() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF current_setting('server_version_num')::integer >= 170000 THEN
        EXECUTE 'SELECT pg_logical_emit_message(false, ''sqs2pg'', ''''::text, true)';
    END IF;
END
$$;

-- Return a request that this role has committed within the last ten minutes; refuse any other.
CREATE FUNCTION pii.committed_request(request bigint) RETURNS pii.request
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pii, pg_temp
AS $$
DECLARE
    asked pii.request;
BEGIN
    SELECT r.* INTO asked FROM pii.request r
     WHERE r.id = committed_request.request AND r.role = session_user::text
       AND r.at > clock_timestamp() - interval '10 minutes';
    -- A transaction that sees its own request is still in progress; so is one after a savepoint.
    IF asked.id IS NULL OR pg_xact_status(asked.transaction) IS DISTINCT FROM 'committed' THEN
        RAISE EXCEPTION 'sqs2pg: no committed request of this role within ten minutes'
            USING ERRCODE = '42501';
    END IF;
    PERFORM pii.flush();
    RETURN asked;
END
$$;

-- Return the ciphertexts of a request.
CREATE FUNCTION pii.fetch_reveal(request bigint)
RETURNS TABLE (subject uuid, generation integer, field text, token text, sealed bytea,
               wrapped_key bytea, key_version integer, sealed_subject bytea, shared_by bigint)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pii, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    asked pii.request := pii.committed_request(request);
    current_token text;
BEGIN
    IF asked.entries IS NOT NULL THEN
        RAISE EXCEPTION 'sqs2pg: the request is for bodies' USING ERRCODE = '42501';
    END IF;
    SELECT m.new_token INTO current_token FROM pii.token_map m WHERE m.old_token = asked.token;
    RETURN QUERY
    SELECT v.subject, v.generation, v.field, v.token, v.sealed, k.wrapped_key, k.key_version,
           k.sealed_subject, count(*) OVER (PARTITION BY v.field, v.token)
      FROM (SELECT * FROM pii.value
            UNION ALL
            SELECT * FROM pii.unheld u
             WHERE NOT EXISTS (SELECT FROM pii.value o WHERE o.subject = u.subject
                               AND o.token_hash = u.token_hash AND o.field = u.field)) v
      JOIN pii.subject_key k ON k.subject = v.subject AND k.generation = v.generation
     WHERE (asked.token IS NULL OR v.token IN (asked.token, current_token)
            AND v.token_hash IN (hashtextextended(asked.token, 0), hashtextextended(current_token, 0)))
       AND (asked.subject IS NULL OR v.subject = asked.subject)
       AND k.wrapped_key IS NOT NULL
     ORDER BY v.field, v.token, k.created_at, v.subject
     LIMIT asked.most;
END
$$;

-- Ask for everything that is held on a subject, up to `most` rows of each kind. Commit, then insert
-- into requested_name, commit, and call the functions below and fetch_reveal. `granted` is false if
-- the role has asked for as many people within the hour as it may. A refused request is audited too.
CREATE FUNCTION pii.request_person(
    wanted_subject uuid, most integer, reason text, ticket text DEFAULT '',
    OUT granted boolean, OUT sequence bigint, OUT hash bytea)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pii, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    IF wanted_subject IS NULL OR most IS NULL OR most NOT BETWEEN 1 AND 10000
       OR sqs2pg.says_nothing(reason) THEN
        RAISE EXCEPTION 'sqs2pg: a subject, 1 to 10000 rows, and a reason' USING ERRCODE = '22023';
    END IF;
    IF current_setting('server_version_num')::integer < 170000 THEN
        PERFORM pii.commit_at_once();
    END IF;
    PERFORM FROM sqs2pg.audit_head FOR UPDATE;
    SELECT count(r.id) < max(s.people_per_hour_max) INTO granted
      FROM pii.state s LEFT JOIN pii.request r
        ON r.role = session_user::text AND r.everything
       AND r.at > clock_timestamp() - interval '1 hour';
    SELECT a.sequence, a.hash INTO sequence, hash FROM sqs2pg.record_act(
        CASE WHEN granted THEN 'reveal_all' ELSE 'reveal_refused' END,
        'subject ' || wanted_subject::text || ', everything, up to ' || most || ' rows of a kind',
        reason, coalesce(ticket, '')) a;
    IF granted THEN
        DELETE FROM pii.request r WHERE r.at < clock_timestamp() - interval '1 day';
        INSERT INTO pii.request (id, role, at, transaction, subject, most, everything)
        VALUES (sequence, session_user::text, clock_timestamp(), pg_current_xact_id(),
                wanted_subject, most, true);
    END IF;
END
$$;

-- Return the committed request if it is one for everything; refuse any other.
CREATE FUNCTION pii.committed_person(request bigint) RETURNS pii.request
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pii, pg_temp
AS $$
DECLARE
    asked pii.request := pii.committed_request(request);
BEGIN
    IF NOT asked.everything THEN
        RAISE EXCEPTION 'sqs2pg: the request is not for everything' USING ERRCODE = '42501';
    END IF;
    RETURN asked;
END
$$;

-- Return the person's rows of every target as JSON, and remove the texts they were found by. Only
-- the column that `migrate` has recorded is searched. No function here can tell whether a text
-- belongs to the subject: the key that says so is not in the database.
CREATE FUNCTION pii.fetch_person_rows(request bigint) RETURNS TABLE (target text, found jsonb)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pii, pg_temp
SET row_security = off
AS $$
DECLARE
    asked pii.request := pii.committed_person(request);
    place record;
BEGIN
    FOR place IN
        SELECT DISTINCT t.target AS name, t.subject_column AS column_name,
               CASE y.typname WHEN 'bpchar' THEN 'bpchar' ELSE format_type(a.atttypid, NULL) END AS type
          FROM sqs2pg.target t
          JOIN pg_attribute a ON a.attrelid = to_regclass(t.target) AND NOT a.attisdropped
           AND a.attname = t.subject_column
          JOIN pg_type y ON y.oid = a.atttypid
         ORDER BY 1, 2
    LOOP
        IF sqs2pg.is_of_others(place.name::regclass) THEN
            RAISE EXCEPTION 'sqs2pg: a target belongs to another role, and a superuser does not '
                'read it for others' USING ERRCODE = '42501';
        END IF;
        RETURN QUERY EXECUTE format(
            'SELECT %L::text, to_jsonb(t) FROM %s t WHERE t.%I IN (
                 SELECT n.spelling::%s FROM pii.requested_name n
                  WHERE n.request = $1 AND n.role = session_user::text AND n.target = $2)
              LIMIT $3', place.name, place.name, place.column_name, place.type)
            USING asked.id, place.name, asked.most;
    END LOOP;
    DELETE FROM pii.requested_name n
     WHERE (n.request = asked.id AND n.role = session_user::text)
        OR n.at < clock_timestamp() - interval '1 hour';
END
$$;

-- Return the person's quarantined bodies, sealed.
CREATE FUNCTION pii.fetch_person_bodies(request bigint)
RETURNS TABLE (id bigint, pipeline text, key uuid, message_id text, reason text,
               received_at timestamptz, sealed_under text, body bytea, attributes bytea)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pii, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    asked pii.request := pii.committed_person(request);
BEGIN
    RETURN QUERY
    SELECT q.id, p.name, q.key, q.message_id, q.reason, q.received_at, q.sealed_under, q.body,
           q.attributes
      FROM sqs2pg.quarantine q JOIN sqs2pg.pipeline p ON p.id = q.pipeline
     WHERE q.subject = asked.subject ORDER BY q.id LIMIT asked.most;
END
$$;

-- Ask for the bodies of quarantine entries, 1 to 1,000 of them. Commit, then call fetch_bodies. They
-- count against the values of the hour. A refused request is audited too.
CREATE FUNCTION pii.request_bodies(
    wanted bigint[], reason text, ticket text DEFAULT '',
    OUT granted boolean, OUT sequence bigint, OUT hash bytea)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pii, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    count integer := cardinality(wanted);
    named text := array_to_string(wanted[1:12], ', ');
BEGIN
    IF count IS NULL OR count NOT BETWEEN 1 AND 1000 OR array_position(wanted, NULL) IS NOT NULL
       OR sqs2pg.says_nothing(reason) THEN
        RAISE EXCEPTION 'sqs2pg: 1 to 1000 entries, and a reason' USING ERRCODE = '22023';
    END IF;
    IF current_setting('server_version_num')::integer < 170000 THEN
        PERFORM pii.commit_at_once();
    END IF;
    PERFORM FROM sqs2pg.audit_head FOR UPDATE;
    SELECT coalesce(sum(r.most), 0) + count <= max(s.reveals_per_hour_max) INTO granted
      FROM pii.state s LEFT JOIN pii.request r
        ON r.role = session_user::text AND NOT r.everything
       AND r.at > clock_timestamp() - interval '1 hour';
    SELECT a.sequence, a.hash INTO sequence, hash FROM sqs2pg.record_act(
        CASE WHEN granted THEN 'unseal' ELSE 'unseal_refused' END,
        format('%s quarantine entries: %s', count, named) || CASE WHEN count > 12 THEN ', …' ELSE '' END,
        reason, coalesce(ticket, '')) a;
    IF granted THEN
        DELETE FROM pii.request r WHERE r.at < clock_timestamp() - interval '1 day';
        INSERT INTO pii.request (id, role, at, transaction, most, entries)
        VALUES (sequence, session_user::text, clock_timestamp(), pg_current_xact_id(), count, wanted);
    END IF;
END
$$;

-- Return the bodies of a request, sealed.
CREATE FUNCTION pii.fetch_bodies(request bigint)
RETURNS TABLE (id bigint, key uuid, message_id text, sealed_under text, body bytea, attributes bytea)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pii, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    asked pii.request := pii.committed_request(request);
BEGIN
    IF asked.entries IS NULL THEN
        RAISE EXCEPTION 'sqs2pg: the request is not for bodies' USING ERRCODE = '42501';
    END IF;
    RETURN QUERY
    SELECT q.id, q.key, q.message_id, q.sealed_under, q.body, q.attributes
      FROM sqs2pg.quarantine q WHERE q.id = ANY (asked.entries) ORDER BY q.id;
END
$$;

-- Return the acts of the audit that name the person's reference, or one of their tokens.
CREATE FUNCTION pii.fetch_person_acts(request bigint)
RETURNS TABLE (sequence bigint, at timestamptz, role text, act text, subject text, reason text,
               ticket text)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pii, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    asked pii.request := pii.committed_person(request);
BEGIN
    RETURN QUERY
    SELECT a.sequence, a.at, a.role, a.act, a.subject, a.reason, a.ticket
      FROM sqs2pg.audit a
     WHERE strpos(a.subject, asked.subject::text) > 0
        OR strpos(a.subject, replace(asked.subject::text, '-', '')) > 0
        OR substring(a.subject FROM '^token ([^,]+), up to') IN (
               SELECT v.token FROM pii.value v WHERE v.subject = asked.subject)
     ORDER BY a.sequence LIMIT asked.most;
END
$$;

-- Return when a subject was erased; NULL if it was not, or has come back since.
CREATE FUNCTION pii.erased_at(of_subject uuid) RETURNS timestamptz
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pii, pg_temp
AS $$ SELECT k.destroyed_at FROM pii.subject_key k WHERE k.subject = of_subject $$;

------------------------------------------------------------------------------------------------
-- 13. Privileges
------------------------------------------------------------------------------------------------
-- A new table is its owner's alone; the REVOKEs say so again for audit and vault. A new function,
-- however, may be called by everybody: take that away. What the four roles may do is in roles.sql.
-- It is a file of its own, because `migrate` runs it every time: a role may be created later than
-- the schema, by somebody with CREATEROLE.

REVOKE ALL ON sqs2pg.audit, sqs2pg.audit_head FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA pii FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA sqs2pg FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA pii FROM PUBLIC;
