"""Renew values: what a rekey makes of the sealed values of a batch.

Each is opened, gets its new token and is sealed for it. C code does the batch where the extension
can seal and all of its values open; else Python code does, which says why one does not open. Python
code also makes the new pseudonyms of values whose canonical form C code does not know. Both make
the same bytes. No I/O here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from sqs2pg.errors import Sqs2pgError
from sqs2pg.keys.aead import NONCE_BYTES_PLAIN, PersonKey, split_nonces
from sqs2pg.keys.keyring import Keyring
from sqs2pg.native import extension
from sqs2pg.postgres.binary_arrays import binary_copy, int_of, rows_of
from sqs2pg.vault.crypto import (
    CONTEXT_OF_DATA_KEY,
    KeyEncryptionKeys,
    SubjectKeyFault,
    contexts_of_values,
    open_value,
    seal_value,
)
from sqs2pg.vault.token_map import Mask, RecoverableColumn

VALUE_SIZES = {
    "tidsend(n.address)": 6,
    "xidsend(n.made_by)": 4,
    "uuid_send(n.subject)": 16,
    "int4send(n.generation)": 4,
    "int4send(n.key_version)": 4,
    "n.wrapped_key": 0,
    "int4send(n.number)": 4,
    "textsend(n.token)": 0,
    "n.sealed": 0,
}
"""The columns of a row of a batch, for `binary_row`; `number` is that of the field, from 1."""
_OLD_FORM = re.compile("v[1-9][0-9]{0,3}_[0-9a-f]{32}").fullmatch  # as `token_map.OLD`


class RenewedValues(NamedTuple):
    """What a batch writes."""

    moved: int
    old: int
    """Values whose token is a pseudonym's; the others need no new one, and are left."""
    new_pairs: bytes
    """For COPY (FORMAT binary), by old token: the old and the new tokens that the map lacks."""
    pairs: bytes
    """The same of those that it may have."""
    rows: bytes
    """The same of the values, sorted as batches of ingest are, so that the two never wait for each
    other: address, transaction, new token, sealed value, and whether the row before has the same
    value."""
    faults: list[SubjectKeyFault]
    """Of the data keys that do not open."""


class ValueRenewer:
    """Renews the values of batches. For one thread at a time."""

    def __init__(
        self,
        keyring: Keyring,
        fields: Sequence[str],
        columns: Mapping[str, Sequence[RecoverableColumn]],
    ) -> None:
        """`columns`: those of each of the `fields`."""
        self._fields = fields
        self._columns = columns
        self._version = keyring.active("pseudonym")
        self._contexts = CONTEXT_OF_DATA_KEY, contexts_of_values(fields)
        self._keks = KeyEncryptionKeys(keyring)
        # Where columns differ in how they make it, the old token shows which one it came from.
        made = [{column.pseudonym for column in columns[field]} for field in fields]
        self._pseudonyms = tuple(one.pop() if len(one) == 1 else None for one in made)

    def renew(self, rows: bytes, count: int, seen: bytes) -> RenewedValues:
        """Renew so many values; those that do not open, or have no new token, are left out.

        `rows`: as `VALUE_SIZES` says; `seen`: a byte for each, 0 where the map lacks its token.
        """
        drawn = os.urandom(count * NONCE_BYTES_PLAIN)
        native = extension()
        if native is not None and native.SEALS:
            renewed = native.renew_values(
                rows,
                count,
                self._keks.derived,
                self._contexts,
                self._pseudonyms,
                self._remask,
                drawn,
                seen,
            )
            if renewed is not None:
                moved, old, new_pairs, pairs, lines = renewed
                return RenewedValues(moved, old, new_pairs, pairs, lines, [])
        return self._renew_each(rows, drawn, seen)

    def _remask(
        self, numbers: Sequence[int], tokens: Sequence[str], values: Sequence[str]
    ) -> list[str | None]:
        """Return the new tokens of values, given with the numbers of their fields from 0."""
        renewed: list[str | None] = []
        for number, token, value in zip(numbers, tokens, values, strict=True):
            try:
                renewed.append(self._mask_of(self._fields[number], token, value)(value))
            except Sqs2pgError:
                renewed.append(None)
        return renewed

    def _mask_of(self, field: str, token: str, value: str) -> Mask:
        """Return the new pseudonym of the column that the old token came from."""
        columns = self._columns[field]
        if len(columns) > 1:
            # The field goes to columns of several domains: the old token shows which one.
            version = int(token[1 : token.index("_")])
            for column in columns[1:]:
                old = column.masks.get(version)
                if old is not None and old(value) == token:
                    return column.masks[self._version]
        return columns[0].masks[self._version]

    def _renew_each(self, sent: bytes, drawn: bytes, seen: bytes) -> RenewedValues:
        old = 0
        new_pairs: dict[bytes, bytes] = {}
        pairs: dict[bytes, bytes] = {}
        moved: list[tuple[tuple[bytes, int, str], tuple[bytes, ...]]] = []
        faults: list[SubjectKeyFault] = []
        keys: dict[bytes, PersonKey | None] = {}
        read = rows_of(sent, tuple(VALUE_SIZES.values()))
        for row, nonce, known in zip(read, split_nonces(drawn), seen, strict=True):
            address, made_by, bare, generation, version, wrapped, number, name, sealed = row
            if not _OLD_FORM(name.decode()):
                continue
            old += 1
            subject, field, token = bare.hex(), self._fields[int_of(number) - 1], name.decode()
            if bare not in keys:
                keys[bare] = None
                try:
                    keys[bare] = self._keks.open_data_key(
                        int_of(version), wrapped, subject, int_of(generation)
                    )
                except SubjectKeyFault as fault:
                    faults.append(fault)
            key = keys[bare]
            if key is None:
                continue
            try:
                value = open_value(key, sealed, field, token, subject)
                new = self._mask_of(field, token, value)(value)
            except Sqs2pgError:
                continue
            if new is not None:
                again = seal_value(key, value, field, new, subject, nonce)
                whole = address, made_by, new.encode(), again
                (pairs if known else new_pairs).setdefault(name, new.encode())
                moved.append(((bare, int_of(number), new), whole))
        moved.sort(key=lambda one: one[0])
        repeats = [b"\0", *(bytes([one[0] == before[0]]) for before, one in pairwise(moved))]
        rows = [(*whole, mark) for (_, whole), mark in zip(moved, repeats, strict=False)]
        return RenewedValues(
            len(moved),
            old,
            binary_copy(sorted(new_pairs.items())),
            binary_copy(sorted(pairs.items())),
            binary_copy(rows),
            faults,
        )
