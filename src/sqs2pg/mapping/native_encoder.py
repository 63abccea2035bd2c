"""The native executor of a mapping: most units in C, the others by the reference.

Whatever the C code is not sure of it leaves to the reference, so there is one meaning of a mapping.
Its verdict on a unit at fault counts only where it is certain (`verdicts.py`). No I/O here; the C
code is in native/ of the source tree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.budget import UNBOUNDED, Budget
from sqs2pg.mapping.encoder import NONE_UNREAD, CopyText, Encoded, UnitFault
from sqs2pg.mapping.line_units import LineUnits
from sqs2pg.mapping.originals import Originals
from sqs2pg.mapping.packed_originals import PackedFields
from sqs2pg.mapping.python_encoder import PythonEncoder
from sqs2pg.mapping.unknown_members import UnknownCounts, unpacked
from sqs2pg.mapping.verdicts import Verdicts
from sqs2pg.message import Message, MessageAttribute, Row, TargetLines

Keying = Literal["dated", "undated", "lines"]
"""What ledger keys are made of: a message's id and time, its id alone, or the id of an archive's
line and its time (`ledger_key.py`)."""

KEYINGS: Mapping[Keying, int] = {"dated": 0, "undated": 1, "lines": 2}  # as in native/key.h


_KEY_CHARS = 36


class Packed(NamedTuple):
    """A batch as the C code makes it."""

    ledger: bytes
    targets: tuple[tuple[bytes, int], ...]
    layout: bytes
    """uint32 numbers for each unit that has lines, in their order: its index, the records that no
    target takes, then for each target the bytes and the number of its lines."""
    oldest_ms: int
    """Milliseconds since the epoch: the oldest SentTimestamp of all units."""
    dropped: int
    left: tuple[int, ...]
    """Indexes of the units that Python must do, rising. They have no lines."""
    repeats: tuple[int, ...]
    """Indexes of the units whose key an earlier unit has, rising. They have no lines."""
    keys: bytes
    """Where keys may name events: the 36 characters of each unit's key, in their order; else empty.
    """
    drops: tuple[int, ...]
    """How many of the units with lines have each field that the settings drop, in their order."""
    unknown: tuple[tuple[int, bytes, int, int], ...]
    """The members of the units with lines that no path names: the node of the object, the name, the
    sort of the value as in `unknown_members.SORTS`, and how often."""
    taken: int
    """How many units were read, from the first on. All else is about these."""
    verdicts: tuple[tuple[int, str, int, int, int, str | None], ...] = ()
    """On the units that are at fault, rising: as `verdicts.UnitVerdict`. They have no lines."""
    originals: bytes = b""
    """What the lines hide, as `packed_originals.py` reads it; empty without the vault."""


class PackLines(Protocol):
    """As `FastPath.pack`, of an archive's lines (`LineUnits`). Other threads run meanwhile."""

    def __call__(
        self,
        bodies: bytes | tuple[bytes, ...],
        times: tuple[int, ...] | None,
        day_ms: int,
        prefix: bytes,
        first: int,
        ledger_end: bytes,
        left: bytes,
        bytes_max: int = 0,
        records_max: int = 0,
        text_max: int = 0,
        attributes: Mapping[str, MessageAttribute] | None = None,
        /,
    ) -> tuple[Any, ...] | None:
        """Return a `Packed` batch; None where Python must do all of it. `bodies`: one text of all
        lines, or each by itself. `attributes`: as those of a message, of each line.
        """


class FastPath(Protocol):
    """The C code, compiled for one mapping (`fast_path.py`)."""

    def pack(
        self,
        units: Sequence[Message],
        ledger_end: bytes,
        keying: int,
        in_order: bool,
        left: bytes,
        bytes_max: int = 0,
        records_max: int = 0,
        text_max: int = 0,
        /,
    ) -> tuple[Any, ...] | None:
        """Return a `Packed` batch; None where Python must do all of it.

        The three bounds are those of `Budget`; at least one unit is read.

        Rows come in the order of the keys, or with `in_order` in that of the units. `left` has a
        byte for each unit, 1 where it must be left; empty: none.
        """

    @property
    def pack_lines(self) -> PackLines | None:
        """As `pack`, of an archive's lines; None where only messages are packed."""


class NativeEncoder:
    """See `Encoder`."""

    def __init__(
        self,
        fast_path: FastPath,
        python: PythonEncoder,
        keying: Keying,
        dropped: Sequence[str] = (),
        vault: PackedFields | None = None,
        node_paths: Sequence[str] = (),
        budget: Budget = UNBOUNDED,
        checked: Sequence[str] = (),
    ) -> None:
        """`dropped`: sources that the settings drop. `vault`: the fields whose originals
        the lines hide; None where nothing is sealed. `node_paths`: the path of each node of the
        fast path. `budget`: of what is encoded at once. `checked`: what faults of its checks
        name.
        """
        self._verdicts = Verdicts(python.mapping, checked)
        self._budget = budget
        self._fast_path = fast_path
        self._python = python
        self._keying = KEYINGS[keying]
        self._dropped = dropped
        self._vault = vault
        self._node_paths = node_paths
        self.keys = python.keys
        self.mapping = python.mapping

    def encode(
        self,
        units: Sequence[Message],
        ledger_end: str,
        unread: Mapping[str, PermanentFault] = NONE_UNREAD,
    ) -> Encoded:
        """See `Encoder`."""
        skipped = _places(units, unread) if unread else ()
        packed = self._pack(units, ledger_end, skipped)
        if packed is None:
            return self._python.encode(units, ledger_end, unread)
        originals = None
        if self._vault is not None:
            originals = Originals()
            originals.parts.append(self._vault.part(units, packed.originals))
        units = units[: packed.taken] if packed.taken < len(units) else units
        faults: list[UnitFault] = []
        left: Sequence[int] = packed.left
        if packed.verdicts:
            faults, without = self._verdicts.faults(units, packed.verdicts)
            left = sorted([*left, *without])
        if not left:
            return self._encoded(units, packed, originals, faults)
        rest = [units[index] for index in left]
        # Whole: the C code has counted what they hold.
        others = self._python.encode(rest, ledger_end, unread, originals, whole=True)
        keys = self._keys_of(units, packed, left, others)
        if (others.count and self._python.in_order) or keys is None:
            # The order of rows, or an event that is in both parts, is known only to the whole.
            return self._python.encode(units, ledger_end, unread)
        faults += [UnitFault(left[index], key, fault) for index, key, fault in others.faults]
        return self._merged(units, packed, others, keys, originals, sorted(faults))

    def _pack(
        self, units: Sequence[Message], ledger_end: str, left: Collection[int]
    ) -> Packed | None:
        marks = bytes(index in left for index in range(len(units))) if left else b""
        end = ledger_end.encode()
        pack_lines = self._fast_path.pack_lines
        of_lines = self._keying == KEYINGS["lines"]
        if of_lines and pack_lines is not None and isinstance(units, LineUnits):
            about = (units.times, units.day_ms, units.prefix.encode(), units.first)
            given = (units.content, *about, end, marks, *self._budget, units.attributes)
            packed = pack_lines(*given)
        else:
            in_order = self._python.in_order
            packed = self._fast_path.pack(units, end, self._keying, in_order, marks, *self._budget)
        return None if packed is None else Packed(*packed)

    def _keys_of(
        self, units: Sequence[Message], packed: Packed, left: Sequence[int], others: Encoded
    ) -> Callable[[], list[str]] | None:
        """Return what makes the units' keys; None where a unit that is left has another's event."""
        if not packed.keys:
            return lambda: self.keys(units)
        keys = _split_keys(packed)
        keys_left = dict(zip(left, others.keys, strict=True))
        known = {key for index, key in enumerate(keys) if index not in keys_left}
        if others.repeats or not known.isdisjoint(keys_left.values()):
            return None
        for index, key in keys_left.items():
            keys[index] = key
        return lambda: keys

    def _dropped_fields(self, packed: Packed) -> Counter[str]:
        return +Counter(dict(zip(self._dropped, packed.drops, strict=True)))

    def _unknown(self, packed: Packed) -> UnknownCounts:
        return unpacked(packed.unknown, self._node_paths) if packed.unknown else UnknownCounts()

    def _encoded(
        self,
        units: Sequence[Message],
        packed: Packed,
        originals: Originals | None,
        faults: Sequence[UnitFault],
    ) -> Encoded:
        """Return what C made of a batch that it did as a whole."""

        def keys() -> list[str]:
            return _split_keys(packed) if packed.keys else self.keys(units)

        return Encoded(
            len(units) - len(packed.repeats) - len(faults),
            packed.ledger,
            [CopyText(*text) for text in packed.targets],
            make_keys=keys,
            make_rows=lambda: rows_of(units, keys(), packed),
            faults=faults,
            repeats=packed.repeats,
            dropped=packed.dropped,
            dropped_fields=self._dropped_fields(packed),
            unknown=self._unknown(packed),
            oldest_ms=packed.oldest_ms,
            originals=originals,
            taken=packed.taken,
        )

    def _merged(
        self,
        units: Sequence[Message],
        packed: Packed,
        others: Encoded,
        keys: Callable[[], list[str]],
        originals: Originals | None,
        faults: Sequence[UnitFault],
    ) -> Encoded:
        """Return what C made of a batch, and Python of the units that C left."""
        ledger, targets = packed.ledger, [CopyText(*text) for text in packed.targets]
        if others.count:
            lines = ledger.splitlines(keepends=True) + others.ledger.splitlines(keepends=True)
            ledger = b"".join(sorted(lines))
            targets = [
                CopyText(text + more.text, rows + more.rows)
                for (text, rows), more in zip(targets, others.targets, strict=True)
            ]
        return Encoded(
            len(units) - len(packed.repeats) - len(faults),
            ledger,
            targets,
            make_keys=keys,
            make_rows=lambda: [*rows_of(units, keys(), packed), *others.rows],
            faults=faults,
            repeats=packed.repeats,
            dropped=packed.dropped + others.dropped,
            dropped_fields=self._dropped_fields(packed) + Counter(others.dropped_fields),
            unknown=self._unknown(packed) + others.unknown,
            oldest_ms=packed.oldest_ms,
            originals=originals,
            decoded_at=others.decoded_at,
            taken=packed.taken,
        )


def _places(units: Sequence[Message], ids: Collection[str]) -> Collection[int]:
    """Return the indexes of the units with these ids."""
    if isinstance(units, LineUnits):
        return units.indexes(ids)
    return {index for index, unit in enumerate(units) if unit.message_id in ids}


def _split_keys(packed: Packed) -> list[str]:
    text = packed.keys.decode()
    return [text[at : at + _KEY_CHARS] for at in range(0, len(text), _KEY_CHARS)]


def written(packed: Packed) -> Iterator[tuple[int, int, list[TargetLines]]]:
    """Yield of each unit with rows: its index, the records dropped, its lines by target."""
    numbers = iter(memoryview(packed.layout).cast("I"))
    at = [0] * len(packed.targets)
    for index in numbers:
        dropped = next(numbers)
        parts: list[TargetLines] = []
        for target, (text, _) in enumerate(packed.targets):
            size, count = next(numbers), next(numbers)
            if count:
                lines = text[at[target] : at[target] + size].decode()
                parts.append(TargetLines(target, lines, count))
                at[target] += size
        yield index, dropped, parts


def rows_of(units: Sequence[Message], keys: Sequence[str], packed: Packed) -> list[Row]:
    """Return the rows of a packed batch, by unit. `keys[i]` is the ledger key of `units[i]`."""
    rows: list[Row] = []
    for index, dropped, parts in written(packed):
        first, *also = parts or (TargetLines(0, "", 0),)
        rows.append(
            Row(
                keys[index],
                units[index].message_id,
                first.text,
                first.count,
                first.target,
                tuple(also),
                dropped,
            )
        )
    return rows
