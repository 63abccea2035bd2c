"""Value keys: which values a batch may have to store, as the search for them asks, and in clear.

A part of a batch comes from Python or from C code (`mapping/originals.py`, `packed_originals.py`).
No I/O here.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from typing import NamedTuple

from sqs2pg.keys.aead import WRAPS_PER_KEY, WrappingKey
from sqs2pg.mapping.originals import OriginalColumns, OriginalsPart
from sqs2pg.mapping.packed_originals import PackedOriginals
from sqs2pg.postgres.binary_arrays import (
    BinaryArray,
    arrays_of,
    integer_elements,
    text_array_of,
    text_elements,
    uuid_array_of,
    uuid_elements,
)
from sqs2pg.vault.crypto import contexts_of_new_people

References = Callable[[Iterable[str]], dict[str, str]]
"""From ids of people to their references, by id."""

ValueKey = tuple[str, str, str]
"""The key of a value in `pii.value`: its subject's reference, its field and its token."""

_REFERENCE_STRIDE, _REFERENCE_AT = 20, 4  # an element of a binary array: its length comes first
_FIRST_GENERATION = integer_elements([1])
_DRAWN_BYTES = 68  # at most: of one value of one person (`_native.seal_new_people`)


class NewPeople(NamedTuple):
    """Subjects with their new keys, as elements of binary arrays."""

    size: int
    references: bytes
    generations: bytes
    wrapped: bytes
    ids: bytes
    """Sealed."""


class SealedValues(NamedTuple):
    """Values, as elements of binary arrays."""

    size: int
    references: bytes
    generations: bytes
    fields: bytes
    tokens: bytes
    sealed: bytes


class Asked(NamedTuple):
    """Keys as elements of binary arrays."""

    size: int
    references: bytes
    fields: bytes
    tokens: bytes


NOTHING_ASKED = Asked(0, b"", b"", b"")


class ColumnKeys:
    """The keys of the values of a part that Python code made, numbered from 0."""

    def __init__(
        self, part: OriginalColumns, records: Sequence[int], references: References
    ) -> None:
        known: dict[str, str] = {}
        entries: dict[ValueKey, tuple[str, str]] = {}
        for field, subjects, tokens, values in part.columns(records):
            known.update(references(set(subjects) - known.keys()))
            keys = zip(map(known.__getitem__, subjects), repeat(field), tokens)
            entries.update(zip(keys, zip(subjects, values, strict=True), strict=False))
        # By subject: values of one person are beside each other in the index.
        self._entries = sorted(entries.items())
        names, fields, tokens = (
            zip(*(key for key, _ in self._entries), strict=True) if entries else ((), (), ())
        )
        self.asked = Asked(
            len(entries), uuid_elements(names), text_elements(fields), text_elements(tokens)
        )

    def values(self, numbers: Sequence[int]) -> Iterator[tuple[ValueKey, str, str]]:
        """Yield of each number the key, the subject's id and the value in clear."""
        for number in numbers:
            key, (subject, value) = self._entries[number]
            yield key, subject, value


class PackedValueKeys:
    """The same of a part that C code made."""

    def __init__(self, part: PackedOriginals, records: Sequence[int], reference_key: bytes) -> None:
        self.seals = part.extension.SEALS
        """Whether C code can seal what it has of new people."""
        self._part = part
        self._keys = keys = part.keys(records, reference_key)
        fields = text_elements(keys.fields)
        self.asked = Asked(len(keys.fields), keys.references, fields, keys.tokens)

    def reference(self, number: int) -> str:
        """Return the reference of the subject of a value."""
        at = number * _REFERENCE_STRIDE
        return self._keys.references[at + _REFERENCE_AT : at + _REFERENCE_STRIDE].hex()

    def seal_new(self, numbers: Sequence[int], kek: WrappingKey) -> tuple[NewPeople, SealedValues]:
        """Make data keys of the people of these values, and seal them. Only where `seals`."""
        names, count = self._part.names, len(numbers)
        people, values, parts = self._part.extension.seal_new_people(
            self._keys.packed,
            struct.pack(f">{count}I", *numbers),
            secrets.token_bytes(_DRAWN_BYTES * count),
            kek.lend(count),
            WRAPS_PER_KEY,
            contexts_of_new_people(names),
            tuple(name.encode() for name in names),
        )
        references, wrapped, ids, *of_values = parts
        return (
            NewPeople(people, references, _FIRST_GENERATION * people, wrapped, ids),
            SealedValues(values, of_values[0], _FIRST_GENERATION * values, *of_values[1:]),
        )

    def values(self, numbers: Sequence[int]) -> Iterator[tuple[ValueKey, str, str]]:
        """As ColumnKeys do."""
        keys = self._keys
        records = sorted({keys.records[number] for number in numbers})
        texts = dict(zip(records, self._part.values(records), strict=True))
        for number in numbers:
            found, column = texts[keys.records[number]], keys.columns[number]
            token, value = found[1 + 2 * column : 3 + 2 * column]
            yield (self.reference(number), keys.fields[number], token), found[0], value


ValueKeys = ColumnKeys | PackedValueKeys


def keys_of(
    part: OriginalsPart,
    records: Sequence[int],
    references: References,
    reference_key: bytes,
) -> ValueKeys:
    """Return the keys of some records of a part, by their numbers in its `hashes`.

    `references` is the function under `reference_key`.
    """
    if isinstance(part, PackedOriginals):
        return PackedValueKeys(part, records, reference_key)
    assert isinstance(part, OriginalColumns)
    return ColumnKeys(part, records, references)


def asked_arrays(parts: Sequence[Asked]) -> list[BinaryArray]:
    """Return the keys of one part or more as arrays of subjects, fields and tokens."""
    return arrays_of((uuid_array_of, text_array_of, text_array_of), parts)


class Absent(NamedTuple):
    """Values of a part that are not stored yet, whose subjects have one key or none."""

    keys: ValueKeys
    numbers: list[int]
    generation: int
    wrapped: bytes | None
    """None where the subjects have no key; `generation` is that of the ones to make."""
    version: int

    @property
    def seals(self) -> bool:
        """Whether C code can seal them."""
        is_new = self.wrapped is None and self.generation == 1
        return is_new and isinstance(self.keys, PackedValueKeys) and self.keys.seals


def absent_of(
    asked: Sequence[ValueKeys], rows: Iterable[tuple[bytes, int, bytes | None, int]]
) -> Iterator[Absent]:
    """Yield what `pii.missing` returned for several parts, by part."""
    for entries, generation, wrapped, version in rows:
        begin, numbers = 1, sorted(struct.unpack(f">{len(entries) // 4}I", entries))
        for keys in asked:
            end = begin + keys.asked.size
            own = [number - begin for number in numbers if begin <= number < end]
            if own:
                yield Absent(keys, own, generation, wrapped, version)
            begin = end
