"""The encoder: units -> the texts of their COPYs. All that happens between receive and write.

A unit is what becomes rows: a message of the queue, a line of an archive, a record of a Lambda
event. A compiled mapping has two executors with one interface: `python_encoder.py` is the
reference, `native_encoder.py` does most units in C and hands the others to it. Which one a process
has, nothing else can tell.

Promises: a unit gives all of its rows or one PermanentFault; the texts of both executors are equal,
byte for byte. No I/O here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from operator import attrgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.unknown_members import UnknownCounts
from sqs2pg.message import Message, Row, TargetLines

if TYPE_CHECKING:
    from sqs2pg.mapping.compile import MessageMapping
    from sqs2pg.mapping.originals import Originals

# Made once and run by map: a generator costs one Python call per row.
_text, _count = attrgetter("text"), attrgetter("count")

NONE_UNREAD: Mapping[str, PermanentFault] = MappingProxyType({})
NONE_DROPPED: Mapping[str, int] = MappingProxyType({})


class CopyText(NamedTuple):
    """What one COPY sends."""

    text: bytes
    """Lines in PostgreSQL's COPY text format, UTF-8, newlines included."""
    rows: int
    """How many lines they are."""


class UnitFault(NamedTuple):
    """A unit that has no rows: it goes to the quarantine."""

    unit: int
    """Its index in the batch."""
    key: str
    """Its ledger key."""
    fault: PermanentFault


class Encoded:
    """A batch as the texts of its COPYs, and the units that are in none of them."""

    def __init__(
        self,
        count: int,
        ledger: bytes,
        targets: Sequence[CopyText],
        *,
        make_keys: Callable[[], list[str]],
        make_rows: Callable[[], list[Row]],
        faults: Sequence[UnitFault] = (),
        repeats: Sequence[int] = (),
        oldest_ms: int | None,
        dropped: int = 0,
        dropped_fields: Mapping[str, int] = NONE_DROPPED,
        unknown: UnknownCounts | None = None,
        originals: Originals | None = None,
        decoded_at: float | None = None,
        taken: int,
    ) -> None:
        """`make_keys` and `make_rows` are called when somebody asks: a batch on the COPY path
        needs neither.
        """
        self.count = count
        """Units that are written: those with a line in `ledger`."""
        self.ledger = ledger
        """Lines of the ledger's COPY, sorted by key."""
        self.targets = targets
        """For each target its lines, in the order in which they are written."""
        self.faults = faults
        """Units that cannot be encoded, in their order in the batch."""
        self.repeats = repeats
        """Indexes of units whose key an earlier unit of the batch has."""
        self.oldest_ms = oldest_ms
        """The oldest SentTimestamp of all units, milliseconds since the epoch; None of no units."""
        self.dropped = dropped
        """Records that no target takes."""
        self.dropped_fields = dropped_fields
        """How many records had each field that the settings drop, by its source."""
        self.unknown = unknown or UnknownCounts()
        """The members that no path of the mapping names: how often each was there."""
        self.originals = originals
        """What the rows hide, for the vault to seal; None without it."""
        self.decoded_at = decoded_at
        """The clock's time between decoding and masking; None where both are one step."""
        self.taken = taken
        """How many units it is about, from the first on: all of them, or those that fit the
        encoder's budget; at least one. The others are to be encoded next."""
        self._make_keys = make_keys
        self._make_rows = make_rows

    @cached_property
    def keys(self) -> list[str]:
        """The ledger key of each unit, in their order."""
        return self._make_keys()

    @cached_property
    def rows(self) -> list[Row]:
        """The rows of `targets` by unit, in the order in which they are written."""
        return self._make_rows()

    def __repr__(self) -> str:
        return f"Encoded({self.count} units, {len(self.faults)} faults)"


class Encoder(Protocol):
    """One executor of a compiled mapping."""

    @property
    def mapping(self) -> MessageMapping:
        """What it follows, for a replay: its keys are those of the quarantine's entries."""

    def keys(self, units: Sequence[Message], /) -> list[str]:
        """Return the ledger key that each unit has before its body is read."""

    def encode(
        self,
        units: Sequence[Message],
        ledger_end: str,
        unread: Mapping[str, PermanentFault] = NONE_UNREAD,
    ) -> Encoded:
        """Encode a batch; of one that is too large at once its first units (`Encoded.taken`).

        `ledger_end` ends each line of the ledger, after key and id.

        `unread` has the faults of units that must not be read, by id. Raises FatalFault where two
        units of different ids have one key.
        """


class EncodedAhead(NamedTuple):
    """A batch that was encoded while the one before it was written."""

    units: Sequence[Message]
    encoder: Encoder
    """It must still be the one in use when the batch is written."""
    encoded: Encoded


def copy_texts(rows: Sequence[Row], targets: int) -> list[CopyText]:
    """Return the lines of rows for each of the `targets`, in the order of the rows."""
    if targets == 1:
        return [CopyText("".join(map(_text, rows)).encode(), sum(map(_count, rows)))]
    texts: list[list[str]] = [[] for _ in range(targets)]
    counts = [0] * targets
    for row in rows:
        for part in parts_of(row):
            texts[part.target].append(part.text)
            counts[part.target] += part.count
    return [
        CopyText("".join(text).encode(), count) for text, count in zip(texts, counts, strict=True)
    ]


def parts_of(row: Row) -> tuple[Row | TargetLines, ...]:
    """Return the lines of a row by target."""
    return (row, *row.also)
