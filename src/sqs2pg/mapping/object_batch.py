"""A batch of S3 objects' lines and of the notifications that named them, and its encoder.

The units are the lines, object by object, then the notifications. A line has the ledger key that a
backfill of its object gives it. A notification has the key of any message, and no row. No I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate, chain
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.budget import UNBOUNDED, Budget
from sqs2pg.mapping.encoder import NONE_UNREAD, CopyText, Encoded, Encoder, UnitFault
from sqs2pg.mapping.unknown_members import UnknownCounts
from sqs2pg.message import Message, Row

if TYPE_CHECKING:
    from sqs2pg.mapping.compile import MessageMapping

# Made once and run by map: a lambda costs one Python call per row.
_by_key = attrgetter("key")
_sent_timestamp = attrgetter("attributes.sent_timestamp")


class ObjectLines(NamedTuple):
    """Lines that follow each other in one object."""

    place: str
    """The object's URL."""
    first: int
    """The number of the first line, from 0."""
    units: Sequence[Message]
    unit: str = "line"
    """What the object's records are called: a line, or a record of several lines or columns."""

    def __repr__(self) -> str:
        return f"ObjectLines({len(self.units)} lines)"


class ObjectBatch(Sequence[Message]):
    """Lines and notifications that are committed together."""

    def __init__(
        self,
        lines: Sequence[ObjectLines],
        notifications: Sequence[Message],
        oldest_ms: int | None = None,
    ) -> None:
        """`oldest_ms`: SentTimestamp of the oldest notification whose lines these are."""
        self.lines = lines
        self.notifications = notifications
        self.oldest_ms = oldest_ms
        self._ends = list(accumulate(len(one.units) for one in lines))
        self.line_count = self._ends[-1] if lines else 0

    def __len__(self) -> int:
        return self.line_count + len(self.notifications)

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> ObjectBatch: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self._part(index)
        index = range(len(self))[index]
        if index >= self.line_count:
            return self.notifications[index - self.line_count]
        part, within = self._find(index)
        return part.units[within]

    def __iter__(self) -> Iterator[Message]:
        return chain(*(one.units for one in self.lines), self.notifications)

    def _part(self, index: slice) -> ObjectBatch:
        """Return units that follow each other as a batch of their own."""
        start, stop, step = index.indices(len(self))
        assert step == 1
        lines: list[ObjectLines] = []
        for end, one in zip(self._ends, self.lines, strict=True):
            begin = end - len(one.units)
            units = one.units[max(0, start - begin) : max(0, stop - begin)]
            if units:
                first = one.first + max(0, start - begin)
                lines.append(ObjectLines(one.place, first, units, one.unit))
        shift = self.line_count
        notifications = self.notifications[max(0, start - shift) : max(0, stop - shift)]
        return ObjectBatch(lines, notifications, self.oldest_ms)

    def _find(self, index: int) -> tuple[ObjectLines, int]:
        number = sum(end <= index for end in self._ends)  # they are few
        part = self.lines[number]
        return part, index - (self._ends[number] - len(part.units))

    def place_of(self, index: int) -> str:
        """Return the object of a line and its number there, from 1; empty for a notification."""
        if index >= self.line_count:
            return ""
        part, within = self._find(index)
        return f"{part.place} {part.unit} {part.first + within + 1}"

    def __repr__(self) -> str:
        return f"ObjectBatch({self.line_count} lines, {len(self.notifications)} notifications)"


class ObjectEncoder:
    """See `Encoder`. Encodes an ObjectBatch; any other units are notifications."""

    def __init__(
        self,
        lines: Encoder,
        targets: int,
        make_keys: Callable[[Sequence[Message]], list[str]],
        *,
        together: bool,
        budget: Budget = UNBOUNDED,
    ) -> None:
        """`lines` encodes the lines of one object. `make_keys`: of notifications. `together`: lines
        of several objects may have one key, because keys may name events. `budget`: of what is
        encoded at once.
        """
        self._budget = budget
        self._lines = lines
        self._targets = targets
        self._make_keys = make_keys
        self._together = together

    @property
    def mapping(self) -> MessageMapping:
        """See `Encoder`: that of the lines."""
        return self._lines.mapping

    def keys(self, units: Sequence[Message]) -> list[str]:
        """See `Encoder`."""
        if not isinstance(units, ObjectBatch):
            return self._make_keys(units)
        of_lines = (self._lines.keys(one.units) for one in units.lines)
        return [*chain.from_iterable(of_lines), *self._make_keys(units.notifications)]

    def encode(
        self,
        units: Sequence[Message],
        ledger_end: str,
        unread: Mapping[str, PermanentFault] = NONE_UNREAD,
    ) -> Encoded:
        """See `Encoder`. `unread`: faults of lines and of notifications."""
        if not isinstance(units, ObjectBatch):
            units = ObjectBatch((), units)
        groups = [one.units for one in units.lines]
        if self._together and len(groups) > 1:
            groups = [list(chain.from_iterable(groups))]
        parts: list[Encoded] = []
        size = 0
        for group in groups:
            parts.append(self._lines.encode(group, ledger_end, unread))
            size += sum(len(text.text) for text in parts[-1].targets)
            if parts[-1].taken < len(group) or 0 < self._budget.bytes_max <= size:
                break
        if sum(one.taken for one in parts) < units.line_count:
            return _joined(parts, self._targets) if len(parts) > 1 else parts[0]
        if len(parts) == 1 and not units.notifications:
            return parts[0]
        parts.append(self._notifications(units.notifications, ledger_end, unread))
        return _joined(parts, self._targets)

    def _notifications(
        self,
        messages: Sequence[Message],
        ledger_end: str,
        unread: Mapping[str, PermanentFault],
    ) -> Encoded:
        keys = self._make_keys(messages)
        rows: dict[str, Row] = {}
        faults: dict[str, UnitFault] = {}
        repeats: list[int] = []
        for index, (key, message) in enumerate(zip(keys, messages, strict=True)):
            name = message.message_id
            if key in rows or key in faults:
                repeats.append(index)
            elif name in unread:
                faults[key] = UnitFault(index, key, unread[name])
            else:
                rows[key] = Row(key, name, "", 0)
        ledger = sorted(f"{row.key}\t{row.message_id}\t{ledger_end}" for row in rows.values())
        return Encoded(
            len(rows),
            "".join(ledger).encode(),
            [CopyText(b"", 0)] * self._targets,
            make_keys=lambda: keys,
            make_rows=lambda: list(rows.values()),
            faults=list(faults.values()),
            repeats=repeats,
            oldest_ms=min(map(_sent_timestamp, messages), default=None),
            taken=len(messages),
        )


def _joined(parts: Sequence[Encoded], targets: int) -> Encoded:
    """Return several encoded batches as one."""
    sizes = [one.taken for one in parts]
    starts = [end - size for end, size in zip(accumulate(sizes), sizes, strict=True)]
    texts: list[list[CopyText]] = [[one.targets[t] for one in parts] for t in range(targets)]
    dropped_fields: dict[str, int] = {}
    unknown = UnknownCounts()
    originals = None
    for one in parts:
        unknown.update(one.unknown)
        for name, count in one.dropped_fields.items():
            dropped_fields[name] = dropped_fields.get(name, 0) + count
        if one.originals is not None:
            if originals is None:
                originals = one.originals
            else:
                originals.parts += one.originals.parts
    ledgers = [one.ledger for one in parts if one.ledger]
    return Encoded(
        sum(one.count for one in parts),
        # Sorted by key: two COPYs that meet then wait, and never deadlock.
        b"".join(sorted(b"".join(ledgers).splitlines(keepends=True)))
        if len(ledgers) > 1
        else b"".join(ledgers),
        [CopyText(b"".join(t.text for t in all_), sum(t.rows for t in all_)) for all_ in texts],
        make_keys=lambda: list(chain.from_iterable(one.keys for one in parts)),
        make_rows=lambda: list(chain.from_iterable(one.rows for one in parts)),
        faults=[
            UnitFault(start + unit, key, fault)
            for start, one in zip(starts, parts, strict=True)
            for unit, key, fault in one.faults
        ],
        repeats=[
            start + index for start, one in zip(starts, parts, strict=True) for index in one.repeats
        ],
        oldest_ms=parts[-1].oldest_ms,
        dropped=sum(one.dropped for one in parts),
        dropped_fields=dropped_fields,
        originals=originals,
        decoded_at=parts[0].decoded_at,
        unknown=unknown,
        taken=sum(sizes),
    )
