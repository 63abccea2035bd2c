-- The audit: every act of a person or of maintenance on what was set aside, on keys and on the
-- vault. Append-only and hash-chained: each row's hash covers its fields and the hash before it,
-- so that a row cannot be changed, removed or moved without every later hash changing too. Whoever
-- owns the table can still rewrite all of it; that is why an anchor (sequence and hash) is logged
-- after each act, where the owner of the database cannot reach it.

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

-- The last row's sequence and hash. Its row lock puts concurrent acts in order; a sequence object
-- would leave gaps behind transactions that roll back.
CREATE TABLE sqs2pg.audit_head (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    sequence bigint NOT NULL,
    hash     bytea NOT NULL
);
INSERT INTO sqs2pg.audit_head (sequence, hash) VALUES (0, decode(repeat('00', 32), 'hex'));

REVOKE ALL ON sqs2pg.audit, sqs2pg.audit_head FROM PUBLIC;

CREATE FUNCTION sqs2pg.refuse_change() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'sqs2pg: the audit is append-only' USING ERRCODE = '42501';
END
$$;

-- ALWAYS: they fire in a session with session_replication_role = replica as well. By row, so that
-- a statement on a table that this one was made to inherit from meets them too.
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON sqs2pg.audit
    FOR EACH ROW EXECUTE FUNCTION sqs2pg.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON sqs2pg.audit
    FOR EACH STATEMENT EXECUTE FUNCTION sqs2pg.refuse_change();
CREATE TRIGGER append_only BEFORE DELETE ON sqs2pg.audit_head
    FOR EACH ROW EXECUTE FUNCTION sqs2pg.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON sqs2pg.audit_head
    FOR EACH STATEMENT EXECUTE FUNCTION sqs2pg.refuse_change();
ALTER TABLE sqs2pg.audit ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE sqs2pg.audit ENABLE ALWAYS TRIGGER append_only_truncate;
ALTER TABLE sqs2pg.audit_head ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE sqs2pg.audit_head ENABLE ALWAYS TRIGGER append_only_truncate;

-- Append one act; return the new head, which is the anchor once the transaction has committed.
-- SECURITY DEFINER: a role that may act need not be able to write here by hand. Locks the head
-- until the transaction ends, so call it last in a long one. The caller's transaction commits
-- durably whatever its role's default: an act that a crash could take back was not recorded.
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
REVOKE ALL ON FUNCTION sqs2pg.record_act(text, text, text, text) FROM PUBLIC;

-- A quarantine row that was purged leaves its ledger entry as it was; counted here, so that the
-- books still balance.
ALTER TABLE sqs2pg.tally ADD COLUMN purged bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN sqs2pg.tally.purged IS
    'ledger entries left as quarantined whose quarantine row was purged';

-- Retention and the filters of `quarantine list` and `purge` go by age.
CREATE INDEX quarantine_received_at ON sqs2pg.quarantine (received_at);
