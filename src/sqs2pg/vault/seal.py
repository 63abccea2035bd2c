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
from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import msgspec
import structlog

from sqs2pg.errors import KeyFault
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
from sqs2pg.vault.crypto import (
    KeyEncryptionKeys,
    SubjectKeyFault,
    references_of_many,
    seal_subject,
    seal_value,
    wrap_data_key,
)
from sqs2pg.vault.value_keys import (
    NOTHING_ASKED,
    Absent,
    NewPeople,
    PackedKeys,
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

STORED_MAX = 400_000
"""Records whose values are known to be stored, in each of two sets: about 60 MB when full. A hash
has 64 bits and is salted in each process: a new record is taken for a known one with a probability
of 10**-13."""
DATA_KEYS_MAX = 10_000
"""The latest unwrapped data keys: about 10 MB."""

DAMAGED_MAX = 1_000
"""People whose data key does not open, each logged once by a process."""


class Marks(msgspec.Struct):
    """What a transaction stored. The vault remembers it once the transaction has committed."""

    epoch: int
    stored: Collection[int]
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
        self._salt = secrets.token_bytes(16)
        self._epoch = 0
        self._stored: set[int] = set()
        self._stored_before: set[int] = set()
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
        if epoch != self._epoch:
            self._stored.clear()
            self._stored_before.clear()
            self._data_keys.clear()
            self._epoch = epoch

    async def seal(
        self,
        session: Session,
        originals: Originals,
        chosen: Collection[str] | None = None,
        left_out: LeftOut | None = None,
    ) -> Marks:
        """Store what the batch's written rows hide, in the caller's transaction.

        `chosen` are the MessageIds of the written rows; None: all rows are written. `left_out` are
        lines of which a state table took nothing. Pass the result
        to `remember` after COMMIT. Raises psycopg.Error, SubjectKeyFault where the key of one
        subject does not open.
        """
        marks = Marks(self._epoch, [], {})
        asked: list[ValueKeys] = []
        stored: set[int] = set()
        for part in originals.parts:
            indexes = part.hashes(self._salt, chosen, left_out)
            new = indexes.keys() - self._stored - self._stored_before
            records = [indexes[hash_] for hash_ in new]
            keys = keys_of(part, records, self._references, self._reference_key)
            if keys.asked.size:
                asked.append(keys)
            stored |= new
        marks.stored = stored
        if asked:
            try:
                await self._store(session, asked, marks)
            except SubjectKeyFault as fault:
                await refuse_missing_root(session, self._keyring, "vault", fault.root)
                self._log_once(fault)
                raise
        return marks

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
        nothing = Marks(self._epoch, [], {})
        values = _value_arrays([self._sealed([], nothing)])
        people = self._people_arrays([self._new_people({}, nothing)])
        await session.execute(_MISSING, asked_arrays([NOTHING_ASKED]))
        await session.execute(_STORE_VALUES, values)
        await session.execute(_STORE_NEW, [*people, *values])

    def remember(self, marks: Marks) -> None:
        """Note what a committed transaction stored, unless somebody has been erased since."""
        if marks.epoch != self._epoch:
            return
        self._stored.update(marks.stored)
        if len(self._stored) > STORED_MAX:
            self._stored_before, self._stored = self._stored, set()
        self._data_keys.update(marks.data_keys)
        while len(self._data_keys) > DATA_KEYS_MAX:
            self._data_keys.popitem(last=False)

    async def _store(self, session: Session, asked: Sequence[ValueKeys], marks: Marks) -> None:
        rows = await session.execute(_MISSING, asked_arrays([keys.asked for keys in asked]))
        if not rows:
            return
        absent = list(absent_of(asked, rows))
        wanted = _wanted([one for one in absent if not one.seals])
        # A person whose values came in several parts gets one key.
        known = {one.value_key[0] for one in wanted}
        native: list[tuple[PackedKeys, list[int]]] = []
        for one in absent:
            if one.seals:
                assert isinstance(one.keys, PackedKeys)
                of_both = {n for n in one.numbers if known and one.keys.reference(n) in known}
                wanted += _wanted([one._replace(numbers=list(of_both))] if of_both else [])
                native.append((one.keys, [n for n in one.numbers if n not in of_both]))
        keyless = {
            one.value_key[0]: (one.generation, one.subject) for one in wanted if one.wrapped is None
        }
        people = [self._new_people(keyless, marks)]
        values = [self._sealed(wanted, marks)]
        for keys, numbers in native:
            new, sealed = keys.seal_new(numbers, self._kek)
            people.append(new)
            values.append(sealed)
        if not sum(one.size for one in people):
            await session.execute(_STORE_VALUES, _value_arrays(values))
            return
        arrays = [*self._people_arrays(people), *_value_arrays(values)]
        rows = await session.execute(_STORE_NEW, arrays)
        if rows:  # another process has given these a key first
            keys_of_first = {subject.hex: key for subject, *key in rows}
            for subject in keys_of_first:
                marks.data_keys.pop(subject, None)
            kept = [
                one._replace(generation=generation, wrapped=wrapped, version=version)
                for one in _wanted(absent)
                if one.value_key[0] in keys_of_first
                for generation, wrapped, version in [keys_of_first[one.value_key[0]]]
            ]
            await session.execute(_STORE_VALUES, _value_arrays([self._sealed(kept, marks)]))

    def _new_people(self, keyless: dict[str, tuple[int, str]], marks: Marks) -> NewPeople:
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
            marks.data_keys[subject] = generation, key
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

    def _sealed(self, wanted: Sequence[_Wanted], marks: Marks) -> SealedValues:
        """Seal values, each once."""
        generations: list[int] = []
        sealed: list[bytes] = []
        distinct = {one.value_key: one for one in wanted}
        for one, nonce in zip(distinct.values(), nonces(len(distinct)), strict=True):
            subject, field, token = one.value_key
            known = marks.data_keys.get(subject) or self._data_key(one, marks)
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

    def _data_key(self, one: _Wanted, marks: Marks) -> tuple[int, PersonKey]:
        subject = one.value_key[0]
        known = self._data_keys.get(subject)
        if known is None or known[0] != one.generation:
            assert one.wrapped is not None
            key = self._keks.open_data_key(one.version, one.wrapped, subject, one.generation)
            known = one.generation, key
        marks.data_keys[subject] = known
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
