"""Originals of the native executor: what the lines that C code made hide, as one text.

The C code keeps a record's id, tokens and cleartext values beside its line, and finds hashes and
keys in them. Python sees a value only where it is to be stored. No I/O here; the C code is in
native/originals.c of the source tree.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from types import ModuleType
from typing import Literal, NamedTuple

from sqs2pg.mapping.originals import LeftOut, records_of
from sqs2pg.message import Message
from sqs2pg.settings import Field

_PLACE_BYTES = 8


class PackedFields:
    """The recoverable fields of a mapping with one target."""

    def __init__(self, fields: Sequence[Field], extension: ModuleType) -> None:
        self._names = tuple(field.first_source for field in fields if field.recover)
        self._extension = extension

    def part(self, units: Sequence[Message], originals: bytes) -> PackedOriginals:
        """Return the originals of a batch. `originals`: as `Packed` has them."""
        return PackedOriginals(units, self._names, originals, self._extension)


class PackedKeys(NamedTuple):
    """The keys of the values of some records, sorted by the person's reference."""

    references: bytes
    """As the elements of a `uuid[]` in binary."""
    tokens: bytes
    """As the elements of a `text[]` in binary."""
    fields: list[str]
    """The field of each key: so many there are."""
    records: list[int]
    """The record that a key is of."""
    columns: list[int]
    """Which of the record's columns."""
    packed: tuple[bytes, bytes, int, bytes, bytes]
    """All of it as the extension's `seal_new_people` takes it."""


class PackedOriginals:
    """See `OriginalsPart`."""

    def __init__(
        self,
        units: Sequence[Message],
        names: Sequence[str],
        originals: bytes,
        extension: ModuleType,
    ) -> None:
        self.names = names
        """The recoverable fields, as the vault calls them."""
        self.extension = extension
        self._units = units
        self._originals = originals
        self._places = self._indexes = b""

    def value_hashes(self, reference_key: bytes) -> tuple[bytes, bytes]:
        """Return a hash of each value, and the references, of all records in their numbers' order.

        Of each record there are 8 bytes for each field, zeros if it has no original, and 16.
        """
        names = tuple(name.encode() for name in self.names)
        found = self.extension.value_hashes(self._originals, reference_key, names)
        hashes, references, self._places, self._indexes = found
        return hashes, references

    def chosen(
        self, numbers: bytes, chosen: Collection[str] | None, left_out: LeftOut | None
    ) -> bytes:
        """Return those of the records with these numbers, native uint32, that are chosen.

        As in `OriginalColumns.hashes`. After `value_hashes`.
        """
        lines = left_out.get(0) if left_out else None  # there is one target
        if chosen is None and not lines:
            return numbers
        ids = [self._units[unit].message_id for unit in _numbers(self._indexes, "I")]
        without = set(records_of(ids, lines)) if lines else ()
        return b"".join(
            numbers[4 * at : 4 * at + 4]
            for at, record in enumerate(_numbers(numbers, "I"))
            if record not in without and (chosen is None or ids[record] in chosen)
        )

    def keys(self, records: Sequence[int], reference_key: bytes) -> PackedKeys:
        """Return the keys of records, by their numbers. After `value_hashes`."""
        places, count = self._at(records), len(self.names)
        references, tokens, each = self.extension.original_keys(
            self._originals, places, count, reference_key
        )
        pairs = _numbers(each, "I")
        columns, found = pairs[1::2], pairs[::2]
        if places is not self._places:
            found = list(map(records.__getitem__, found))
        fields = list(map(self.names.__getitem__, columns))
        packed = self._originals, places, count, references, each
        return PackedKeys(references, tokens, fields, found, columns, packed)

    def values(self, records: Sequence[int]) -> list[tuple[str, ...]]:
        """Return of records, by the same numbers: the id, then of each field token and value.

        Of all of them in the order of their numbers.
        """
        places, count = self._at(records), len(self.names)
        found: list[tuple[str, ...]] = self.extension.original_values(
            self._originals, places, count
        )
        return found

    def originals(self, records: Sequence[int]) -> Iterator[tuple[str, str, str, str]]:
        """See `OriginalsPart`."""
        for subject, *texts in self.values(records):
            for field, token, value in zip(self.names, texts[::2], texts[1::2], strict=True):
                if token:
                    yield subject, field, token, value

    def _at(self, records: Sequence[int]) -> bytes:
        places = self._places
        if len(records) * _PLACE_BYTES == len(places):
            return places  # all of them, each once, in whatever order
        at = (slice(one * _PLACE_BYTES, (one + 1) * _PLACE_BYTES) for one in records)
        return b"".join(map(places.__getitem__, at))

    def __repr__(self) -> str:
        return "PackedOriginals(…)"


def _numbers(packed: bytes, form: Literal["I", "Q"]) -> list[int]:
    """Return the native numbers in some bytes; `form` as of `struct`."""
    return memoryview(packed).cast(form).tolist()
