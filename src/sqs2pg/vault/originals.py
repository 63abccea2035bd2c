"""Originals: what a batch's rows had in clear, on its way from the transform to the vault.

Kept column by column, as the transform works, and only where the vault is on. Lives as long as its
batch; `repr` shows nothing of it. No I/O here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import count, repeat
from operator import attrgetter
from typing import NamedTuple

from sqs2pg.message import Message

_message_id = attrgetter("message_id")
NULL = r"\N"
_PLAIN = str.maketrans({"n": "\n", "r": "\r", "t": "\t"})


class Original(NamedTuple):
    """One value in clear: whose it is, in which field, and the token that stands for it."""

    subject: str
    field: str
    token: str
    value: str

    def __repr__(self) -> str:
        return "Original(…)"


class Part:
    """The recoverable columns of some records: of one target, in one batch."""

    def __init__(self, messages: Sequence[Message], subjects: Sequence[str | None]) -> None:
        self._messages = messages
        self._subjects = subjects
        self._fields: list[str] = []
        self._values: list[Sequence[str | None]] = []
        self._cells: list[Sequence[str]] = []

    def add(self, field: str, values: Sequence[str | None], cells: Sequence[str]) -> None:
        """Add a column: the field's values in clear and their cells of COPY's text format."""
        self._fields.append(field)
        self._values.append(values)
        self._cells.append(cells)

    def hashes(self, salt: int, chosen: Collection[str] | None) -> dict[int, int]:
        """Return a hash of each chosen record's subject and values, and where one stands.

        Records with equal ones have nothing new to the vault, so one of them is enough. `chosen`
        are MessageIds; None means all.
        """
        rows = zip(repeat(salt), self._subjects, *self._values)
        if chosen is None:
            return dict(zip(map(hash, rows), count()))
        ids = map(_message_id, self._messages)
        return {
            hash(row): index
            for index, (row, message_id) in enumerate(zip(rows, ids, strict=False))
            if message_id in chosen
        }

    def of(self, index: int) -> Iterator[Original]:
        """Yield the values in clear of one record; a missing one has no original."""
        subject = self._subjects[index]
        if subject is None:
            return
        for field, values, cells in zip(self._fields, self._values, self._cells, strict=True):
            value, cell = values[index], cells[index]
            if value is not None and cell != NULL:
                yield Original(subject, field, unescaped(cell), value)


def unescaped(cell: str) -> str:
    """Return the text that a cell of COPY's text format stands for."""
    if "\\" not in cell:
        return cell
    first, *rest = cell.split("\\")
    text, pieces = first, iter(rest)
    for piece in pieces:
        # A backslash escapes itself or a letter; two in a row leave an empty piece between them.
        text += piece[:1].translate(_PLAIN) + piece[1:] if piece else "\\" + next(pieces, "")
    return text


class Originals:
    """All parts of one batch."""

    def __init__(self) -> None:
        self.parts: list[Part] = []

    def part(self, messages: Sequence[Message], subjects: Sequence[str | None]) -> Part:
        """Add the part of some records; `messages[i]` is what record i came in."""
        part = Part(messages, subjects)
        self.parts.append(part)
        return part

    def __repr__(self) -> str:
        return "Originals(…)"
