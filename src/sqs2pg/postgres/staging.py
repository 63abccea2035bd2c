"""Staging: a batch's lines are copied into a temporary table of ours, and go on by an INSERT.

There are two reasons for the detour. COPY cannot meet a row that is there, so the lines of a state
table are merged (`state_table.py`). And some tables take INSERT but not COPY: those of row-level
security, with rules, on other servers (`write_path.py`); `StagedInsert` is for them.

The temporary table is made once per session and is empty at every COMMIT. So a batch adds nothing
to the catalog (docs/decisions/0026), and it works behind a pooler that gives each transaction
another session: every batch asks for the table, and makes it where the session has none. Its name
has a hash of its columns, so no session ever has one of another form.
"""

from __future__ import annotations

import hashlib

import msgspec

from sqs2pg.postgres.identifiers import quote_identifier

LINE = "sqs2pg_line"
"""The column of a staging table that numbers its lines, in their order."""


class Staging(msgspec.Struct, frozen=True):
    """The staging table of one target. All names are plain; SQL quotes them here."""

    table: str
    """The target, quoted for SQL."""
    columns: tuple[str, ...]
    types: tuple[str, ...]
    """The SQL type of each of the columns, with its collation."""

    @property
    def stage(self) -> str:
        """The staging table's name, quoted for SQL."""
        form = "\0".join((self.table, *self._staged, *self.types, *self._form))
        return f"pg_temp.sqs2pg_{hashlib.sha256(form.encode()).hexdigest()[:24]}"

    @property
    def rights(self) -> dict[str, tuple[str, ...]]:
        """The privileges on the target that its statements need, with their columns."""
        return {"INSERT": self.columns}

    def stage_ddl(self) -> str:
        """Return the statement that makes the staging table where the session has none."""
        lines = ", ".join([f"{LINE} bigint GENERATED ALWAYS AS IDENTITY (CACHE 1000)", *self._ddl])
        return f"CREATE TEMPORARY TABLE IF NOT EXISTS {self.stage} ({lines}) ON COMMIT DELETE ROWS"

    def copy_statement(self) -> str:
        """Return the COPY statement of the lines."""
        return f"COPY {self.stage} ({column_list(self._staged)}) FROM STDIN"

    def clear(self) -> str:
        """Return the statement that empties the staging table within a transaction."""
        return f"DELETE FROM {self.stage}"

    @property
    def _staged(self) -> tuple[str, ...]:
        """The columns of a line."""
        return self.columns

    @property
    def _form(self) -> tuple[str, ...]:
        """What else the form of the staging table depends on."""
        return ()

    @property
    def _ddl(self) -> list[str]:
        """The columns of the staging table, and its constraints."""
        pairs = zip(self.columns, self.types, strict=True)
        return [f"{quote_identifier(name)} {type_}" for name, type_ in pairs]


class StagedInsert(Staging, frozen=True):
    """How staged lines get into a table that takes every line, but no COPY."""

    reason: str
    """Why COPY does not write it: completes "written by INSERT because …"."""

    def insert(self) -> str:
        """Return the statement that inserts what is staged, in its order.

        Its command tag counts the rows. It has no RETURNING and is no part of a WITH: a table with
        rules takes neither.
        """
        columns = column_list(self.columns)
        return (
            f"INSERT INTO {self.table} ({columns}) SELECT {columns} FROM {self.stage}"
            f" ORDER BY {LINE}"
        )


def column_list(columns: tuple[str, ...], row: str = "") -> str:
    """Return columns as a list in SQL, each with `row` before it."""
    return ", ".join(row + quote_identifier(column) for column in columns)
