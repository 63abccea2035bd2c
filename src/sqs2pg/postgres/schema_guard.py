"""Detect a database in which a part of what `migrate` created is gone, or was never ours.

Runs before anything is applied, and at every start. Otherwise the server would only answer that a
schema exists already, or does not. The fault says what is gone, what is left, and what to do. Must
never drop, or create again, what somebody may still need.
"""

from __future__ import annotations

from collections.abc import Collection

from sqs2pg.errors import FatalFault
from sqs2pg.postgres.connection import Session

# From the catalog, which every role may read, whatever privileges it has on the schemas.
_THERE = """SELECT to_regnamespace('sqs2pg') IS NOT NULL, to_regnamespace('pii') IS NOT NULL,
       count(*) FILTER (WHERE n.nspname = 'pii') = 2
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE (n.nspname, c.relname) IN (('pii', 'value'), ('pii', 'subject_key'))"""
_MAY_LOOK = """SELECT has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'pii' AND c.relname = 'value'"""
_FILLED = "SELECT EXISTS (SELECT FROM pii.value)"

_VAULT = "the vault: people's keys and sealed values"
_BOOKS = "ledger, quarantine, tally, keys on record and audit"


async def check_schemas(session: Session, applied: Collection[int]) -> None:
    """Raise FatalFault where one of our two schemas is gone, or somebody else's has its name.

    `applied` are the migrations that the database has on record. Raises psycopg.Error.
    """
    [(books, vault, ours)] = await session.execute(_THERE)
    if applied:
        if not ours:
            raise _vault_gone()
    elif ours:
        raise await _books_gone(session, emptied=books)
    elif vault:
        raise _taken("pii", "the vault")
    elif books:
        raise _taken("sqs2pg", "the books")


async def _books_gone(session: Session, *, emptied: bool) -> FatalFault:
    filled = ""
    if (await session.execute(_MAY_LOOK))[0][0]:
        [(some,)] = await session.execute(_FILLED)
        filled = ", with values in it" if some else ", without a value in it"
    what = "has lost its table of migrations" if emptied else "is gone from this database"
    return FatalFault(
        f"schema sqs2pg ({_BOOKS}) {what}, while schema pii ({_VAULT}) is still there{filled}",
        code="books_gone",
        hint="restore schema sqs2pg from a backup of the same time as pii (pg_restore -n sqs2pg); "
        "or, if nothing sealed is needed any more, remove what is left yourself "
        f"(DROP SCHEMA {'sqs2pg, pii' if emptied else 'pii'} CASCADE: it cannot be recovered then) "
        "and migrate again, with a ledger that knows of no message",
    )


def _vault_gone() -> FatalFault:
    return FatalFault(
        f"schema pii ({_VAULT}) or a table of it is gone from this database, while schema sqs2pg "
        f"({_BOOKS}) is still there",
        code="vault_gone",
        hint="restore schema pii from a backup of the same time as sqs2pg (pg_restore -n pii); "
        "without one what was sealed is lost, and an empty vault comes from an empty database that "
        "this version has migrated: drop what is left of pii here, then "
        "pg_dump -n pii EMPTY | psql THIS",
    )


def _taken(schema: str, what: str) -> FatalFault:
    return FatalFault(
        f"this database has a schema {schema} that sqs2pg has not made, and {what} needs that name",
        code="schema_taken",
        hint=f"look at what is in it: if nothing, DROP SCHEMA {schema} (without CASCADE); else "
        f"ALTER SCHEMA {schema} RENAME TO another name, or give sqs2pg a database of its own; then "
        "migrate again",
    )
