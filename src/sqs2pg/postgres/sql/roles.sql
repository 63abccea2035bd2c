-- The four roles and what each of them may do. Every `migrate` runs this file after the migrations;
-- it is safe to repeat. Roles belong to the whole cluster: a role that exists is used as it is. A role
-- that this login may not create is left out, together with its grants, until somebody has created
-- it (`migrate` says so).

DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['sqs2pg_ingest', 'sqs2pg_analyst', 'sqs2pg_revealer', 'sqs2pg_auditor']
    LOOP
        CONTINUE WHEN EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = role);
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role);
        EXCEPTION
            -- The migration of another database was first, or this login may not create roles.
            WHEN duplicate_object OR unique_violation OR insufficient_privilege THEN NULL;
        END;
    END LOOP;
END
$$;

DO $$
BEGIN
    -- The pipeline. It reads no body and no sealed value, and gets a wrapped key only by naming the
    -- key's subject.
    IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'sqs2pg_ingest') THEN
        GRANT USAGE ON SCHEMA sqs2pg, pii TO sqs2pg_ingest;
        GRANT SELECT ON sqs2pg.migration, sqs2pg.pipeline, sqs2pg.target, sqs2pg.tally,
            sqs2pg.partitioned, sqs2pg.key, sqs2pg.pause TO sqs2pg_ingest;
        -- The books only grow.
        GRANT SELECT, INSERT ON sqs2pg.delivery TO sqs2pg_ingest;
        GRANT INSERT ON sqs2pg.tally, sqs2pg.quarantine TO sqs2pg_ingest;
        GRANT SELECT (id, key, message_id, pipeline, reason, detail, target, attempts, sent_at,
                      received_at, sealed_under, replayed_at)
            ON sqs2pg.quarantine TO sqs2pg_ingest;
        -- State tables. A tombstone may rise to a later version; the guard is empty between batches.
        GRANT SELECT, INSERT, UPDATE (version, deleted_at) ON sqs2pg.tombstone TO sqs2pg_ingest;
        GRANT SELECT, INSERT, DELETE ON sqs2pg.key_guard TO sqs2pg_ingest;
        -- The state of processes and archives changes. UPDATE is by column: on a whole table it
        -- would come with the right to lock everybody out of the table.
        GRANT SELECT, INSERT, DELETE, UPDATE (attempt, tried_at) ON sqs2pg.suspect TO sqs2pg_ingest;
        GRANT SELECT, INSERT, DELETE, UPDATE (heartbeat_at, state, received, written, duplicate,
                      quarantined, in_flight, per_second, last_fault, batch_s_max)
            ON sqs2pg.worker TO sqs2pg_ingest;
        GRANT SELECT, INSERT, DELETE, UPDATE (seen, last_at) ON sqs2pg.unknown_field
            TO sqs2pg_ingest;
        GRANT SELECT, INSERT,
            UPDATE (source, line, moved_at, finished_at, claimed_by, claimed_until,
                left_behind)
            ON sqs2pg.backfill TO sqs2pg_ingest;
        GRANT EXECUTE ON FUNCTION sqs2pg.attach_days(date, date), sqs2pg.drop_day(),
            sqs2pg.drop_undated(), sqs2pg.drop_tombstones(), sqs2pg.compact_tally(),
            sqs2pg.trim_rows(text, integer, bigint), sqs2pg.mark_quarantined(uuid[]),
            sqs2pg.purge_expired(integer), sqs2pg.record_first_key(text, integer, text),
            sqs2pg.pause_itself(integer), sqs2pg.attach_next_period(text),
            sqs2pg.drop_period(text), sqs2pg.trim_default(text),
            sqs2pg.move_objects(smallint, text[], bigint[], bigint[], boolean[], interval)
            TO sqs2pg_ingest;
        GRANT SELECT (epoch) ON pii.state TO sqs2pg_ingest;
        GRANT INSERT ON pii.value TO sqs2pg_ingest;
        GRANT EXECUTE ON FUNCTION pii.lock_shared(), pii.stored(uuid[]),
            pii.stored_slice(integer, integer), pii.missing(uuid[], text[], text[]),
            pii.open_subjects(uuid[], integer[], bytea[], integer, bytea[]),
            pii.reference_key(), pii.set_reference_key(bytea, text),
            pii.note_holders(text[], text[], text[]), pii.take_unheld(), pii.drop_unheld()
            TO sqs2pg_ingest;
    END IF;
    -- Analysts. They read the targets, which `migrate` grants one by one, and the map of a running
    -- rekey from old tokens to new ones.
    IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'sqs2pg_analyst') THEN
        GRANT USAGE ON SCHEMA pii TO sqs2pg_analyst;
        GRANT SELECT ON pii.token_map TO sqs2pg_analyst;
    END IF;
    -- Revealers. They get sealed values only through an audited request.
    IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'sqs2pg_revealer') THEN
        GRANT USAGE ON SCHEMA sqs2pg, pii TO sqs2pg_revealer;
        GRANT SELECT ON sqs2pg.migration, sqs2pg.pipeline, sqs2pg.target, sqs2pg.key
            TO sqs2pg_revealer;
        GRANT EXECUTE ON FUNCTION pii.request_reveal(text, uuid, integer, text, text),
            pii.fetch_reveal(bigint), pii.erased_at(uuid), pii.reference_key(),
            pii.request_person(uuid, integer, text, text), pii.fetch_person_rows(bigint),
            pii.fetch_person_bodies(bigint), pii.fetch_person_acts(bigint),
            pii.request_bodies(bigint[], text, text), pii.fetch_bodies(bigint) TO sqs2pg_revealer;
        GRANT SELECT (id, key, message_id, pipeline, reason, detail, target, attempts, sent_at,
                      received_at, sealed_under, replayed_at)
            ON sqs2pg.quarantine TO sqs2pg_revealer;
        GRANT INSERT (request, target, spelling) ON pii.requested_name TO sqs2pg_revealer;
    END IF;
    -- Auditors. They read the audit and nothing else.
    IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'sqs2pg_auditor') THEN
        GRANT USAGE ON SCHEMA sqs2pg TO sqs2pg_auditor;
        GRANT SELECT ON sqs2pg.audit, sqs2pg.audit_head TO sqs2pg_auditor;
    END IF;
END
$$;
