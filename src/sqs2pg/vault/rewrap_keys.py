"""Rewrap keys: what a rewrap makes of the data keys of a batch.

C code does the batch where the extension can seal and all keys open; else Python code does, which
says why one does not open. Both make the same bytes. No I/O here.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from sqs2pg.keys.aead import NONCE_BYTES_PLAIN, WRAPS_PER_KEY, split_nonces
from sqs2pg.keys.keyring import Keyring
from sqs2pg.native import extension
from sqs2pg.postgres.binary_arrays import (
    BinaryArray,
    address_array,
    address_array_of,
    bytea_array,
    bytea_array_of,
    int_of,
    rows_of,
    uuid_array,
    uuid_array_of,
)
from sqs2pg.vault.crypto import CONTEXT_OF_DATA_KEY, KeyEncryptionKeys, SubjectKeyFault

KEY_SIZES = {
    "tidsend(n.address)": 6,
    "uuid_send(n.subject)": 16,
    "int4send(n.generation)": 4,
    "int4send(n.key_version)": 4,
    "n.wrapped_key": 0,
}
"""The columns of a row of a batch, for `binary_row`."""


class RewrappedKeys(NamedTuple):
    """What a batch writes, as parameters, and the keys that do not open."""

    addresses: BinaryArray
    subjects: BinaryArray
    wrapped: BinaryArray
    faults: list[SubjectKeyFault]


class KeyRewrapper:
    """Rewraps the keys of batches under the active root. For one thread at a time."""

    def __init__(self, keyring: Keyring) -> None:
        self._keks = KeyEncryptionKeys(keyring)
        self._version = keyring.active("vault")

    def rewrap(self, rows: bytes, count: int) -> RewrappedKeys:
        """Rewrap so many keys; those that do not open are left out. Raises KeyFault.

        `rows`: as `KEY_SIZES` says.
        """
        drawn = os.urandom(count * NONCE_BYTES_PLAIN)
        native = extension()
        if native is not None and native.SEALS:
            made = native.rewrap_keys(
                rows,
                count,
                self._keks.derived,
                self._keks[self._version].lend(count),
                WRAPS_PER_KEY,
                CONTEXT_OF_DATA_KEY,
                drawn,
            )
            if made is not None:
                addresses, subjects, wrapped = made
                return RewrappedKeys(
                    address_array_of(count, addresses),
                    uuid_array_of(count, subjects),
                    bytea_array_of(count, wrapped),
                    [],
                )
        return self._rewrap_each(rows, drawn)

    def _rewrap_each(self, sent: bytes, drawn: bytes) -> RewrappedKeys:
        new = self._keks[self._version]
        addresses: list[bytes] = []
        subjects: list[str] = []
        again: list[bytes] = []
        faults: list[SubjectKeyFault] = []
        rows = zip(rows_of(sent, tuple(KEY_SIZES.values())), split_nonces(drawn), strict=True)
        for (address, bare, generation, version, wrapped), nonce in rows:
            subject = bare.hex()
            try:
                key = self._keks.rewrap_data_key(
                    int_of(version), new, wrapped, subject, int_of(generation), nonce
                )
            except SubjectKeyFault as fault:
                faults.append(fault)
                continue
            addresses.append(address)
            subjects.append(subject)
            again.append(key)
        return RewrappedKeys(
            address_array(addresses), uuid_array(subjects), bytea_array(again), faults
        )
