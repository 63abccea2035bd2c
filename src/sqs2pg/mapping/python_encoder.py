"""The reference executor of a mapping: decode, key, mask, line, step by step in Python.

What a mapping means is written here and in what it calls; the native executor must agree with it
byte for byte. No I/O here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import cast

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.budget import UNBOUNDED, Budget
from sqs2pg.mapping.compile import Decoded, MessageMapping
from sqs2pg.mapping.encoder import NONE_UNREAD, Encoded, UnitFault, copy_texts
from sqs2pg.mapping.ledger_key import EventKeys, collision
from sqs2pg.mapping.originals import Originals
from sqs2pg.mapping.unknown_members import UnknownCounts, UnknownShape, counts_of
from sqs2pg.message import Message, Row

MakeKeys = Callable[[Sequence[Message]], list[str]]
"""Returns the ledger keys of units, before their bodies are read."""

# Made once and run by map and sort: a lambda costs one Python call per row.
_by_key = attrgetter("key")
_sent_timestamp = attrgetter("attributes.sent_timestamp")
_dropped = attrgetter("dropped")


class PythonEncoder:
    """See `Encoder`."""

    def __init__(
        self,
        mapping: MessageMapping,
        targets: int,
        make_keys: MakeKeys,
        *,
        dedupe: EventKeys | None = None,
        in_order: bool = False,
        recovers: bool = False,
        clock: Callable[[], float] = lambda: 0.0,
        budget: Budget = UNBOUNDED,
    ) -> None:
        """`targets`: how many there are. `in_order`: rows keep the order of their units, else they
        are sorted by key. `recovers`: collect what the rows hide. `clock`: seconds, for
        `Encoded.decoded_at`. `budget`: of what is encoded at once.
        """
        self.mapping = mapping
        self._targets = targets
        self.keys = make_keys
        self._dedupe = dedupe
        self.in_order = in_order
        self._recovers = recovers
        self._clock = clock
        self._budget = budget

    def encode(
        self,
        units: Sequence[Message],
        ledger_end: str,
        unread: Mapping[str, PermanentFault] = NONE_UNREAD,
        originals: Originals | None = None,
        *,
        whole: bool = False,
    ) -> Encoded:
        """See `Encoder`. `originals`: where to collect what the rows hide, if not in new ones.
        `whole`: take every unit, whatever the budget is.
        """
        if self._recovers and originals is None:
            originals = Originals()
        decoded = self._decode(units, unread, UNBOUNDED if whole else self._budget)
        if len(decoded) < len(units):
            units = units[: len(decoded)]
        keys = self._keys_of(units, decoded)
        repeats = self._repeats(units, keys)
        decoded_at = self._clock()
        rows, faults, dropped_fields = self._mask(units, keys, decoded, set(repeats), originals)
        if not self.in_order:
            rows.sort(key=_by_key)
        return Encoded(
            len(rows),
            self._ledger(rows, ledger_end),
            copy_texts(rows, self._targets),
            make_keys=lambda: keys,
            make_rows=lambda: rows,
            faults=faults,
            repeats=repeats,
            oldest_ms=min(map(_sent_timestamp, units), default=None),
            dropped=sum(map(_dropped, rows)),
            dropped_fields=dropped_fields,
            unknown=self._unknown(units, decoded, {*repeats, *(f.unit for f in faults)}, faults),
            originals=originals,
            decoded_at=decoded_at,
            taken=len(units),
        )

    def _decode(
        self,
        units: Sequence[Message],
        unread: Mapping[str, PermanentFault],
        budget: Budget,
    ) -> list[Decoded | PermanentFault]:
        """Return what the first units hold, those that fit the budget."""
        if not unread:
            return self.mapping.decode_all(units, budget)
        readable = [unit for unit in units if unit.message_id not in unread]
        decoded = iter(self.mapping.decode_all(readable, budget))
        each: list[Decoded | PermanentFault] = []
        for unit in units:
            one = unread.get(unit.message_id) or next(decoded, None)
            if one is None:
                break
            each.append(one)
        return each

    def _keys_of(
        self, units: Sequence[Message], decoded: Sequence[Decoded | PermanentFault]
    ) -> list[str]:
        keys = self.keys(units)
        if self._dedupe is not None:
            for index, record in enumerate(decoded):
                if isinstance(record, PermanentFault):
                    continue
                if name := self.mapping.event(record):
                    keys[index] = self._dedupe(name)
        return keys

    def _repeats(self, units: Sequence[Message], keys: Sequence[str]) -> list[int]:
        if len(set(keys)) == len(keys):
            return []
        firsts: dict[str, int] = {}
        repeats: list[int] = []
        for index, key in enumerate(keys):
            first = firsts.setdefault(key, index)
            if first == index:
                continue
            ids = units[first].message_id, units[index].message_id
            if self._dedupe is None and ids[0] != ids[1]:
                raise collision(*ids)
            repeats.append(index)
        return repeats

    def _mask(
        self,
        units: Sequence[Message],
        keys: Sequence[str],
        decoded: Sequence[Decoded | PermanentFault],
        repeats: set[int],
        originals: Originals | None,
    ) -> tuple[list[Row], list[UnitFault], Mapping[str, int]]:
        """Return the rows and faults of the units that are no repeats, and the dropped fields."""
        faults: list[UnitFault] = []
        chosen: Sequence[int] = range(len(units))
        good = cast("Sequence[Decoded]", decoded)
        if repeats or PermanentFault in set(map(type, decoded)):
            chosen, good = [], []
            for index, record in enumerate(decoded):
                if index in repeats:
                    continue
                if isinstance(record, PermanentFault):
                    faults.append(UnitFault(index, keys[index], record))
                else:
                    chosen.append(index)
                    good.append(record)
        masked = self.mapping.rows(
            [keys[index] for index in chosen],
            [units[index] for index in chosen],
            good,
            originals,
        )
        dropped_fields = self.mapping.count_dropped(good)
        if set(map(type, masked)) <= {Row}:
            return cast("list[Row]", masked), faults, dropped_fields
        rows: list[Row] = []
        for index, row in zip(chosen, masked, strict=True):
            if isinstance(row, Row):
                rows.append(row)
            else:
                faults.append(UnitFault(index, keys[index], row))
        return rows, sorted(faults), dropped_fields

    def _unknown(
        self,
        units: Sequence[Message],
        decoded: Sequence[Decoded | PermanentFault],
        without: set[int],
        faults: Sequence[UnitFault],
    ) -> UnknownCounts:
        """Return the unknown members of the units but some, and of those that have a fault so."""
        found: list[UnknownShape] = []
        for index, record in enumerate(decoded):
            if index not in without:  # in it is whatever has a fault
                found += cast("Decoded", record).unknown
        for index, _, fault in faults:
            if fault.code == "unknown_field":
                found += self.mapping.unknown_in(units[index])
        return counts_of(found)

    def _ledger(self, rows: Sequence[Row], ledger_end: str) -> bytes:
        lines = [f"{row.key}\t{row.message_id}\t{ledger_end}" for row in rows]
        if self.in_order:
            lines.sort()  # by key: two COPYs that meet then wait, and never deadlock
        return "".join(lines).encode()
