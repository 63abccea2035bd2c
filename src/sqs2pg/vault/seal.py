"""Seal: what a batch's transaction adds when the vault is on.

After the rows and before the quarantine, in the rows' own transaction. Values that this process
knows to be stored cost no statement. For the others, a first statement returns which of them are
missing and the wrapped keys of their subjects. A second one gives new subjects their keys and
stores the sealed values, ON CONFLICT DO NOTHING and sorted, so that batches that meet wait and
never deadlock. New people of rows that C code made are sealed by C code. A third one stores the
values of subjects whom another process gave a key first.

Promises: once the batch has committed, every recoverable value of its written rows can be opened by
a role that may reveal it, unless its subject was erased. Caches hold hashes and keys, never a
value, and are emptied when the epoch says that somebody was erased. Must never do: read a value.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Collection, Sequence
from contextlib import suppress
from types import ModuleType
from typing import Any, NamedTuple

import msgspec
import structlog

from sqs2pg.errors import FatalFault, KeyFault
from sqs2pg.keys.aead import PersonKey, nonces
from sqs2pg.keys.derive import ROOT_BYTES
from sqs2pg.keys.keyring import Keyring
from sqs2pg.mapping.originals import LeftOut, Originals
from sqs2pg.postgres.binary_arrays import (
    BinaryArray,
    arrays_of,
    bytea_array_of,
    bytea_elements,
    integer_array_of,
    integer_elements,
    text_array_of,
    text_elements,
    uuid_array_of,
    uuid_elements,
)
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.key_registry import refuse_missing_root
from sqs2pg.postgres.sqlstate import explained
from sqs2pg.vault.crypto import (
    KeyEncryptionKeys,
    SubjectKeyFault,
    references_of_many,
    seal_subject,
    seal_value,
    wrap_data_key,
)
from sqs2pg.vault.known_values import HashedValues, KnownValues, Unknown
from sqs2pg.vault.value_keys import (
    NOTHING_ASKED,
    Absent,
    NewPeople,
    PackedValueKeys,
    SealedValues,
    ValueKey,
    ValueKeys,
    absent_of,
    asked_arrays,
    keys_of,
)

logger = structlog.get_logger(__name__)

OPEN = """SELECT pii.lock_shared();
SELECT (SELECT epoch FROM pii.state),
       (SELECT version FROM sqs2pg.key WHERE series = 'vault' AND active),
       (SELECT version FROM sqs2pg.key WHERE series = 'pseudonym' AND active)"""
"""What a batch's transaction opens with. The second statement reads once the lock is taken; its
last column is the active pseudonym version, as without the vault."""

_STORED = "SELECT pii.stored(%s::uuid[])"
_STORED_SLICE = "SELECT pii.stored_slice(%s, %s)"
ESTIMATE = "SELECT reltuples FROM pg_class WHERE oid = 'pii.value'::regclass"
_SLICES = (0, 100_000), (4, 2_000_000)
"""For how many values at most so many bits name a slice; for more, 8 do."""
_MISSING = """SELECT entries, generation, wrapped_key, key_version
FROM pii.missing(%s::uuid[], %s::text[], %s::text[])"""
_STORE = """INSERT INTO pii.value (subject, generation, field, token, sealed, token_hash)
SELECT n.*, hashtextextended(n.token, 0)
FROM unnest(%s::uuid[], %s::integer[], %s::text[], %s::text[],
            %s::bytea[]) AS n (subject, generation, field, token, sealed)
{}ORDER BY n.subject, hashtextextended(n.token, 0), n.field
ON CONFLICT DO NOTHING"""
_STORE_VALUES = _STORE.format("")
# Those of subjects whose key is another one are left out: they are sealed once more.
_STORE_NEW = f"""WITH opened AS MATERIALIZED (
    SELECT subject, generation, wrapped_key, key_version
    FROM pii.open_subjects(%s::uuid[], %s::integer[], %s::bytea[], %s,
                           %s::bytea[])),
stored AS (
{_STORE.format("WHERE NOT EXISTS (SELECT FROM opened o WHERE o.subject = n.subject) ")})
SELECT subject, generation, wrapped_key, key_version FROM opened"""

PRELOAD_S = 5.0
"""How long a process reads what is stored when it starts; it ends with the slice under way."""
DATA_KEYS_MAX = 10_000
"""The latest unwrapped data keys: about 10 MB."""

DAMAGED_MAX = 1_000
"""People whose data key does not open, each logged once by a process."""


def slice_bits(estimate: float) -> int:
    """Return how many bits name a slice of about so many stored values that a start reads."""
    return next((bits for bits, most in _SLICES if estimate < most), 8)


class StoredValues(msgspec.Struct):
    """What a transaction stored. The vault remembers it once the transaction has committed."""

    epoch: int
    records: list[Unknown]
    data_keys: dict[str, tuple[int, PersonKey]]


class _Wanted(NamedTuple):
    """A value that is not stored yet, and its subject's key."""

    value_key: ValueKey
    subject: str
    """The id."""
    value: str
    """In clear."""
    generation: int
    wrapped: bytes | None
    """None where the subject has no key; `generation` is that of the one to make."""
    version: int


class ValueSealer:
    """Seals the values of all sinks of one process."""

    open_statements = OPEN

    def __init__(self, keyring: Keyring, reference_key: bytes) -> None:
        self._keyring = keyring
        self._version = keyring.active("vault")
        self._keks = KeyEncryptionKeys(keyring)
        self._kek = self._keks[self._version]
        self._reference_key = reference_key
        self._references = references_of_many(reference_key)
        self._epoch = 0
        self._known = KnownValues(reference_key)
        self._mostly_new = False  # the last values that were not known here
        self._data_keys: OrderedDict[str, tuple[int, PersonKey]] = OrderedDict()
        self._damaged: set[str] = set()

    def check_epoch(self, epoch: int, version: int | None) -> None:
        """Compare caches and keys with what a transaction read when it opened.

        Raises KeyFault where another root is the active one.
        """
        if version != self._version:
            raise KeyFault(
                f"values are sealed under vault version {self._version}, but version {version} is "
                "the active one",
                code="key_version",
                hint="restart, so that the active version is used; `sqs2pg keys list` shows both",
            )
        self._follow(epoch)

    def _follow(self, epoch: int) -> None:
        if epoch != self._epoch:
            self._known.clear()
            self._data_keys.clear()
            self._epoch = epoch

    async def preload(self, session: Session, extension: ModuleType) -> None:
        """Read what is stored, as far as memory and time go, so that it is not asked for by name.

        For a process that lives long and whose rows `extension` makes. It fills a cache: where the
        database fails, batches ask, and report the fault if it lasts.
        """
        with suppress(FatalFault), explained():
            await self._preload(session, extension)

    async def _preload(self, session: Session, extension: ModuleType) -> None:
        began = time.monotonic()
        [(estimate,)] = await session.execute(ESTIMATE)
        bits = slice_bits(estimate)
        for number in range(1 << bits):
            async with session.transaction(OPEN) as transaction:
                [(epoch, *_)] = transaction.opened
                if number == 0:
                    self._follow(epoch)
                [(hashes,)] = await session.execute(_STORED_SLICE, [number, bits])
                # Still under the lock: nobody has been erased since they were read.
                more = epoch == self._epoch and self._known.add_value_hashes(
                    hashes or b"", extension
                )
            if not more or time.monotonic() - began > PRELOAD_S:
                return

    async def seal(
        self,
        session: Session,
        originals: Originals,
        chosen: Collection[str] | None = None,
        left_out: LeftOut | None = None,
    ) -> StoredValues:
        """Store what the batch's written rows hide, in the caller's transaction.

        `chosen` are the MessageIds of the written rows; None: all rows are written. `left_out` are
        lines of which a state table took nothing. Pass the result
        to `remember` after COMMIT. Raises psycopg.Error, SubjectKeyFault where the key of one
        subject does not open.
        """
        stored = StoredValues(self._epoch, [], {})
        asked: list[ValueKeys] = []
        unknown_values = absent_values = 0
        for part in originals.parts:
            unknown = self._known.unknown(part, chosen, left_out)
            stored.records.append(unknown)
            if isinstance(unknown, HashedValues):
                unknown_values += unknown.values
                if unknown.values and not self._mostly_new:
                    await self._learn(session, unknown)
            if records := unknown.records:
                keys = keys_of(part, records, self._references, self._reference_key)
                if keys.asked.size:
                    asked.append(keys)
        if asked:
            try:
                absent_values = await self._store(session, asked, stored)
            except SubjectKeyFault as fault:
                await refuse_missing_root(session, self._keyring, "vault", fault.root)
                self._log_once(fault)
                raise
        self._mostly_new = 2 * absent_values > unknown_values
        return stored

    async def _learn(self, session: Session, unknown: HashedValues) -> None:
        """Ask for all that is stored of people who may have come back."""
        size, elements = unknown.subjects()
        [(stored,)] = await session.execute(_STORED, [uuid_array_of(size, elements)])
        if stored:
            unknown.learn(stored)

    def _log_once(self, fault: SubjectKeyFault) -> None:
        if fault.subject not in self._damaged and len(self._damaged) < DAMAGED_MAX:
            self._damaged.add(fault.subject)
            logger.error(
                "the data key of a person does not open; only what is about them is not written",
                reference=fault.subject,
                code=fault.code,
            )

    async def rehearse(self, session: Session) -> None:
        """Send the statements of `seal` without a value, so that a missing right shows.

        In the caller's transaction. Raises psycopg.Error.
        """
        nothing = StoredValues(self._epoch, [], {})
        values = _value_arrays([self._sealed([], nothing)])
        people = self._people_arrays([self._new_people({}, nothing)])
        await session.execute(_STORED, [uuid_array_of(0)])
        await session.execute(_MISSING, asked_arrays([NOTHING_ASKED]))
        await session.execute(_STORE_VALUES, values)
        await session.execute(_STORE_NEW, [*people, *values])

    def remember(self, stored: StoredValues) -> None:
        """Note what a committed transaction stored, unless somebody has been erased since."""
        if stored.epoch != self._epoch:
            return
        for unknown in stored.records:
            unknown.remember()
        self._data_keys.update(stored.data_keys)
        while len(self._data_keys) > DATA_KEYS_MAX:
            self._data_keys.popitem(last=False)

    async def _store(
        self, session: Session, asked: Sequence[ValueKeys], stored: StoredValues
    ) -> int:
        """Store what is missing of some values; return how many those are."""
        rows = await session.execute(_MISSING, asked_arrays([keys.asked for keys in asked]))
        absent = list(absent_of(asked, rows))
        count = sum(len(one.numbers) for one in absent)
        if not absent:
            return 0
        wanted = _wanted([one for one in absent if not one.seals])
        # A person whose values came in several parts gets one key.
        known = {one.value_key[0] for one in wanted}
        native: list[tuple[PackedValueKeys, list[int]]] = []
        for one in absent:
            if one.seals:
                assert isinstance(one.keys, PackedValueKeys)
                of_both = {n for n in one.numbers if known and one.keys.reference(n) in known}
                wanted += _wanted([one._replace(numbers=list(of_both))] if of_both else [])
                native.append((one.keys, [n for n in one.numbers if n not in of_both]))
        keyless = {
            one.value_key[0]: (one.generation, one.subject) for one in wanted if one.wrapped is None
        }
        people = [self._new_people(keyless, stored)]
        values = [self._sealed(wanted, stored)]
        for keys, numbers in native:
            new, sealed = keys.seal_new(numbers, self._kek)
            people.append(new)
            values.append(sealed)
        if not sum(one.size for one in people):
            await session.execute(_STORE_VALUES, _value_arrays(values))
            return count
        arrays = [*self._people_arrays(people), *_value_arrays(values)]
        rows = await session.execute(_STORE_NEW, arrays)
        if rows:  # another process has given these a key first
            keys_of_first = {subject.hex: key for subject, *key in rows}
            for subject in keys_of_first:
                stored.data_keys.pop(subject, None)
            kept = [
                one._replace(generation=generation, wrapped=wrapped, version=version)
                for one in _wanted(absent)
                if one.value_key[0] in keys_of_first
                for generation, wrapped, version in [keys_of_first[one.value_key[0]]]
            ]
            await session.execute(_STORE_VALUES, _value_arrays([self._sealed(kept, stored)]))
        return count

    def _new_people(self, keyless: dict[str, tuple[int, str]], stored: StoredValues) -> NewPeople:
        """Make keys for subjects, given as generation and id."""
        kek, count = self._kek, len(keyless)
        drawn = secrets.token_bytes(ROOT_BYTES * count)
        nonce = iter(nonces(2 * count))
        generations: list[int] = []
        wraps: list[bytes] = []
        sealed: list[bytes] = []
        for number, (subject, (generation, name)) in enumerate(keyless.items()):
            bare = drawn[number * ROOT_BYTES : (number + 1) * ROOT_BYTES]
            key = PersonKey(bare)
            stored.data_keys[subject] = generation, key
            generations.append(generation)
            wraps.append(wrap_data_key(kek, bare, subject, generation, next(nonce)))
            sealed.append(seal_subject(key, name, subject, next(nonce)))
        return NewPeople(
            count,
            uuid_elements(list(keyless)),
            integer_elements(generations),
            bytea_elements(wraps),
            bytea_elements(sealed),
        )

    def _people_arrays(self, people: Sequence[NewPeople]) -> list[Any]:
        kinds = uuid_array_of, integer_array_of, bytea_array_of, bytea_array_of
        *keys, ids = arrays_of(kinds, people)
        return [*keys, self._version, ids]

    def _sealed(self, wanted: Sequence[_Wanted], stored: StoredValues) -> SealedValues:
        """Seal values, each once."""
        generations: list[int] = []
        sealed: list[bytes] = []
        distinct = {one.value_key: one for one in wanted}
        for one, nonce in zip(distinct.values(), nonces(len(distinct)), strict=True):
            subject, field, token = one.value_key
            known = stored.data_keys.get(subject) or self._data_key(one, stored)
            generations.append(known[0])
            sealed.append(seal_value(known[1], one.value, field, token, subject, nonce))
        subjects, fields, tokens = zip(*distinct, strict=True) if distinct else ((), (), ())
        return SealedValues(
            len(distinct),
            uuid_elements(subjects),
            integer_elements(generations),
            text_elements(fields),
            text_elements(tokens),
            bytea_elements(sealed),
        )

    def _data_key(self, one: _Wanted, stored: StoredValues) -> tuple[int, PersonKey]:
        subject = one.value_key[0]
        known = self._data_keys.get(subject)
        if known is None or known[0] != one.generation:
            assert one.wrapped is not None
            key = self._keks.open_data_key(one.version, one.wrapped, subject, one.generation)
            known = one.generation, key
        stored.data_keys[subject] = known
        return known


def _wanted(absent: Sequence[Absent]) -> list[_Wanted]:
    return [
        _Wanted(*value, one.generation, one.wrapped, one.version)
        for one in absent
        for value in one.keys.values(one.numbers)
    ]


def _value_arrays(values: Sequence[SealedValues]) -> list[BinaryArray]:
    """Return the parameters that store values."""
    kinds = uuid_array_of, integer_array_of, text_array_of, text_array_of, bytea_array_of
    return arrays_of(kinds, values)
