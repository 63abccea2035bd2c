"""The migrations of this package, and the record that a database keeps of those it has had.

`migrate` applies the files and writes the record. Each start reads the record again, so that no
process works on a schema that another line of the package's history has made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import msgspec

from sqs2pg.errors import FatalFault
from sqs2pg.postgres.connection import Session

SQL = Path(__file__).with_name("sql")
"""Not by `importlib.resources`: a start would load `tempfile` and a dozen more modules for it."""


class Migration(msgspec.Struct, frozen=True):
    """One file of `sql/migrations`."""

    version: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@cache
def migrations() -> tuple[Migration, ...]:
    """Return every migration of this version of the package, oldest first."""
    return tuple(
        Migration(int(file.name[:4]), file.name[5:-4], file.read_text(encoding="utf-8"))
        for file in sorted((SQL / "migrations").glob("*.sql"))
    )


async def is_migrated(session: Session) -> bool:
    """Return whether the database has a record of migrations. Raises psycopg.Error."""
    [(exists,)] = await session.execute("SELECT to_regclass('sqs2pg.migration') IS NOT NULL")
    return bool(exists)


async def read_record(session: Session) -> dict[int, str]:
    """Return the checksum of each migration that the database has had, by version.

    Empty where there is no record. Raises psycopg.Error.
    """
    if not await is_migrated(session):
        return {}
    rows = await session.execute("SELECT version, checksum FROM sqs2pg.migration")
    return {row[0]: row[1] for row in rows}


def check_record(recorded: Mapping[int, str]) -> None:
    """Raise FatalFault if the database has had another migration where this package has its own.

    Its first migration is frozen from the first release on: a database with another one was made
    by a checkout from before it. Migrations that this package does not know yet are no fault here:
    an older process goes on while a newer version rolls out.
    """
    first, *later = migrations()
    if recorded and recorded.get(first.version) != first.checksum:
        raise _unreleased(first, missing=first.version not in recorded)
    for migration in later:
        if recorded.get(migration.version, migration.checksum) != migration.checksum:
            raise FatalFault(
                f"migration {migration.version:04} in the database is not the one of this package",
                code="migration_changed",
                hint="install the version of sqs2pg that migrated this database, or newer",
            )


def _unreleased(first: Migration, *, missing: bool) -> FatalFault:
    difference = "is missing from its record" if missing else "is not the one of this version"
    return FatalFault(
        "schema sqs2pg of this database was made by an unreleased checkout of sqs2pg "
        f"(migration {first.version:04} {difference}), and this version cannot upgrade it",
        code="migration_changed",
        hint="keep using that checkout; or start anew: DROP SCHEMA IF EXISTS sqs2pg, pii CASCADE, "
        "then sqs2pg migrate. The drop loses for ever the quarantined messages, the audit, the "
        "tally, the keys on record, the vault (no masked value can be revealed any more) and the "
        "ledger (a message that SQS delivers again is written again); rows of the target tables "
        "stay",
    )
