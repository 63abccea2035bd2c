"""Originals: the cleartext of a batch's masked values, on its way from the transform to the vault.

Kept column by column, as the transform works, and only where the vault is on. It lives as long as
its batch, and its `repr` shows no value. No I/O here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import count, repeat
from operator import attrgetter
from typing import Protocol, cast

from sqs2pg.mapping.copy_text import NULL, unescaped
from sqs2pg.message import Message
from sqs2pg.settings import Field

FieldsId = tuple[tuple[str, ...], ...]
"""Identifies the recoverable fields of one target. For each field: its name in the vault, and what
its token depends on besides value and key."""

LeftOut = dict[int, dict[str, set[int]]]
"""Lines that are not to be sealed: by target, the MessageId, and which of the message's lines."""

_message_id = attrgetter("message_id")


def fields_id(fields: Iterable[Field]) -> FieldsId:
    """Return the identity of a target's recoverable fields, in their order."""
    return tuple(
        (field.name, field.domain or field.name, field.mask, field.mask_kind, field.type)
        for field in fields
        if field.recover
    )


class OriginalsPart(Protocol):
    """The originals of some records of one target, in one batch. Records have numbers, from 0."""

    def originals(self, indexes: Sequence[int]) -> Iterator[tuple[str, str, str, str]]:
        """Yield subject, field, token and cleartext value of records."""


def records_of(message_ids: Iterable[str], lines: Mapping[str, Collection[int]]) -> Iterator[int]:
    """Yield the numbers of the records that lines of messages are of.

    `message_ids` are those of the records: of one message's in the order of its lines.
    """
    seen: Counter[str] = Counter()
    for record, message_id in enumerate(message_ids):
        if message_id in lines:
            if seen[message_id] in lines[message_id]:
                yield record
            seen[message_id] += 1


class OriginalColumns:
    """The recoverable columns of some records of one target, in one batch."""

    def __init__(
        self,
        messages: Sequence[Message],
        subjects: Sequence[str | None],
        fields: FieldsId = (),
        target: int = 0,
    ) -> None:
        self._fields_id = fields
        self._target = target
        self._messages = messages
        self._subjects = subjects
        self._fields: list[str] = []
        self._values: list[Sequence[str | None]] = []
        self._cells: list[Sequence[str]] = []

    def add(self, field: str, values: Sequence[str | None], cells: Sequence[str]) -> None:
        """Add a column: the field's cleartext values and the cells that stand for them."""
        self._fields.append(field)
        self._values.append(values)
        self._cells.append(cells)

    def leave_out(self, messages: Collection[int]) -> None:
        """Have nothing sealed of the records of messages, given by `id()`: they have no row."""
        self._subjects = [
            None if id(message) in messages else subject
            for message, subject in zip(self._messages, self._subjects, strict=True)
        ]

    def hashes(
        self, salt: bytes, chosen: Collection[str] | None, left_out: LeftOut | None = None
    ) -> dict[int, int]:
        """Return a hash of each chosen record's fields, subject and values, with its number.

        Equal hashes mean the same values of the same person: one number stands for them.
        `chosen` are MessageIds; None means all. Records whose line is in `left_out` are not chosen.
        """
        rows = zip(repeat(hash((salt, self._fields_id))), self._subjects, *self._values)
        lines = left_out.get(self._target) if left_out else None
        if chosen is None and not lines:
            return dict(zip(map(hash, rows), count()))
        ids = list(map(_message_id, self._messages))
        without = set(records_of(ids, lines)) if lines else ()
        return {
            hash(row): index
            for index, (row, message_id) in enumerate(zip(rows, ids, strict=False))
            if index not in without and (chosen is None or message_id in chosen)
        }

    def columns(
        self, indexes: Sequence[int]
    ) -> Iterator[tuple[str, Sequence[str], Sequence[str], Sequence[str]]]:
        """Yield a field, and of records the subjects, tokens and cleartext values, by column.

        A missing value has no original, and a mask that gave NULL no token.
        """
        subjects = [self._subjects[index] for index in indexes]
        for field, values, cells in zip(self._fields, self._values, self._cells, strict=True):
            found = [values[index] for index in indexes]
            tokens = [cells[index] for index in indexes]
            # Without a backslash no cell is NULL, and none is escaped.
            if None in subjects or None in found or "\\" in "".join(tokens):
                kept = [
                    (subject, unescaped(cell), value)
                    for subject, cell, value in zip(subjects, tokens, found, strict=True)
                    if value is not None and cell != NULL and subject is not None
                ]
                if kept:
                    whose, masked, original = zip(*kept, strict=True)
                    yield field, whose, masked, original
            else:
                yield field, cast("list[str]", subjects), tokens, cast("list[str]", found)

    def originals(self, indexes: Sequence[int]) -> Iterator[tuple[str, str, str, str]]:
        """See `OriginalsPart`; column by column."""
        for field, *columns in self.columns(indexes):
            for subject, token, value in zip(*columns, strict=True):
                yield subject, field, token, value


class Originals:
    """The original columns of one batch, of all its targets."""

    def __init__(self) -> None:
        self.parts: list[OriginalsPart] = []

    def part(
        self,
        messages: Sequence[Message],
        subjects: Sequence[str | None],
        fields: FieldsId = (),
        target: int = 0,
    ) -> OriginalColumns:
        """Begin the columns of some records of a target; record i came in `messages[i]`.

        Parts with equal `fields` get the same columns, in the same order.
        """
        part = OriginalColumns(messages, subjects, fields, target)
        self.parts.append(part)
        return part

    def leave_out(self, messages: Iterable[Message]) -> None:
        """Have nothing sealed of messages at fault, given as they were to `part`.

        The C code keeps nothing of them anyway.
        """
        if at_fault := set(map(id, messages)):
            for part in self.parts:
                if isinstance(part, OriginalColumns):
                    part.leave_out(at_fault)

    def __repr__(self) -> str:
        return "Originals(…)"
