"""A database of every release becomes today's, and what was in it is still there.

Each release keeps one dump (see `dump.py`). Beside those stands a dump that the test makes itself,
of the schema as it is now: so the way is tested before there is a first release.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import psycopg
import pytest

from sqs2pg.postgres.migrate import pipeline_id
from sqs2pg.postgres.migrations import Migration, migrations
from sqs2pg.postgres.verify import verify
from sqs2pg.runners.connect import connect
from tests.migrations.dump import (
    RELEASES,
    bring_up,
    dump,
    dump_release,
    settings_of,
    write_release,
)

KEPT = {file.stem: file.read_text(encoding="utf-8") for file in sorted(RELEASES.glob("*.sql"))}
CHANGES = [  # and the statements of the dump that show each change
    ("ALTER TABLE sqs2pg.tally ADD COLUMN more integer", "CREATE TABLE sqs2pg.tally"),
    ("ALTER TABLE sqs2pg.worker ALTER state SET DEFAULT ''", "CREATE TABLE sqs2pg.worker"),
    ("ALTER TABLE sqs2pg.worker RESET (fillfactor)", "CREATE TABLE sqs2pg.worker"),
    ("ALTER TABLE pii.state DROP CONSTRAINT state_one_check", "CREATE TABLE pii.state"),
    ("ALTER TYPE sqs2pg.delivery_outcome ADD VALUE 'lost'", "CREATE TYPE"),
    ("DROP INDEX pii.value_token", "CREATE INDEX value_token"),
    ("ALTER TABLE sqs2pg.audit DISABLE TRIGGER append_only", "TRIGGER append_only"),
    ("ALTER FUNCTION pii.require_live_key() RESET enable_seqscan", "pii.require_live_key"),
    ("ALTER FUNCTION sqs2pg.drop_day() SECURITY INVOKER", "sqs2pg.drop_day"),
    ("GRANT EXECUTE ON FUNCTION pii.flush() TO PUBLIC", "ON FUNCTION pii.flush"),
    ("GRANT SELECT ON sqs2pg.audit TO sqs2pg_analyst", "GRANT SELECT ON TABLE sqs2pg.audit"),
    ("COMMENT ON SCHEMA pii IS 'another'", "COMMENT ON SCHEMA pii"),
]
RECORD = re.compile(
    r"^INSERT INTO sqs2pg\.migration VALUES \((\d+), '\w+', '(\w{64})'", re.MULTILINE
)


def recorded(text: str) -> dict[int, str]:
    """Return the checksum of each migration that a dump has on record, by version."""
    return {int(version): checksum for version, checksum in RECORD.findall(text)}


def changed_since(text: str, files: Sequence[Migration]) -> list[int]:
    """Return the migrations of a dump that the files no longer hold as they were."""
    now = {one.version: one.checksum for one in files}
    return [version for version, was in recorded(text).items() if now.get(version) != was]


def schema(url: str) -> list[str]:
    """Return what defines the schema, a statement each, sorted; without the ledger's days.

    Those are attached around the day of the migration, so two databases may differ in them.
    """
    found = re.sub(
        r"(?<=FOR VALUES FROM \(MINVALUE\) TO \(')[0-9a-f-]{36}", "DAY", dump(url, "--schema-only")
    )
    return sorted(one for one in found.split("\n\n") if not re.search(r"\bdelivery_\d{8}", one))


@contextmanager
def second_database(url: str, suffix: str) -> Iterator[str]:
    """Yield the URL of a further empty database on the server of another."""
    server, _, name = url.rpartition("/")
    with psycopg.connect(f"{server}/postgres", autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}_{suffix} TEMPLATE template0")
        yield f"{server}/{name}_{suffix}"
        admin.execute(f"DROP DATABASE {name}_{suffix} WITH (FORCE)")


@pytest.fixture
async def fresh(database: str) -> AsyncIterator[str]:
    """A second database, migrated by this version; it makes the roles that dumps grant to."""
    with second_database(database, "fresh") as url:
        await bring_up(url)
        yield url


@pytest.fixture
async def today(database: str) -> str:
    """The dump of this version, as its release would keep it."""
    with second_database(database, "today") as url:
        return await dump_release(url)


def restore(text: str, url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(text.encode())


@pytest.mark.parametrize("release", [*KEPT, "today"])
async def test_a_database_of_a_release_becomes_todays(
    release: str, today: str, database: str, fresh: str
) -> None:
    text = KEPT.get(release, today)
    restore(text, database)
    done = await bring_up(database)
    before = recorded(text)
    assert 1 in before
    assert [line for line in done if line.startswith("applied")] == [
        f"applied migration {one.version:04} {one.name}"
        for one in migrations()
        if one.version not in before
    ]
    assert schema(database) == schema(fresh)
    session = await connect(settings_of(database))
    try:
        number = await pipeline_id(session, settings_of(database))
        report = await verify(session, number)
    finally:
        await session.close()
    assert (report.ok, report.written, report.quarantined) == (True, 1, 1), report.differences


def test_a_released_migration_is_never_changed() -> None:
    for release, text in KEPT.items():  # 0001_initial.sql stays open until there is one
        changed = changed_since(text, migrations())
        assert changed == [], f"{release} was released with them: add a migration instead"


async def test_a_changed_migration_is_noticed_once_a_dump_has_it(today: str) -> None:
    first, *later = migrations()
    assert recorded(today) == {one.version: one.checksum for one in migrations()}
    assert changed_since(today, [first, *later]) == []
    assert changed_since(today, [msgspec.structs.replace(first, text=first.text + " ")]) == [1]
    assert 1 in changed_since(today, later)


def test_a_dump_is_never_made_again(tmp_path: Path) -> None:
    write_release(tmp_path, "1.0.0", "-- as it was\n")
    with pytest.raises(FileExistsError):
        write_release(tmp_path, "1.0.0", "-- made again\n")
    assert (tmp_path / "1.0.0.sql").read_text() == "-- as it was\n"


async def test_the_schema_comparison_detects_every_change(
    today: str, database: str, fresh: str
) -> None:
    restore(today, database)
    await bring_up(database)
    before = schema(fresh)
    assert schema(database) == before
    with psycopg.connect(database, autocommit=True) as connection:
        for change, named in CHANGES:
            connection.execute(change.encode())
            after = schema(database)
            different = set(before) ^ set(after)
            assert different, change
            assert all(named in one for one in different), (change, different)
            before = after
