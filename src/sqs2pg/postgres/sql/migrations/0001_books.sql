-- The books of sqs2pg: ledger, quarantine, tally, and the keys on record.
-- Applied once by `sqs2pg migrate`, in one transaction, by the owner of the schema.

CREATE SCHEMA sqs2pg;

COMMENT ON SCHEMA sqs2pg IS 'The books of sqs2pg: who was delivered, what was set aside, what was counted.';

CREATE TABLE sqs2pg.migration (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    checksum   text NOT NULL,              -- SHA-256 of the file, so that a changed one is noticed
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- One row a pipeline. The ledger refers to it by a smallint: two bytes a message instead of a name.
CREATE TABLE sqs2pg.pipeline (
    id            smallint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    name          text NOT NULL UNIQUE,
    target        text NOT NULL,            -- schema.table, quoted where SQL wants it
    baseline_rows bigint NOT NULL,          -- rows the target held before this pipeline's first one
    registered_at timestamptz NOT NULL DEFAULT now()
);

CREATE TYPE sqs2pg.delivery_outcome AS ENUM ('written', 'quarantined');

-- The ledger: one row a message, in the transaction of its rows. The key is UUIDv7-shaped
-- (RFC 9562): SentTimestamp, then bits of the MessageId. Partitioned at UTC-day bounds; there is
-- no default partition, so a missing one is a fault that is seen and mended, not a slow surprise.
CREATE TABLE sqs2pg.delivery (
    key        uuid NOT NULL PRIMARY KEY,
    message_id text NOT NULL,
    pipeline   smallint NOT NULL,
    outcome    sqs2pg.delivery_outcome NOT NULL,
    seen_at    timestamptz                  -- only where the key has no timestamp of its own
) PARTITION BY RANGE (key);

-- What is older than the kept days, and keys without a timestamp (FIFO). Never dropped, so no
-- message is too old to be recognised. Its upper bound moves up as days are dropped.
CREATE TABLE sqs2pg.delivery_undated (LIKE sqs2pg.delivery INCLUDING ALL);

CREATE TABLE sqs2pg.quarantine (
    id           bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    key          uuid NOT NULL,
    message_id   text NOT NULL,
    pipeline     smallint NOT NULL,
    reason       text NOT NULL,             -- a code, never a quotation
    detail       text NOT NULL,             -- a field, column or constraint, never a value
    attempts     integer NOT NULL,          -- deliveries so far, this one included
    sent_at      timestamptz NOT NULL,
    received_at  timestamptz NOT NULL DEFAULT now(),
    body         bytea NOT NULL,            -- sealed: AES-256-GCM
    sealed_under text NOT NULL,             -- series:version of the key
    replayed_at  timestamptz
);
CREATE INDEX quarantine_message_id ON sqs2pg.quarantine (message_id);
CREATE INDEX quarantine_open ON sqs2pg.quarantine (reason, received_at) WHERE replayed_at IS NULL;

-- One row a batch, appended in its transaction: counts that no later statement can reach, so
-- that `verify` can hold ledger and target against a book of its own.
CREATE TABLE sqs2pg.tally (
    id          bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    pipeline    smallint NOT NULL,
    kind        text NOT NULL DEFAULT 'batch',
    written     bigint NOT NULL DEFAULT 0,   -- messages
    quarantined bigint NOT NULL DEFAULT 0,   -- messages
    duplicate   bigint NOT NULL DEFAULT 0,   -- extra deliveries
    target_rows bigint NOT NULL DEFAULT 0,   -- rows added to the target, negative where removed
    at          timestamptz NOT NULL DEFAULT now()
);

-- The keys on record: fingerprints, never keys. One active version a series; every batch checks
-- it, so that a rolling deploy cannot mix versions unseen.
CREATE TABLE sqs2pg.key (
    series      text NOT NULL CHECK (series IN ('pseudonym', 'vault')),
    version     integer NOT NULL CHECK (version > 0),
    fingerprint text NOT NULL,
    active      boolean NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (series, version)
);
CREATE UNIQUE INDEX key_one_active ON sqs2pg.key (series) WHERE active;

-- The first key of a UTC day: its first millisecond in the 48 leading bits, zeros after it.
CREATE FUNCTION sqs2pg.day_key(day date) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT (lpad(to_hex((day - date '1970-01-01')::bigint * 86400000), 12, '0')
            || '00000000000000000000')::uuid
$$;

-- Attach the day partitions from first_day to last_day that are missing. Returns how many were.
-- Made standalone and attached: ATTACH takes SHARE UPDATE EXCLUSIVE on the ledger, so inserts
-- go on. SECURITY DEFINER: the ingest role may call it and owns nothing. The advisory lock is of
-- the transaction, not the session, which a pooler would share out.
CREATE FUNCTION sqs2pg.attach_days(first_day date, last_day date) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
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
REVOKE ALL ON FUNCTION sqs2pg.attach_days(date, date) FROM PUBLIC;

-- The ledger begins fifteen days back: SQS keeps a message fourteen days at the most.
DO $$
BEGIN
    EXECUTE format('ALTER TABLE sqs2pg.delivery ATTACH PARTITION sqs2pg.delivery_undated FOR VALUES FROM (MINVALUE) TO (%L)',
                   sqs2pg.day_key((now() AT TIME ZONE 'UTC')::date - 15));
    PERFORM sqs2pg.attach_days((now() AT TIME ZONE 'UTC')::date - 15, (now() AT TIME ZONE 'UTC')::date + 7);
END
$$;
