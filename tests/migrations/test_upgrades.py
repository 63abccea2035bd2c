"""Every earlier schema, from its dump, becomes today's; and what was in it is still there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from sqs2pg.postgres.migrate import migrate, migrations, pipeline_id
from sqs2pg.postgres.verify import verify
from sqs2pg.runners.assembly import connect
from sqs2pg.settings import Settings, load
from tests.migrations.dump import FOLDER, apply, dump, file_of

DUMPS = sorted(FOLDER.glob("schema_*.sql"))
TEXTS = {file.stem: file.read_text() for file in DUMPS}
# What makes two schemas the same: columns, constraints, indexes, triggers and function bodies.
CATALOG = """
SELECT 'column', attrelid::regclass || '.' || attname, format_type(atttypid, atttypmod)
    || CASE WHEN attnotnull THEN ' not null' ELSE '' END
    || coalesce(' default ' || pg_get_expr(adbin, adrelid), '')
FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
JOIN pg_namespace n ON n.oid = relnamespace
LEFT JOIN pg_attrdef d ON d.adrelid = attrelid AND d.adnum = attnum
WHERE nspname IN ('sqs2pg', 'pii') AND attnum > 0 AND NOT attisdropped
    AND relkind IN ('r', 'p', 'v') AND NOT relispartition
UNION ALL
SELECT 'constraint', conrelid::regclass || '.' || conname, pg_get_constraintdef(k.oid)
FROM pg_constraint k JOIN pg_namespace n ON n.oid = connamespace
JOIN pg_class c ON c.oid = conrelid
WHERE nspname IN ('sqs2pg', 'pii') AND NOT relispartition AND contype <> 'n'
UNION ALL
SELECT 'index', indexname, indexdef FROM pg_indexes i
JOIN pg_class c ON c.oid = (quote_ident(i.schemaname) || '.' || quote_ident(i.tablename))::regclass
WHERE schemaname IN ('sqs2pg', 'pii') AND NOT relispartition
UNION ALL
SELECT 'trigger', tgrelid::regclass || '.' || tgname, pg_get_triggerdef(t.oid)
FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid JOIN pg_namespace n ON n.oid = relnamespace
WHERE nspname IN ('sqs2pg', 'pii') AND NOT tgisinternal AND NOT relispartition
UNION ALL
SELECT 'function', p.oid::regprocedure::text,
    prosrc || prosecdef::text || coalesce(proconfig::text, '')
FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE nspname IN ('sqs2pg', 'pii')
ORDER BY 1, 2, 3"""


def catalog(url: str) -> list[tuple[str, str, str]]:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET search_path = pg_catalog")
        return connection.execute(CATALOG).fetchall()  # type: ignore[return-value]  # three texts


def settings_of(url: str) -> Settings:
    return load(environ={}, overrides={"sink": {"dsn": url}}, discover=False)


def dateless(text: str) -> str:
    """Return a dump with no day in it: the first migration makes partitions around today's."""
    bound = r"\b[0-9a-f]{8}-[0-9a-f]{4}-0000-0000-0{12}\b"
    return re.sub(bound, "BOUND", re.sub(r"\bdelivery_\d{8}", "delivery_DAY", text))


async def bring_up(url: str) -> list[str]:
    session = await connect(settings_of(url))
    try:
        return await migrate(session, settings_of(url))
    finally:
        await session.close()


@pytest.fixture
def fresh(database: str) -> Iterator[str]:
    """A second database, empty, on the same server."""
    name = database.rpartition("/")[2] + "_fresh"
    admin_url = database.rpartition("/")[0] + "/postgres"
    with psycopg.connect(admin_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    yield database.rpartition("/")[0] + f"/{name}"
    with psycopg.connect(admin_url, autocommit=True) as admin:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("file", DUMPS, ids=lambda file: file.stem)
async def test_an_earlier_schema_becomes_todays(file: Path, database: str, fresh: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(TEXTS[file.stem].encode())
    done = await bring_up(database)
    version = int(file.stem.removeprefix("schema_"))
    newer = [one for one in migrations() if one.version > version]
    assert [line for line in done if line.startswith("applied")] == [
        f"applied migration {one.version:04} {one.name}" for one in newer
    ]
    await bring_up(fresh)
    assert catalog(database) == catalog(fresh)
    session = await connect(settings_of(database))
    try:
        number = await pipeline_id(session, settings_of(database))
        report = await verify(session, number)
    finally:
        await session.close()
    assert (report.ok, report.written, report.quarantined) == (True, 1, 1), report.differences


def test_there_is_a_dump_of_the_first_schemas_and_none_was_made_again(database: str) -> None:
    assert {file.name for file in DUMPS} >= {
        "schema_0001.sql",
        "schema_0002.sql",
        "schema_0003.sql",
    }
    # What the first migration makes today is what its dump holds: it was not changed since.
    with psycopg.connect(database) as connection:
        apply(connection, migrations()[:1])
    made = dateless(dump(database))
    kept = dateless(file_of(1).read_text())
    for line in made.splitlines():
        if line.startswith(("CREATE ", "ALTER TABLE ONLY ")):
            assert line in kept
