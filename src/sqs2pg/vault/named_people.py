"""The people that a command is about, in a temporary table of one transaction.

Names, references and random ids come in by COPY, whose data no setting of the server logs. As bound
parameters they could stand side by side in the server's log (log_statement,
log_min_duration_statement, auto_explain, pgaudit), and whoever reads it could undo the erasure.

Must never do: pass a person's name, reference or random id as a parameter, or in a statement.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import NamedTuple

from sqs2pg.errors import FatalFault
from sqs2pg.mapping.copy_text import NULL, escaped
from sqs2pg.postgres.connection import DURABLE, READ_COMMITTED, Session, Transaction

PEOPLE = "pg_temp.sqs2pg_people"
"""The table: `subject uuid`, `spelling text`, `name text`. A person has one row per spelling."""
SUBJECTS = f"ARRAY(SELECT DISTINCT subject FROM {PEOPLE})"
"""An array of the references. The planner takes it for a short one, and uses the indexes."""

# With row security off a query that a policy would narrow fails, instead of finding fewer rows.
_SETTINGS = f"""SELECT set_config('lock_timeout', '60s', true), {DURABLE},
       set_config('row_security', 'off', true), set_config('sqs2pg.batch', 'on', true)"""
_CREATE = """CREATE TEMP TABLE sqs2pg_people (subject uuid NOT NULL, spelling text, name text)
ON COMMIT DROP"""
_COPY = f"COPY {PEOPLE} (subject, spelling, name) FROM STDIN"
_MAY = "SELECT has_database_privilege(current_database(), 'TEMPORARY')"


class Person(NamedTuple):
    """One row of the table."""

    subject: str
    """The reference, 32 hex digits."""
    spelling: str | None = None
    """A text that stands for the person in a target's column."""
    name: str | None = None
    """The random id that replaces it."""


@asynccontextmanager
async def people_table(
    session: Session, people: Iterable[Person], *, lock: str = ""
) -> AsyncIterator[Transaction]:
    """Open a transaction in which the table holds the people, and drop the table at its end.

    `lock`: a statement that comes before all others. Raises psycopg.Error.
    """
    first = (_SETTINGS, lock, _CREATE) if lock else (_SETTINGS, _CREATE)
    async with session.transaction(*first, mode=READ_COMMITTED) as transaction:
        lines = ("\t".join(map(_cell, person)) for person in people)
        await session.copy(_COPY, "".join(f"{line}\n" for line in lines))
        yield transaction


def _cell(text: str | None) -> str:
    return NULL if text is None else escaped(text)


async def require_temporary(session: Session) -> None:
    """Raise FatalFault where this login may create no temporary table. Raises psycopg.Error."""
    [(may,)] = await session.execute(_MAY)
    if not may:
        raise FatalFault(
            "this login may not create temporary tables, which keep names out of the server's log; "
            "nobody was erased or searched for",
            code="temporary_tables",
            hint="GRANT TEMPORARY ON DATABASE … TO the login of sink.dsn",
        )
