"""The migrations of this package, and the record that a database keeps of those it has had.

`migrate` applies the files and writes the record; each start reads it.
"""

from __future__ import annotations

import hashlib
from importlib import resources

import msgspec

from sqs2pg.postgres.connection import Session


class Migration(msgspec.Struct, frozen=True):
    """One file of `sql/migrations`."""

    version: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def migrations() -> list[Migration]:
    """Return every migration of this version of the package, oldest first."""
    folder = resources.files("sqs2pg.postgres") / "sql" / "migrations"
    found = [
        Migration(int(file.name[:4]), file.name[5:-4], file.read_text(encoding="utf-8"))
        for file in folder.iterdir()
        if file.name.endswith(".sql")
    ]
    return sorted(found, key=lambda migration: migration.version)


async def read_record(session: Session) -> dict[int, str]:
    """Return the checksum of each migration that the database has had, by version.

    Empty where there is no record. Raises psycopg.Error.
    """
    [(exists,)] = await session.execute("SELECT to_regclass('sqs2pg.migration') IS NOT NULL")
    if not exists:
        return {}
    rows = await session.execute("SELECT version, checksum FROM sqs2pg.migration")
    return {row[0]: row[1] for row in rows}
