"""Derive: root key -> the key of one purpose. Pure functions; no I/O, no state.

Every key in use is HKDF-SHA256 (RFC 5869) of a root, with an empty salt and an info string that
names the purpose. So one root serves several purposes, and no key reveals another. The info strings
and what is made from them are frozen: docs/reference/masking.md specifies them for other languages,
tests/vectors/ has their known answers.

Never logs, never raises with key material; the `repr` of a key hides its bytes.
"""

from __future__ import annotations

import unicodedata

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

ROOT_BYTES = 32
"""Length of every root and of every derived key: AES-256's key, SHA-256's output."""

_INFO = "sqs2pg/1/"


class Secret(bytes):
    """Key bytes whose `repr` and `str` hide them, in tracebacks that show locals too."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__


def hkdf_sha256(root: bytes, info: bytes, length: int = ROOT_BYTES, salt: bytes = b"") -> Secret:
    """Return `length` bytes (1 to 8,160) of HKDF-SHA256 (RFC 5869, extract then expand)."""
    # RFC 5869, section 2.2: no salt is a salt of zeros, and HMAC pads an empty key with zeros.
    return Secret(HKDF(SHA256(), length, salt or None, info).derive(root))


def pseudonym_key(root: bytes, domain: str) -> Secret:
    """Return the HMAC key of a domain: 32 bytes; the domain enters as NFC UTF-8."""
    name = unicodedata.normalize("NFC", domain)
    return hkdf_sha256(root, f"{_INFO}pseudonym/{name}".encode())


def quarantine_key(root: bytes) -> Secret:
    """Return the key that seals quarantined bodies: 32 bytes."""
    return hkdf_sha256(root, f"{_INFO}quarantine".encode())


def operator_key(root: bytes, operator: str, domain: str, length: int = ROOT_BYTES) -> Secret:
    """Return the key of a domain under an encrypting operator, such as `encrypt`."""
    name = unicodedata.normalize("NFC", domain)
    return hkdf_sha256(root, f"{_INFO}{operator}/{name}".encode(), length)


def fingerprint(root: bytes, series: str) -> str:
    """Return 16 hex digits that identify a root and are safe to publish.

    64 bits of HKDF output reveal nothing about a random 32-byte root. The version is left out, so
    that one root with two versions is recognised.
    """
    return hkdf_sha256(root, f"{_INFO}fingerprint/{series}".encode(), length=8).hex()
