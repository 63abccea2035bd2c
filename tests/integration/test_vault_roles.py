"""What each role may do: it can do its work, and every attempt beyond that is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from sqs2pg.cli.embedded import servers
from sqs2pg.errors import FatalFault
from sqs2pg.postgres.audit import Anchor, check_chain, head
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.migrate import migrate, roles_sql
from sqs2pg.postgres.verify import verify
from sqs2pg.runners.assembly import upkeep
from sqs2pg.runners.connect import connect
from sqs2pg.runners.pipeline import Pipeline
from sqs2pg.settings import Settings
from sqs2pg.vault.reveal import reveal
from tests.integration.support import Assemble, rows
from tests.integration.vault_support import ON, PASSWORD, keys_of, login_of, message, write

MakeSettings = Callable[..., Settings]
REQUEST = "SELECT sequence FROM pii.request_reveal(%s, NULL, 1, 'why')"
FETCH = "SELECT sealed FROM pii.fetch_reveal(%s)"
REFUSED = psycopg.errors.InsufficientPrivilege


@pytest.fixture
async def filled(pipeline: Assemble, database: str) -> str:
    """A database with two people who share an address; its URL, as superuser."""
    async with pipeline(**ON) as ready:
        await write(ready, [message("ann"), message("bob", device="2"), message("eve", "::1")])
    return database


@pytest.fixture
def token(filled: str) -> str:
    return str(rows(filled, "SELECT masked_ip FROM user_logins WHERE user_id = 'ann'")[0][0])


@pytest.fixture
def revealer(filled: str) -> Iterator[psycopg.Connection[Any]]:
    with (
        login_of(filled, "sqs2pg_revealer") as conninfo,
        psycopg.connect(conninfo, autocommit=True) as connection,
    ):
        yield connection


TABLES = (
    "user_logins",
    *("pii.value", "pii.subject_key", "pii.request", "pii.erasure", "pii.state", "pii.token_map"),
    *("sqs2pg.audit", "sqs2pg.audit_head", "sqs2pg.quarantine", "sqs2pg.delivery", "sqs2pg.tally"),
    "sqs2pg.worker",
)
MAY_READ = {
    "sqs2pg_analyst": {"user_logins", "pii.token_map"},
    "sqs2pg_revealer": set[str](),
    "sqs2pg_auditor": {"sqs2pg.audit", "sqs2pg.audit_head"},
    "sqs2pg_ingest": {"sqs2pg.delivery", "sqs2pg.tally", "sqs2pg.worker"},
}


@pytest.mark.parametrize("role", MAY_READ)
async def test_a_role_reads_its_tables_and_no_other(filled: str, role: str) -> None:
    readable = set()
    with (
        login_of(filled, role) as conninfo,
        psycopg.connect(conninfo, autocommit=True) as connection,
    ):
        for table in TABLES:
            try:
                connection.execute(f"SELECT * FROM {table}")
            except REFUSED:
                continue
            readable.add(table)
    assert readable == MAY_READ[role]


CHANGES = [
    f"{change} {table}"
    for table in ("sqs2pg.audit", "pii.value", "pii.subject_key", "pii.request", "user_logins")
    for change in ("DELETE FROM", "TRUNCATE")
] + [
    "UPDATE sqs2pg.audit SET reason = ''",
    "UPDATE pii.state SET reveals_per_hour_max = 1000000",
    "UPDATE pii.value SET sealed = ''",
    "UPDATE pii.request SET role = 'x'",
    "INSERT INTO sqs2pg.audit SELECT * FROM sqs2pg.audit",
    "ALTER TABLE sqs2pg.audit DISABLE TRIGGER ALL",
    "DROP TABLE sqs2pg.audit",
    "SELECT pii.lock_alone()",
]


@pytest.mark.parametrize("change", CHANGES)
async def test_no_role_changes_what_it_must_not(filled: str, change: str) -> None:
    for role in MAY_READ:
        with (
            login_of(filled, role) as conninfo,
            psycopg.connect(conninfo, autocommit=True) as connection,
            pytest.raises(REFUSED),
        ):
            connection.execute(change)


@pytest.mark.parametrize(
    "read",
    [
        "SELECT body FROM sqs2pg.quarantine",
        "SELECT sealed FROM pii.value",
        "SELECT wrapped_key FROM pii.subject_key",
        "SELECT reference_key FROM pii.state",
        "SELECT * FROM pii.request_reveal('v1_x', NULL, 1, 'why')",
        "SELECT * FROM pii.fetch_reveal(1)",
        "COPY pii.value TO STDOUT",
        "INSERT INTO pii.value SELECT * FROM pii.value",
        "INSERT INTO pii.value VALUES (gen_random_uuid(), 1, 'f', 't', '', 1) RETURNING sealed",
        (
            "INSERT INTO pii.value VALUES (gen_random_uuid(), 1, 'f', 't', '', 1)"
            " ON CONFLICT (subject, token_hash, field) DO UPDATE SET sealed = pii.value.sealed"
        ),
    ],
)
async def test_ingest_cannot_read_a_value(filled: str, read: str) -> None:
    with (
        login_of(filled, "sqs2pg_ingest") as conninfo,
        psycopg.connect(conninfo, autocommit=True) as connection,
        pytest.raises(REFUSED),
    ):
        connection.execute(read)


async def test_ingest_gets_wrapped_keys_of_subjects_it_names_and_of_no_other(filled: str) -> None:
    subjects = [s for (s,) in rows(filled, "SELECT subject FROM pii.subject_key")]
    ask = "SELECT entries, wrapped_key FROM pii.missing(%s, %s, %s)"
    with (
        login_of(filled, "sqs2pg_ingest") as conninfo,
        psycopg.connect(conninfo, autocommit=True) as connection,
    ):
        [(entries, wrapped)] = connection.execute(ask, [subjects[:1], ["ip"], ["new"]]).fetchall()
        assert (entries, wrapped is not None) == (b"\0\0\0\1", True)
        stored = connection.execute(ask, [[], [], []]).fetchall()
        assert stored == []


async def test_the_pipeline_runs_as_a_member_of_ingest_alone(
    settings: MakeSettings, database: str
) -> None:
    owner = settings(**ON)
    session = await connect(owner)
    await migrate(session, owner)
    await session.close()
    with login_of(database, "sqs2pg_ingest") as conninfo:
        chosen = settings(**ON, sink={"dsn": conninfo})
        async with Pipeline(chosen) as ready:
            rows(database, "ALTER TABLE user_logins ADD CHECK (locale <> 'XX')")
            await write(ready, [message("ann"), message("bob")])
            repeated = message("ann", "192.0.2.1")
            await write(ready, [repeated], sink=1)
            batch = [repeated, message("bob", locale="XX"), message("eve"), message("")]
            outcomes = await ready.processors[0].process(batch)
            await upkeep(chosen, ready.sink_plan.id)
    assert [outcome.value for outcome in outcomes] == [
        "duplicate",
        "quarantined",
        "written",
        "quarantined",
    ]
    session = await connect(owner)
    assert (await verify(session, 1)).differences == []
    await session.close()


async def test_a_revealer_reveals_and_the_act_names_the_login(
    filled: str, settings: MakeSettings, token: str
) -> None:
    with login_of(filled, "sqs2pg_revealer") as conninfo:
        session = await Session.connect(conninfo)
        [found] = await reveal(session, keys_of(settings()), token=token, reason="because")
        await session.close()
        assert (found.value, found.shared_by) == ("198.51.100.7", 2)
        [(act, role, reason)] = rows(
            filled, f"SELECT act, role, reason FROM sqs2pg.audit WHERE sequence = {found.audit}"
        )
        assert (act, reason) == ("reveal", "because")
        assert f"user={role}" in conninfo


# -- the request must be committed, durable, of this role and recent ----------------------------


def ask_and_fetch(
    revealer: psycopg.Connection[Any], token: str, before: str = "", between: str = ""
) -> None:
    """Request and fetch in one transaction, with a statement before and one between."""
    with revealer.transaction():
        revealer.execute(before)
        [(number,)] = revealer.execute(REQUEST, [token]).fetchall()
        revealer.execute(between)
        revealer.execute(FETCH, [number])


def test_request_and_fetch_in_one_transaction_is_refused(
    revealer: psycopg.Connection[Any], token: str
) -> None:
    with pytest.raises(REFUSED):
        ask_and_fetch(revealer, token)


@pytest.mark.parametrize("end", ["RELEASE SAVEPOINT s", "ROLLBACK TO SAVEPOINT s"])
def test_request_under_a_savepoint_and_fetch_beside_it_is_refused(
    revealer: psycopg.Connection[Any], token: str, end: str
) -> None:
    with pytest.raises(REFUSED):
        ask_and_fetch(revealer, token, "SAVEPOINT s", end)


def test_a_request_that_was_rolled_back_is_refused(
    revealer: psycopg.Connection[Any], token: str
) -> None:
    with revealer.transaction(force_rollback=True):
        [(number,)] = revealer.execute(REQUEST, [token]).fetchall()
    with pytest.raises(REFUSED):
        revealer.execute(FETCH, [number])


def test_a_caller_cannot_make_its_request_less_than_durable(
    revealer: psycopg.Connection[Any], filled: str, token: str
) -> None:
    """With commits made asynchronous before and after the request, the fetch itself flushes."""
    rows(filled, "ALTER SYSTEM SET wal_writer_delay = '10s'")
    rows(filled, "SELECT pg_reload_conf()")
    try:
        revealer.execute("SET synchronous_commit = off")
        with revealer.transaction():
            [(number,)] = revealer.execute(REQUEST, [token]).fetchall()
            revealer.execute("SET LOCAL synchronous_commit = off")
        [(committed,)] = rows(filled, "SELECT pg_current_wal_insert_lsn()")
        assert len(revealer.execute(FETCH, [number]).fetchall()) == 1
        [(flushed,)] = rows(filled, f"SELECT pg_current_wal_flush_lsn() >= '{committed}'::pg_lsn")
        assert flushed
    finally:
        rows(filled, "ALTER SYSTEM RESET wal_writer_delay")
        rows(filled, "SELECT pg_reload_conf()")


def test_a_commit_is_durable_however_it_was_asked_for(filled: str) -> None:
    """What a request relies on where the server is older than 17: no session can flush there."""
    rows(filled, "ALTER SYSTEM SET wal_writer_delay = '10s'")
    rows(filled, "SELECT pg_reload_conf()")
    flushed = "SELECT pg_current_wal_flush_lsn() >= %s::pg_lsn"
    durable = []
    try:
        with psycopg.connect(filled, autocommit=True) as owner:
            for first in ("SELECT 1", "SELECT pii.commit_at_once()"):
                owner.execute("CHECKPOINT")
                with owner.transaction():
                    owner.execute("SET LOCAL synchronous_commit = off")
                    owner.execute(first.encode())
                    owner.execute("UPDATE pii.state SET epoch = epoch")
                    [(written,)] = owner.execute("SELECT pg_current_wal_insert_lsn()").fetchall()
                durable += owner.execute(flushed, [written]).fetchall()
            left = owner.execute("SELECT relname FROM pg_class WHERE relname ~ '^commit_'")
            assert left.fetchall() == []
    finally:
        rows(filled, "ALTER SYSTEM RESET wal_writer_delay")
        rows(filled, "SELECT pg_reload_conf()")
    assert durable == [(False,), (True,)]


def test_another_roles_request_is_refused(
    revealer: psycopg.Connection[Any], filled: str, token: str
) -> None:
    [(number,)] = revealer.execute(REQUEST, [token]).fetchall()
    with (
        login_of(filled, "sqs2pg_revealer") as conninfo,
        psycopg.connect(conninfo, autocommit=True) as other,
        pytest.raises(REFUSED),
    ):
        other.execute(FETCH, [number])


def test_set_role_does_not_make_another_of_a_login(
    revealer: psycopg.Connection[Any], token: str
) -> None:
    revealer.execute("SET ROLE sqs2pg_revealer")
    [(number,)] = revealer.execute(REQUEST, [token]).fetchall()
    revealer.execute("RESET ROLE")
    assert len(revealer.execute(FETCH, [number]).fetchall()) == 1


def test_an_expired_request_is_refused(
    revealer: psycopg.Connection[Any], filled: str, token: str
) -> None:
    [(number,)] = revealer.execute(REQUEST, [token]).fetchall()
    rows(filled, "UPDATE pii.request SET at = at - interval '9 minutes'")
    assert len(revealer.execute(FETCH, [number]).fetchall()) == 1
    rows(filled, "UPDATE pii.request SET at = at - interval '61 seconds'")
    with pytest.raises(REFUSED):
        revealer.execute(FETCH, [number])


def test_a_request_yields_only_the_values_it_asked_for(
    revealer: psycopg.Connection[Any], token: str
) -> None:
    [(number,)] = revealer.execute(REQUEST, [token]).fetchall()
    fetch = "SELECT token, shared_by FROM pii.fetch_reveal(%s)"
    assert revealer.execute(fetch, [number]).fetchall() == [(token, 2)]


@pytest.mark.parametrize(
    "request_",
    [
        "SELECT pii.request_reveal(NULL, NULL, 1, 'why')",
        "SELECT pii.request_reveal('v1_x', NULL, 0, 'why')",
        "SELECT pii.request_reveal('v1_x', NULL, 1001, 'why')",
        "SELECT pii.request_reveal('v1_x', NULL, NULL, 'why')",
        "SELECT pii.request_reveal('v1_x', NULL, 1, ' ')",
        "SELECT pii.request_reveal('v1_x', NULL, 1, E'\\t\\t')",
        "SELECT pii.request_reveal('v1_x', NULL, 1, E' \\n\\x0b\\u00a0\\u2003\\u200b')",
        "SELECT pii.request_reveal('v1_x', NULL, 1, NULL)",
    ],
)
def test_a_request_needs_a_target_a_limit_and_a_reason(
    revealer: psycopg.Connection[Any], request_: str
) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        revealer.execute(request_)


def test_objects_of_the_caller_never_stand_in_for_ours(
    revealer: psycopg.Connection[Any], filled: str, token: str
) -> None:
    """Objects of the caller's own, first on its path, do not stand in for ours."""
    role = revealer.info.user
    rows(filled, f"CREATE SCHEMA trap AUTHORIZATION {role}")
    try:
        revealer.execute("SET search_path = trap, pg_catalog")
        revealer.execute(
            "CREATE FUNCTION trap.pg_xact_status(xid8) RETURNS text LANGUAGE sql"
            " AS $$ SELECT 'committed' $$"
        )
        revealer.execute(
            "CREATE FUNCTION trap.clock_timestamp() RETURNS timestamptz LANGUAGE sql"
            " AS $$ SELECT '2000-01-01'::timestamptz $$"
        )
        revealer.execute("CREATE TEMP TABLE request AS SELECT 1 AS id")
        with pytest.raises(REFUSED):
            ask_and_fetch(revealer, token)
        [(number,)] = revealer.execute(REQUEST, [token]).fetchall()
        assert len(revealer.execute(FETCH, [number]).fetchall()) == 1
    finally:
        revealer.close()
        rows(filled, "DROP SCHEMA trap CASCADE")


def test_every_definer_function_has_a_safe_path_and_is_not_public(filled: str) -> None:
    found = rows(
        filled,
        "SELECT p.oid::regprocedure::text, p.proconfig, has_function_privilege('public', p.oid,"
        " 'EXECUTE') FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace"
        " WHERE n.nspname IN ('pii', 'sqs2pg') AND p.prosecdef",
    )
    assert len(found) > 10
    for name, config, public in found:
        [path] = [entry for entry in config if entry.startswith("search_path=")]
        assert path.startswith("search_path=pg_catalog"), name
        assert path.endswith("pg_temp"), name
        assert not public, name


async def test_reveals_per_role_and_hour_are_limited_and_a_refusal_is_recorded(
    filled: str, settings: MakeSettings, token: str
) -> None:
    rows(filled, "UPDATE pii.state SET reveals_per_hour_max = 3")
    keyring = keys_of(settings())
    with login_of(filled, "sqs2pg_revealer") as conninfo:
        session = await Session.connect(conninfo)
        await reveal(session, keyring, token=token, limit=2, reason="x")
        with pytest.raises(FatalFault) as caught:
            await reveal(session, keyring, token=token, limit=2, reason="x")
        assert caught.value.code == "rate_limited"
        await reveal(session, keyring, token=token, reason="x")
        await session.close()
    acts = rows(filled, "SELECT act FROM sqs2pg.audit ORDER BY sequence")
    assert [act for (act,) in acts] == ["reveal", "reveal_refused", "reveal"]


async def test_the_auditor_checks_the_chain_against_an_anchor(
    filled: str, settings: MakeSettings, token: str
) -> None:
    owner = await Session.connect(filled)
    [found] = await reveal(owner, keys_of(settings()), token=token, reason="x")
    anchor = await head(owner)
    await owner.close()
    assert anchor.sequence == found.audit
    with login_of(filled, "sqs2pg_auditor") as conninfo:
        session = await Session.connect(conninfo)
        assert await check_chain(session, str(anchor)) == []
        other = str(Anchor(anchor.sequence, bytes(32)))
        assert len(await check_chain(session, other)) == 1
        await session.close()


async def test_migrate_without_createrole_says_which_grants_are_missing(
    settings: MakeSettings,
) -> None:
    """On a cluster of its own, where the roles are not there yet."""
    with servers(sqs=False) as own:
        rows(own.database_url, f"CREATE ROLE plain LOGIN PASSWORD '{PASSWORD}'")
        rows(own.database_url, "CREATE DATABASE plain OWNER plain TEMPLATE template0")
        conninfo = make_conninfo(own.database_url, user="plain", password=PASSWORD, dbname="plain")
        chosen = settings(sink={"dsn": conninfo}, **ON)
        session = await connect(chosen)
        done = await migrate(session, chosen)
        assert "could not create sqs2pg_ingest, sqs2pg_analyst" in done[-1]
        assert "`sqs2pg migrate --sql`" in done[-1]
        admin = make_conninfo(own.database_url, dbname="plain")
        rows(admin, roles_sql())
        assert not [line for line in await migrate(session, chosen) if "could not" in line]
        await session.close()
        may = "SELECT has_table_privilege('sqs2pg_analyst', 'user_logins', 'SELECT')"
        assert rows(admin, may) == [(True,)]
