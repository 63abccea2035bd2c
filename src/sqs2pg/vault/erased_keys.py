"""Erased keys: by what an erasure remembers the rows that it deletes from a state table.

By the marks of their keys (`mapping/key_marks.py`), as records that delete do. They are made of
what the row has, and of the person's id where that is masked. Where another column is masked,
nobody knows its cleartext any more; then a tombstone is of the person's id alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

import msgspec

from sqs2pg.errors import PermanentFault, SettingsError, Stage
from sqs2pg.mapping.column_cells import masked
from sqs2pg.mapping.columns import Column
from sqs2pg.mapping.conversions import edited_or_missing
from sqs2pg.mapping.key_marks import mark_form, mark_operator
from sqs2pg.mask.operator import Mask
from sqs2pg.mask.pseudonymize import TOKEN_HEX_DIGITS
from sqs2pg.postgres.catalog import read_columns
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.identifiers import quote_table
from sqs2pg.postgres.state_catalog import read_folding
from sqs2pg.settings import Target
from sqs2pg.settings.staged_fields import marked_columns, person_column, staged_field

Mark = Callable[[str], bytes]
"""From a value in clear to its mark, 16 bytes. Raises PermanentFault for one that no row has."""


class ErasedKeys(msgspec.Struct, frozen=True):
    """The marks of one state table's keys."""

    newer: str
    """The column that orders versions."""
    person: Mark | None
    """From the person's id, as messages have it; None where the row has it itself, or the key has
    none."""
    read: tuple[str, ...]
    """The columns of the key whose text is read from the row."""
    parts: tuple[Mark | None, ...]
    """The marks that make up the mark of a row, in order: from the next column of `read`, or None
    for that of the person's id."""

    def __repr__(self) -> str:
        return f"ErasedKeys({self.newer})"

    def of_row(self, person: bytes, texts: Sequence[str]) -> bytes:
        """Return the mark of a row. `person`: that of the id; `texts`: of the columns of `read`.

        Raises PermanentFault for a text that no message can have brought.
        """
        left = iter(texts)
        return b"".join(person if part is None else part(next(left)) for part in self.parts)


def erased_keys(
    target: Target,
    columns: Mapping[str, Column],
    reference_key: bytes,
    folding: Collection[str] = (),
) -> ErasedKeys | None:
    """Return how an erasure remembers rows of a target; None where it cannot.

    `columns` are the table's by name. `folding`: those in which different texts may be equal.
    """
    write, marked = target.write, marked_columns(target)
    if not (marked and write.newer) or not {*write.key, write.newer} <= columns.keys():
        return None
    by_column = {field.column: field for field in target.fields}
    in_order = [columns[field.column] for field in target.fields if field.column in columns]
    if len(in_order) < len(by_column):
        return None
    id_column = person_column(target)
    if id_column not in marked:
        id_column = ""

    def mask(column: str) -> Mask:
        return mark_operator(target, in_order, reference_key, column).mask

    def is_known(column: str) -> bool:
        field = by_column[column]
        if column == id_column:
            return True
        if field.mask != "keep" or column not in marked or column in folding:
            return False
        try:
            mark_form(field, columns[column], target.table)
        except SettingsError:
            return False
        return True

    whole = all(map(is_known, write.key))
    if not (whole or id_column):
        return None
    person = None
    if id_column and by_column[id_column].mask != "keep":
        edit = edited_or_missing(by_column[id_column])
        of_id = _mark(masked(staged_field(target, id_column), mask(id_column)))
        person = lambda id_: of_id(edit(id_))  # noqa: E731
    made_of = write.key if whole else (id_column,)
    return ErasedKeys(
        write.newer,
        person,
        tuple(column for column in made_of if by_column[column].mask == "keep"),
        tuple(_mark(mask(c)) if by_column[c].mask == "keep" else None for c in made_of),
    )


ReadKeys = Callable[[Session], Awaitable[ErasedKeys | None]]
"""Asks the catalog how an erasure remembers rows. Raises SettingsError, TransientFault."""


def keys_reader(target: Target, reference_key: bytes) -> ReadKeys:
    """Return what asks the catalog how an erasure remembers rows of a target."""

    async def read(session: Session) -> ErasedKeys | None:
        if not marked_columns(target):
            return None
        table = quote_table(target.table)
        columns = await read_columns(session, table)
        folding = await read_folding(session, table, target.write.key)
        return erased_keys(target, columns, reference_key, folding)

    return read


def _mark(mask: Mask) -> Mark:
    def mark(value: str) -> bytes:
        token = mask(value)
        if token is None:
            raise PermanentFault("missing_field", stage=Stage.MASK)
        return bytes.fromhex(token[-TOKEN_HEX_DIGITS:])

    return mark
