"""Tombstones: versions of deleted rows, so that an older one does not bring a row back.

A row is remembered by the mark of its key, an HMAC under a key that never rotates. The mapping
makes the marks of staged lines (`settings/staged_fields.py`). A record that deletes leaves a
tombstone (`state_table.py`), and so does an erasure (`vault/person_rows.py`). Where an erasure
cannot mark every column of a key, it leaves one of the person, for all of their rows.
"""

from __future__ import annotations

import msgspec

from sqs2pg.postgres.identifiers import quote_identifier, quote_literal

KEY_TEXTS = """SET LOCAL TimeZone = 'UTC'; SET LOCAL datestyle = 'ISO, YMD';
SET LOCAL bytea_output = 'hex'; SET LOCAL extra_float_digits = 1"""
"""SQL: for the transaction, texts of keys are in the form that marks are made of."""


class Tombstones(msgspec.Struct, frozen=True):
    """Where the tombstones of one state table are, and by what its lines are looked up there."""

    target: str
    """The table's name in the books."""
    marks: tuple[str, ...]
    """The staged columns of the marks of the whole key; (): not every column has one."""
    person: str = ""
    """The staged column of the mark of the person's id, where that is part of the key; else ""."""
    flag: str = ""
    """The staged column that says whether a line deletes; "": no line does."""
    version_type: str = ""
    """The type of the column that orders versions; "": there is none, so nothing is remembered."""

    @property
    def staged(self) -> tuple[str, ...]:
        """The staged columns that go to no column of the table."""
        return tuple(dict.fromkeys(filter(None, (self.flag, *self.marks, self.person))))

    @property
    def mark(self) -> str:
        """SQL: the mark of a line's whole key, without the prefixes of its parts."""
        return "(" + " || ".join(map(_bytes, self.marks)) + ")"

    @property
    def guard(self) -> str:
        """SQL: the number by which a line's key is guarded."""
        marks = " || ".join(map(quote_identifier, self.marks))
        return f"hashtextextended({marks}, hashtextextended({quote_literal(self.target)}, 0))"

    def of_stage(self, stage: str) -> str:
        """Return the query of the tombstones that staged lines may have, for `spare`.

        It looks each up in the index, by an array: without fresh statistics the planner would
        rather read all the tombstones of the table.
        """
        marks = [f"SELECT {mark} FROM {stage}" for mark in self._looked_up("")]
        return (
            "SELECT b.key, b.version FROM sqs2pg.tombstone b"
            f" WHERE b.target = {quote_literal(self.target)}"
            f" AND b.key = ANY (ARRAY({' UNION ALL '.join(marks)}))"
        )

    def _looked_up(self, row: str) -> list[str]:
        """Return the marks by which a line is looked up: of its key, and of its person."""
        looked_up = [" || ".join(_bytes(mark, row) for mark in self.marks)] if self.marks else []
        if self.person and self.marks != (self.person,):
            looked_up.append(_bytes(self.person, row))
        return looked_up

    def spare(self, row: str, newer: str) -> str:
        """SQL: whether a line is newer than a deletion of its key, and of all the person's rows.

        `row` is the line's alias in SQL, `newer` its plain column of the version. `of_stage` is
        in the statement as `buried`.
        """
        version = f"{row}.{quote_identifier(newer)}"
        gone = stored_version("b.version", self.version_type)
        # One condition per mark: each is a hash join.
        return " AND ".join(
            f"NOT EXISTS (SELECT FROM buried b WHERE b.key = {mark}"
            f" AND ({is_later(version, gone)}) IS NOT TRUE)"
            for mark in self._looked_up(row)
        )


def is_later(version: str, than: str) -> str:
    """SQL: whether a version is newer than another one. NULL is older than any but NULL."""
    return f"{version} > {than} OR ({than} IS NULL AND {version} IS NOT NULL)"


def stored_version(column: str, type_: str) -> str:
    """SQL: the version in a tombstone's column, in the type of the target's own."""
    return f"({column} #>> '{{}}')::{type_}"


def _bytes(mark: str, row: str = "") -> str:
    name = f"{row}.{quote_identifier(mark)}" if row else quote_identifier(mark)
    return f"decode(right({name}, 32), 'hex')"
