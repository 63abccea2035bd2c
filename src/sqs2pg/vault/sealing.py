"""Seal: what a batch's transaction adds when the vault is on.

After the rows and before the quarantine, in the rows' own transaction. What this process knows to
be stored costs nothing more. For the rest one statement asks which values are not there yet and
gets their subjects' wrapped keys; new subjects get keys in a second; the sealed values go in with
a third, ON CONFLICT DO NOTHING, sorted, so that batches that meet wait and never deadlock.

Promises: when the batch has committed, every recoverable value of its written rows opens for who
may reveal it, or its subject was erased. Caches hold hashes and keys, never a value, and are
dropped when the epoch says that somebody was erased. Must never do: read a value.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import msgspec

from sqs2pg.database import Session
from sqs2pg.errors import KeyFault
from sqs2pg.keys.derive import ROOT_BYTES, Secret
from sqs2pg.keys.keyring import Keyring
from sqs2pg.vault.envelope import (
    key_encryption_key,
    seal_subject,
    seal_value,
    subject_references,
    unwrap_data_key,
    wrap_data_key,
)
from sqs2pg.vault.originals import Original, Originals

OPEN = """;
SELECT pii.lock_shared();
SELECT (SELECT epoch FROM pii.state),
       (SELECT version FROM sqs2pg.key WHERE series = 'vault' AND active),
       (SELECT version FROM sqs2pg.key WHERE series = 'pseudonym' AND active)"""
"""Follows what opens a transaction, as statements of their own: what they read is read after the
lock. Its last column is the active pseudonym version, as without it."""

_MISSING = """SELECT entry, generation, wrapped_key, key_version
FROM pii.missing(%s::text::uuid[], %s::text[], %s::text[])"""
_OPEN_SUBJECTS = """SELECT subject, generation, wrapped_key, key_version
FROM pii.open_subjects(%s::text::uuid[], %s, %s, %s, %s)"""
_STORE = """INSERT INTO pii.value (subject, generation, field, token, sealed)
SELECT * FROM unnest(%s::text::uuid[], %s::integer[], %s::text[], %s::text[], %s::bytea[])
ON CONFLICT DO NOTHING"""

STORED_MAX = 400_000
"""Records whose values are known to be stored, in each of two sets: about 60 MB when full. A hash
has 64 bits, salted in each process: that a new record passes for a known one has a chance of
10**-13."""
DATA_KEYS_MAX = 20_000
"""Unwrapped data keys, the most recently used: about 6 MB."""


class Marks(msgspec.Struct):
    """What a transaction stored, to be remembered once it has committed."""

    epoch: int
    stored: Collection[int]
    data_keys: dict[str, tuple[int, Secret]]


class _Entry(msgspec.Struct):
    """One value to be stored, until it is known not to be needed."""

    subject: str
    """The reference."""
    original: Original


class Vault:
    """Seals for all sinks of one process."""

    def __init__(self, keyring: Keyring, reference_key: bytes) -> None:
        self._keyring = keyring
        self._version = keyring.active("vault")
        self._keks = {
            version: key_encryption_key(keyring, "vault", version)
            for version in keyring.versions("vault")
        }
        self._reference = subject_references(reference_key)
        self._salt = secrets.randbits(60)
        self._epoch = 0
        self._stored: set[int] = set()
        self._stored_before: set[int] = set()
        self._data_keys: OrderedDict[str, tuple[int, Secret]] = OrderedDict()

    def heed(self, epoch: int, version: int | None) -> None:
        """Hold caches and keys against what a transaction read when it opened.

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
        self, session: Session, originals: Originals, chosen: Collection[str] | None = None
    ) -> Marks:
        """Store what the batch's written rows hide, in the caller's transaction.

        `chosen` are the MessageIds of the rows that are written; None: of all. Give the result to
        `remember` after COMMIT. Raises psycopg.Error, KeyFault where a subject's key is wrapped
        under a root that is not in the keyring.
        """
        marks = Marks(self._epoch, [], {})
        fresh: list[Original] = []
        stored: set[int] = set()
        for part in originals.parts:
            at = part.hashes(self._salt, chosen)
            new = at.keys() - self._stored - self._stored_before
            for mark in new:
                fresh += part.of(at[mark])
            stored |= new
        marks.stored = stored
        if fresh:
            await self._store(session, self._entries(fresh), marks)
        return marks

    def remember(self, marks: Marks) -> None:
        """Note what a committed transaction stored; nothing where somebody was erased since."""
        if marks.epoch != self._epoch:
            return
        self._stored.update(marks.stored)
        if len(self._stored) > STORED_MAX:
            self._stored_before, self._stored = self._stored, set()
        self._data_keys.update(marks.data_keys)
        while len(self._data_keys) > DATA_KEYS_MAX:
            self._data_keys.popitem(last=False)

    def _entries(self, fresh: Iterable[Original]) -> list[_Entry]:
        """Return the distinct values in the order in which every batch stores them."""
        references = {subject: self._reference(subject) for subject in {o.subject for o in fresh}}
        distinct = {
            (references[original.subject], original.field, original.token): original
            for original in fresh
        }
        return [_Entry(at[0], original) for at, original in sorted(distinct.items(), key=_place)]

    async def _store(self, session: Session, entries: Sequence[_Entry], marks: Marks) -> None:
        rows = await session.execute(
            _MISSING,
            [
                _uuids(entry.subject for entry in entries),
                [entry.original.field for entry in entries],
                [entry.original.token for entry in entries],
            ],
        )
        if not rows:
            return
        wanted = [(entries[row[0] - 1], row) for row in rows]
        keyless = {
            entry.subject: (row[1], entry.original.subject)
            for entry, row in wanted
            if row[2] is None
        }
        if keyless:
            await self._open_subjects(session, keyless, marks)
        columns: tuple[list[Any], ...] = ([], [], [], [], [])
        for entry, (_, generation, wrapped, version) in wanted:
            known = marks.data_keys.get(entry.subject) or self._data_key(
                entry.subject, generation, wrapped, version, marks
            )
            _, field, token, value = entry.original
            sealed = seal_value(known[1], value, field, token, entry.subject)
            cells = entry.subject, known[0], field, token, sealed
            for column, cell in zip(columns, cells, strict=True):
                column.append(cell)
        subjects, *others = columns
        await session.execute(_STORE, [_uuids(subjects), *others])

    async def _open_subjects(
        self, session: Session, keyless: dict[str, tuple[int, str]], marks: Marks
    ) -> None:
        """Give subjects keys: ours, or those that another was quicker to give."""
        kek = self._keks[self._version]
        offered = {
            subject: (generation, Secret(secrets.token_bytes(ROOT_BYTES)), name)
            for subject, (generation, name) in sorted(keyless.items())
        }
        wraps = {s: wrap_data_key(kek, key, s, number) for s, (number, key, _) in offered.items()}
        rows = await session.execute(
            _OPEN_SUBJECTS,
            [
                _uuids(offered),
                [generation for generation, _, _ in offered.values()],
                list(wraps.values()),
                self._version,
                [seal_subject(key, name, s) for s, (_, key, name) in offered.items()],
            ],
        )
        for found, generation, wrapped, version in rows:
            subject = found.hex
            if wrapped == wraps[subject]:
                marks.data_keys[subject] = generation, offered[subject][1]
            else:
                self._data_key(subject, generation, wrapped, version, marks)

    def _data_key(
        self, subject: str, generation: int, wrapped: bytes, version: int, marks: Marks
    ) -> tuple[int, Secret]:
        known = self._data_keys.get(subject)
        if known is None or known[0] != generation:
            if version not in self._keks:
                self._keyring.root("vault", version)  # raises KeyFault
            known = (
                generation,
                unwrap_data_key(self._keks[version], wrapped, subject, generation),
            )
        marks.data_keys[subject] = known
        return known


def _place(item: tuple[tuple[str, str, str], Original]) -> tuple[str, str, str]:
    return item[0]


def _uuids(references: Iterable[str]) -> str:
    """Return an array literal: of hex digits alone, so nothing needs quoting."""
    return "{" + ",".join(references) + "}"
