"""Originals of the fast path: what the vault needs of a message whose line C code has made.

msgspec decodes the body a second time, but only the person's id and the recoverable fields. Their
tokens are cut out of the line, and only where something is to be stored. A message without a
person's id, or with one that is not ASCII, is left to Python. No I/O here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, cast

import msgspec

from sqs2pg.mapping.originals import LineCells, Originals, fields_id
from sqs2pg.message import Message
from sqs2pg.settings import Field


class FastPathOriginals:
    """Compiled from a flat mapping's fields; `subject` is the source of the person's id."""

    def __init__(self, fields: Sequence[Field], subject: str) -> None:
        sources = list(dict.fromkeys([subject, *(f.first_source for f in fields if f.recover)]))
        attributes = {source: f"f{number}" for number, source in enumerate(sources)}
        record = msgspec.defstruct(
            "FastPathRecord",
            [(attribute, str | None, None) for attribute in attributes.values()],
            rename={attribute: source for source, attribute in attributes.items()},
            gc=False,
            eq=False,
        )
        self._decode = cast("Callable[[str], Any]", msgspec.json.Decoder(record).decode)
        self._subject = attrgetter(attributes[subject])
        self._fields_id = fields_id(fields)
        self._places = [
            (field.first_source, index, attrgetter(attributes[field.first_source]))
            for index, field in enumerate(fields)
            if field.recover
        ]

    def take(
        self, messages: Sequence[Message], lines: Sequence[str | None], originals: Originals
    ) -> list[str | None]:
        """Add the originals of the messages that have a line; return the lines to keep.

        `lines[i]` is that of `messages[i]`; the lines of messages left to Python become None.
        """
        kept = list(lines)
        taken: list[Message] = []
        records: list[Any] = []
        for index, (message, line) in enumerate(zip(messages, lines, strict=True)):
            if line is None:
                continue
            record = self._decode(message.body)
            name = self._subject(record)
            if name and name.isascii():
                taken.append(message)
                records.append(record)
            else:
                kept[index] = None
        cells = LineCells([line for line in kept if line is not None])
        part = originals.part(taken, list(map(self._subject, records)), self._fields_id)
        for source, column, read in self._places:
            part.add(source, list(map(read, records)), cells.column(column))
        return kept
