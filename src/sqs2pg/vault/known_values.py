"""Known values: what this process knows to be stored, so that it need not ask the database.

Of records that C code made, the memory holds a hash of each value, and a person who comes back with
other values of theirs is known too. Of records that Python code made, it holds a hash of all values
of a record. Both hold what was committed under one epoch, and no value. No I/O here.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from types import ModuleType
from typing import Any, Protocol

from sqs2pg.mapping.originals import LeftOut, OriginalColumns, OriginalsPart
from sqs2pg.mapping.packed_originals import PackedOriginals

RECORDS_MAX = 400_000
"""Records that Python code made whose values are known to be stored, in each of two sets: about
60 MB when full. A hash has 64 bits and is salted in each process: a new record is taken for a known
one with a probability of 10**-13."""
VALUE_HASHES_MAX = 2**23
"""Places for hashes of values, 64 bits each: 64 MiB when full, 32 MiB up to 1.8 million."""
VALUE_HASHES_READ_MAX = 5_000_000
"""Hashes of values that a process reads when it starts: with more, new ones would take the place of
others."""


class Unknown(Protocol):
    """Records of a part, each with a value that may have to be stored."""

    @property
    def records(self) -> list[int]:
        """Their numbers in the part."""

    def remember(self) -> None:
        """Note that all their values are stored."""


class KnownValues:
    """The memory of one process. Its size is bounded: it forgets what it has no room for."""

    def __init__(self, reference_key: bytes) -> None:
        self._reference_key = reference_key
        self._salt = secrets.token_bytes(16)
        self._records: set[int] = set()
        self._records_before: set[int] = set()
        self._value_hashes: Any = None  # `_native.KnownValues`

    def __len__(self) -> int:
        values = 0 if self._value_hashes is None else len(self._value_hashes)
        return len(self._records) + len(self._records_before) + values

    def clear(self) -> None:
        """Forget all."""
        self._records.clear()
        self._records_before.clear()
        if self._value_hashes is not None:
            self._value_hashes.clear()

    def unknown(
        self,
        part: OriginalsPart,
        chosen: Collection[str] | None = None,
        left_out: LeftOut | None = None,
    ) -> Unknown:
        """Return the chosen records that may have a value that is not stored.

        They are chosen as in `OriginalColumns.hashes`.
        """
        if isinstance(part, PackedOriginals):
            if self._value_hashes is None:
                self._value_hashes = part.extension.KnownValues(VALUE_HASHES_MAX)
            return HashedValues(self._value_hashes, part, self._reference_key, chosen, left_out)
        assert isinstance(part, OriginalColumns)
        indexes = part.hashes(self._salt, chosen, left_out)
        new = indexes.keys() - self._records - self._records_before
        return HashedRecords(self, [indexes[hash_] for hash_ in new], new)

    def add_value_hashes(self, hashes: bytes, extension: ModuleType) -> bool:
        """Note that values with these hashes are stored; return whether there is room for more."""
        if self._value_hashes is None:
            self._value_hashes = extension.KnownValues(VALUE_HASHES_MAX)
        self._value_hashes.add(hashes)
        return len(self._value_hashes) < VALUE_HASHES_READ_MAX

    def add_records(self, hashes: Collection[int]) -> None:
        """Note that the records with these hashes are stored."""
        self._records.update(hashes)
        if len(self._records) > RECORDS_MAX:
            self._records_before, self._records = self._records, set()


class HashedRecords:
    """See `Unknown`: of a part that Python code made."""

    def __init__(self, known: KnownValues, records: list[int], hashes: Collection[int]) -> None:
        self.records = records
        self._known = known
        self._hashes = hashes

    def remember(self) -> None:
        """See `Unknown`."""
        self._known.add_records(self._hashes)


class HashedValues:
    """See `Unknown`: of a part that C code made."""

    def __init__(
        self,
        known: Any,
        part: PackedOriginals,
        reference_key: bytes,
        chosen: Collection[str] | None,
        left_out: LeftOut | None,
    ) -> None:
        self._part = part
        self._known = known
        self._columns = len(part.names)
        self._learned = b""
        self._value_hashes, self._references = part.value_hashes(reference_key)
        numbers = known.unknown(self._value_hashes, self._columns)
        self._numbers = part.chosen(numbers, chosen, left_out) if numbers else numbers

    @property
    def records(self) -> list[int]:
        """See `Unknown`."""
        return memoryview(self._numbers).cast("I").tolist()

    @property
    def values(self) -> int:
        """How many values they have at most."""
        return len(self._numbers) // 4 * self._columns

    def subjects(self) -> tuple[int, bytes]:
        """Return how many people they are of, and their references as elements of an array."""
        extension = self._part.extension
        found: tuple[int, bytes] = extension.distinct_references(self._references, self._numbers)
        return found

    def learn(self, stored: bytes) -> None:
        """Drop the records whose values are all stored, as the transaction's hashes say.

        They are remembered with the others: what it has read may be its own.
        """
        found = self._part.extension.KnownValues(len(stored))
        found.add(stored)
        self._numbers = found.unknown(self._value_hashes, self._columns, self._numbers)
        self._learned = stored

    def remember(self) -> None:
        """See `Unknown`."""
        self._known.add(self._learned)
        self._known.add(self._value_hashes, self._columns, self._numbers)
