"""Envelope: the vault's cryptography, and nothing else. Values in, values out; no I/O.

    vault root v ──HKDF──▶ key-encryption key v ──wraps──▶ data key of a subject ──seals──▶ values
                                               └─wraps──▶ reference key ──HMAC──▶ subject reference

Each seal is `keys/aead.py`'s (AES-256-GCM under a key per nonce). What it is bound to, each field
with its length before it, tells what it is (with the format's version), whose, and for a value its
field and token: a ciphertext moved to another field, token or subject does not open.

Frozen in docs/reference/vault.md; `tests/vectors/vault.json` holds known answers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from sqs2pg.keys.aead import SealingKey, associated
from sqs2pg.keys.derive import Secret, hkdf_sha256
from sqs2pg.keys.hmac_state import KeyedHash
from sqs2pg.keys.keyring import Keyring
from sqs2pg.mask.canonical import text

REFERENCE_BYTES = 16
"""Of the HMAC: among 10**12 subjects the chance of two sharing a reference is 10**-15."""

_REFERENCE_LENGTH = REFERENCE_BYTES.to_bytes(4, "big")
# Associated data in the form of `associated`: each field with its length before it. Those that
# end before a reference take its length along.
_SUBJECT = associated((b"sqs2pg/1/subject",)) + _REFERENCE_LENGTH
_DATA_KEY = associated((b"sqs2pg/1/data-key",)) + _REFERENCE_LENGTH
_REFERENCE_KEY = associated((b"sqs2pg/1/reference-key",))


def key_encryption_key(keyring: Keyring, series: str, version: int) -> SealingKey:
    """Return the key that wraps keys under a root. Raises KeyFault `key_missing`."""
    return SealingKey(hkdf_sha256(keyring.root(series, version), b"sqs2pg/1/key-encryption"))


def subject_references(reference_key: bytes) -> Callable[[str], str]:
    """Return the function from a subject's name to its reference, 32 hex digits.

    The name's canonical form is that of masking, kind `text`; it raises PermanentFault as that.
    """
    hexdigest = KeyedHash(reference_key).hexdigest

    def reference(subject: str) -> str:
        return hexdigest(text(subject))[: 2 * REFERENCE_BYTES]

    return reference


def wrap_data_key(kek: SealingKey, data_key: bytes, subject: str, generation: int) -> bytes:
    """Return a subject's data key under a key-encryption key. `subject` is its reference."""
    return kek.seal(data_key, _of_data_key(subject, generation))


def unwrap_data_key(kek: SealingKey, wrapped: bytes, subject: str, generation: int) -> SealingKey:
    """Return the data key. Raises Sqs2pgError where anything differs."""
    return SealingKey(kek.open(wrapped, _of_data_key(subject, generation)))


def rewrap_data_key(
    old: SealingKey, new: SealingKey, wrapped: bytes, subject: str, generation: int
) -> bytes:
    """Return the data key under another key-encryption key. Raises as `unwrap_data_key`."""
    bound = _of_data_key(subject, generation)
    return new.seal(old.open(wrapped, bound), bound)


def _of_data_key(subject: str, generation: int) -> bytes:
    return _DATA_KEY + bytes.fromhex(subject) + associated((str(generation).encode(),))


def wrap_reference_key(kek: SealingKey, reference_key: bytes) -> bytes:
    """Return the key of subject references under a key-encryption key."""
    return kek.seal(reference_key, _REFERENCE_KEY)


def unwrap_reference_key(kek: SealingKey, wrapped: bytes) -> Secret:
    """Return the key of subject references. Raises Sqs2pgError where anything differs."""
    return Secret(kek.open(wrapped, _REFERENCE_KEY))


def seal_value(data_key: SealingKey, value: str, field: str, token: str, subject: str) -> bytes:
    """Return a value sealed for its field, token and subject."""
    return data_key.seal(_bytes(value), _of_value(field, token, subject))


def open_value(data_key: SealingKey, sealed: bytes, field: str, token: str, subject: str) -> str:
    """Return the value. Raises Sqs2pgError where key, field, token, subject or any bit differ."""
    return _text(data_key.open(sealed, _of_value(field, token, subject)))


def _of_value(field: str, token: str, subject: str) -> bytes:
    name, bare = _bytes(token), bytes.fromhex(subject)
    return _value_field(field) + len(name).to_bytes(4, "big") + name + _REFERENCE_LENGTH + bare


@functools.cache
def _value_field(field: str) -> bytes:
    return associated((b"sqs2pg/1/value", _bytes(field)))


def seal_subject(data_key: SealingKey, name: str, subject: str) -> bytes:
    """Return who a subject is, sealed under its data key, so that a reveal can say whose."""
    return data_key.seal(_bytes(name), _SUBJECT + bytes.fromhex(subject))


def open_subject(data_key: SealingKey, sealed: bytes, subject: str) -> str:
    """Return who a subject is. Raises Sqs2pgError where anything differs."""
    return _text(data_key.open(sealed, _SUBJECT + bytes.fromhex(subject)))


def _bytes(value: str) -> bytes:
    return value.encode("utf-8", "surrogatepass")


def _text(opened: bytes) -> str:
    return opened.decode("utf-8", "surrogatepass")
