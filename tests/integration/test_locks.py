"""The locks that put work in order: on tables of ours, which nobody else can take."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

import sqs2pg
from sqs2pg.postgres.migrate import migrate
from sqs2pg.settings import Settings
from tests.integration.support import Assemble, opened, rows
from tests.integration.vault_support import ON, login_of, message, write

MakeSettings = Callable[..., Settings]
# The names that advisory locks of ours once had.
ADVISORY = [
    "hashtext('sqs2pg.forget')",
    "hashtext('sqs2pg.attach_days')",
    "hashtext('sqs2pg.migrate')",
    "hashtext('sqs2pg.key')",
    "hashtext('sqs2pg.partition'), 'user_logins'::regclass::oid::integer",
]
OUR_TABLES = """SELECT c.oid::regclass::text FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname IN ('sqs2pg', 'pii') AND c.relkind IN ('r', 'p') ORDER BY 1"""
STRONG = "SHARE ROW EXCLUSIVE"


async def test_no_login_stops_the_work_by_an_advisory_lock(
    pipeline: Assemble, settings: MakeSettings, database: str
) -> None:
    async with pipeline(**ON) as ready:
        with login_of(database) as conninfo, psycopg.connect(conninfo, autocommit=True) as anybody:
            for name in ADVISORY:
                anybody.execute(f"SELECT pg_advisory_lock({name})")
            rows(database, "SET lock_timeout = '2s'; SELECT pii.lock_alone()")
            async with asyncio.timeout(10):
                await write(ready, [message("ann")])
                async with opened(settings(**ON)) as session:
                    await migrate(session, settings(**ON))
                    await session.execute("SELECT sqs2pg.attach_days('2040-01-01', '2040-01-02')")
    assert rows(database, "SELECT count(*) FROM user_logins") == [(1,)]


@pytest.mark.usefixtures("migrated_database")
def test_nothing_of_ours_takes_an_advisory_lock(database: str) -> None:
    functions = rows(
        database,
        "SELECT p.oid::regprocedure::text FROM pg_proc p"
        " JOIN pg_namespace n ON n.oid = p.pronamespace"
        " WHERE n.nspname IN ('sqs2pg', 'pii') AND p.prosrc ~ 'pg_(try_)?advisory'",
    )
    assert functions == []
    package = Path(sqs2pg.__file__).parent
    files = [*package.rglob("*.py"), *package.rglob("*.sql")]
    assert len(files) > 100
    assert [file.name for file in files if "pg_advisory" in file.read_text()] == []


@pytest.mark.usefixtures("migrated_database")
def test_a_login_without_our_roles_locks_no_table_of_ours(database: str) -> None:
    tables = [name for (name,) in rows(database, OUR_TABLES)]
    assert {"pii.erasure_lock", "sqs2pg.days_lock"} <= set(tables)
    with login_of(database) as conninfo, psycopg.connect(conninfo, autocommit=True) as anybody:
        for table in tables:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                anybody.execute(f"BEGIN; LOCK TABLE {table} IN ACCESS SHARE MODE")
            anybody.execute("ROLLBACK")


@pytest.mark.usefixtures("migrated_database")
@pytest.mark.parametrize("role", ["ingest", "analyst", "revealer", "auditor"])
def test_no_role_takes_our_locks_alone(database: str, role: str) -> None:
    with (
        login_of(database, f"sqs2pg_{role}") as conninfo,
        psycopg.connect(conninfo, autocommit=True) as member,
    ):
        for table in ("pii.erasure_lock", "sqs2pg.days_lock", "sqs2pg.migration", "sqs2pg.key"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                member.execute(f"BEGIN; LOCK TABLE {table} IN {STRONG} MODE")
            member.execute("ROLLBACK")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            member.execute("SELECT target FROM sqs2pg.partitioned FOR UPDATE")


async def test_first_migrations_at_once_wait_for_one_another(
    settings: MakeSettings, database: str
) -> None:
    async def one() -> list[str]:
        async with opened(settings()) as session:
            return await migrate(session, settings())

    done = await asyncio.gather(*(one() for _ in range(4)))
    assert sum("applied migration 0001 initial" in lines for lines in done) == 1
    assert rows(database, "SELECT count(*) FROM sqs2pg.migration") == [(1,)]
    assert rows(database, "SELECT count(*) FROM sqs2pg.pipeline") == [(1,)]
