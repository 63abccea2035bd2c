"""The budget: how much of a batch is encoded, and so written in one transaction, at once.

A message may become far more than it is on the queue: by its compression, its array, or an outer
field that stands in the row of each element. So an encoder stops at a number of bytes and records,
and says how many units it has taken; the processor goes on with the next. No I/O here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqs2pg.settings import EnvelopeSettings, Settings

RECORD_BYTES = 512
"""What a record counts at least. Measured: it takes the Python executor 600 to 900 bytes."""
BYTES_MIN = 256 * 1024
"""Least bytes of a part: smaller ones only cost commits."""
_PACKED = frozenset({"auto", "base64", "gzip", "zstd", "content_encoding"})


class Budget(NamedTuple):
    """Bounds of one part of a batch. The unit that reaches one is the last; 0: no bound."""

    bytes_max: int = 0
    """Of what was taken out of envelopes, and of lines."""
    records_max: int = 0
    text_max: int = 0
    """Bytes of the lines of one unit for one target; a unit with more is at fault."""


UNBOUNDED = Budget()


def is_packed(envelope: EnvelopeSettings) -> bool:
    """Whether a body may be larger, or another one, once its layers are off."""
    return not _PACKED.isdisjoint(envelope.layers)


def may_grow(settings: Settings) -> bool:
    """Whether what a message holds may be larger than the message is on the queue."""
    envelope = settings.envelope
    return (
        is_packed(envelope)
        or envelope.has_pointers
        or envelope.has_objects
        or envelope.records != "one"
        or any(target.explode for target in settings.targets)
    )


def budget_of(settings: Settings) -> Budget:
    """Return the budget of each of the pipeline's writers.

    Together they have half of `source.in_flight_bytes_max`; see `received_bytes_max`. Without
    growth a message is one record, and `sink.batch_rows_max` bounds those.
    """
    bytes_max = settings.source.in_flight_bytes_max // 2 // settings.sink.connections
    bytes_max = max(BYTES_MIN, bytes_max)
    records_max = max(settings.sink.batch_rows_max, bytes_max // RECORD_BYTES)
    return Budget(bytes_max, records_max, 2 * settings.envelope.decompressed_bytes_max)


def received_bytes_max(settings: Settings) -> int:
    """Return how many bytes of bodies, as they were received, may be in flight.

    Where they may grow, what they become has the other half of `source.in_flight_bytes_max`.
    """
    whole = settings.source.in_flight_bytes_max
    return whole // 2 if may_grow(settings) else whole


class Meter:
    """Adds up what units hold, until the budget is used."""

    def __init__(self, budget: Budget, mark: str) -> None:
        """`mark`: a character that stands in a text at least once for each of its records but one;
        empty where a text is one record.
        """
        self._budget = budget
        self._mark = mark
        self._bytes = self._records = 0
        self.spread = 0
        """At most so many characters the lines have, if each record repeats its whole text."""

    def add(self, texts: Sequence[str]) -> bool:
        """Add the records of a unit, one text or several; return whether the budget is used."""
        mark, budget = self._mark, self._budget
        size = sum(map(len, texts))
        records = len(texts)
        if mark:
            counts = [text.count(mark) + 1 for text in texts]
            records = sum(counts)
            self.spread += sum(n * len(text) for n, text in zip(counts, texts, strict=True))
        self._bytes += size
        self._records += records
        return (0 < budget.bytes_max <= self._bytes) or (0 < budget.records_max <= self._records)
