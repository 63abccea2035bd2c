"""Originals: what a batch's rows had in clear, on its way from the transform to the vault.

Kept column by column, as the transform works, and only where the vault is on. Lives as long as its
batch; `repr` shows nothing of it. No I/O here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import count, repeat
from operator import attrgetter

from sqs2pg.mapping.copy_text import NULL, unescaped
from sqs2pg.message import Message
from sqs2pg.settings import Field

Place = tuple[tuple[str, ...], ...]
"""What tells recoverable columns of one target from another's: each field's name in the vault, and
what its token hangs on besides its value and the key."""

_message_id = attrgetter("message_id")


def place_of(fields: Iterable[Field]) -> Place:
    """Return the place of a target's recoverable fields, in their order."""
    return tuple(
        (field.source, field.domain or field.name, field.mask, field.kind, field.type)
        for field in fields
        if field.recover
    )


class Part:
    """The recoverable columns of some records: of one target, in one batch."""

    def __init__(
        self, messages: Sequence[Message], subjects: Sequence[str | None], place: Place = ()
    ) -> None:
        self._place = place
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
        """Return a hash of each chosen record's place, subject and values, and where one stands.

        Records with equal ones have nothing new to the vault, so one of them is enough. `chosen`
        are MessageIds; None means all.
        """
        rows = zip(repeat(hash((salt, self._place))), self._subjects, *self._values)
        if chosen is None:
            return dict(zip(map(hash, rows), count()))
        ids = map(_message_id, self._messages)
        return {
            hash(row): index
            for index, (row, message_id) in enumerate(zip(rows, ids, strict=False))
            if message_id in chosen
        }

    def originals(self, indexes: Sequence[int]) -> Iterator[tuple[str, str, str, str]]:
        """Yield subject, field, token and value in clear of records, column by column.

        A missing value has no original, and a mask that gave NULL no token.
        """
        subjects = [self._subjects[index] for index in indexes]
        for field, values, cells in zip(self._fields, self._values, self._cells, strict=True):
            for subject, index in zip(subjects, indexes, strict=True):
                value, cell = values[index], cells[index]
                if value is not None and cell != NULL and subject is not None:
                    yield subject, field, cell if "\\" not in cell else unescaped(cell), value


class Originals:
    """All parts of one batch."""

    def __init__(self) -> None:
        self.parts: list[Part] = []

    def part(
        self, messages: Sequence[Message], subjects: Sequence[str | None], place: Place = ()
    ) -> Part:
        """Add the part of some records; `messages[i]` is what record i came in.

        `place`: parts of equal ones are added the same fields, in the same order.
        """
        part = Part(messages, subjects, place)
        self.parts.append(part)
        return part

    def __repr__(self) -> str:
        return "Originals(…)"
