"""Document batches: the documents of several messages as msgspec decoded them, and which are left.

Part of the usual way of `decode.py`. No I/O here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.envelope.records import RECORDS_MAX

WRONG = PermanentFault("wrong_type")
"""Stands in a column for a value of the wrong kind. It is never raised: it would keep values."""

Column = Sequence[str | PermanentFault | None]
"""The texts of one source, one for each record; None: missing; else WRONG."""


class Batch:
    """The documents of several messages. Of a message that is left it may have none."""

    def __init__(
        self, texts: Sequence[str], documents: Sequence[Any], messages: Sequence[int]
    ) -> None:
        """`documents`: None where a text has none."""
        self.left: set[int] = set()
        """The messages that are left."""
        if None in documents:
            pairs = zip(documents, messages, strict=True)
            self.left = {message for document, message in pairs if document is None}
            kept = [i for i, message in enumerate(messages) if message not in self.left]
            texts = [texts[i] for i in kept]
            documents = [documents[i] for i in kept]
            messages = [messages[i] for i in kept]
        self.texts = texts
        self.documents = documents
        self.messages = messages
        """For each document the index of its message."""
        self._firsts: list[int] | None = None

    def documents_at(self, positions: Sequence[int]) -> Sequence[Any]:
        """Return the documents at some positions, which rise."""
        if len(positions) == len(self.documents):
            return self.documents
        return [self.documents[position] for position in positions]

    def leave(self, positions: Iterable[int]) -> None:
        """Leave the messages of some documents."""
        self.left.update(self.messages[position] for position in positions)

    def messages_of(self, positions: Sequence[int]) -> Sequence[int]:
        """Return the message of each document."""
        if isinstance(self.messages, range) and self.messages == positions:
            return positions
        return list(map(self.messages.__getitem__, positions))

    def leave_wrong(self, column: Column, positions: Sequence[int]) -> None:
        """Leave messages that have a value of the wrong kind.

        `positions[i]` is the position of the document of `column[i]`.
        """
        if WRONG in column:
            self.leave(positions[i] for i, value in enumerate(column) if value is WRONG)

    def number(self, expanded: Sequence[Expanded]) -> None:
        """Number the records of each message: a document has at least one number."""
        sizes = [1] * len(self.documents)
        exploded = [its for its in expanded if len(its.scopes) > 1]
        if not exploded and len(set(self.messages)) == len(self.messages):
            return
        for its in exploded:
            for position, size in Counter(its.documents).items():
                sizes[position] = max(sizes[position], size)
        self._firsts = []
        before, index = -1, 0
        for message, size in zip(self.messages, sizes, strict=True):
            index = 0 if message != before else index
            before = message
            self._firsts.append(index)
            index += size
            if index > RECORDS_MAX:
                self.left.add(message)

    def indexes(self, its: Expanded) -> Sequence[int]:
        """Return the index of each record in its message."""
        firsts = self._firsts
        if firsts is None:
            return [0] * len(its.documents)
        indexes: list[int] = []
        before, index = -1, 0
        for position in its.documents:
            index = index + 1 if position == before else firsts[position]
            before = position
            indexes.append(index)
        return indexes


class Expanded(NamedTuple):
    """The records that some documents have for one target."""

    documents: Sequence[int]
    """For each record the position of its document."""
    scopes: list[Sequence[Any]]
    """For each depth the object in which the sources of each record are."""
