"""Seal: bytes -> ciphertext that only the key opens, and only for the place it was sealed for.

Layout: one byte of format (0x01), 24 bytes of random nonce, then AES-256-GCM's ciphertext and
16-byte tag: 41 bytes more than the plaintext.

Format 1 is XAES-256-GCM (C2SP, https://c2sp.org/XAES-256-GCM). GCM's own 12-byte nonce is too
short to draw at random for more than 2**32 values under one key (NIST SP 800-38D, section 8.3).
So each value gets a key of its own: the NIST SP 800-108r1 counter-mode KDF, with AES-256-CMAC,
of the key over label "X" and the nonce's first 12 bytes; the last 12 are GCM's nonce under that
key. After 2**80 values the chance of any nonce repeating is still 2**-32.

The associated data are the format byte, then each field as a 4-byte big-endian length and its
bytes: no two lists of fields give the same bytes. No I/O but the operating system's randomness.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFCMAC, CounterLocation, Mode

from sqs2pg.errors import Sqs2pgError
from sqs2pg.keys.derive import Secret

FORMAT = b"\x01"
NONCE_BYTES = 24
TAG_BYTES = 16
OVERHEAD_BYTES = len(FORMAT) + NONCE_BYTES + TAG_BYTES


def seal(key: bytes, plaintext: bytes, aad: Sequence[bytes]) -> bytes:
    """Return the plaintext sealed under a 32-byte key and bound to the fields of `aad`.

    Each call draws a new nonce, so equal plaintexts give unequal results.
    """
    nonce = os.urandom(NONCE_BYTES)
    return FORMAT + nonce + encrypt(key, nonce, plaintext, FORMAT + associated(aad))


def open_sealed(key: bytes, sealed: bytes, aad: Sequence[bytes]) -> bytes:
    """Return the plaintext of what `seal` gave under the same key and fields.

    Raises Sqs2pgError `sealed_body_damaged` where key, fields or any bit differ, and
    `sealed_body_format` for a format that this version does not know.
    """
    if sealed[:1] != FORMAT and len(sealed) >= OVERHEAD_BYTES:
        raise Sqs2pgError(
            "a sealed body has a format this version does not know",
            code="sealed_body_format",
            hint="open it with the version of sqs2pg that sealed it, or a newer one",
        )
    nonce, ciphertext = sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :]
    if len(ciphertext) >= TAG_BYTES:
        try:
            return AESGCM(_value_key(key, nonce)).decrypt(
                nonce[12:], ciphertext, FORMAT + associated(aad)
            )
        except InvalidTag:
            pass  # raised below, so that no traceback carries this one as context
    raise Sqs2pgError(
        "a sealed body does not open: it was changed, moved to another row, or sealed under "
        "another key",
        code="sealed_body_damaged",
        hint="check with `sqs2pg keys list` that the key it was sealed under is the one in use",
    )


def associated(fields: Sequence[bytes]) -> bytes:
    """Return the fields as one byte string, each with its length before it (4 bytes, big-endian).

    Raises OverflowError for a field of 4 GiB or more.
    """
    return b"".join(len(field).to_bytes(4, "big") + field for field in fields)


def encrypt(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
    """Return XAES-256-GCM's ciphertext and tag. `key` 32 bytes, `nonce` 24, never used twice."""
    return AESGCM(_value_key(key, nonce)).encrypt(nonce[12:], plaintext, aad)


def _value_key(key: bytes, nonce: bytes) -> Secret:
    # SP 800-108r1's input is counter || label || 0x00 || context, without the output's length.
    derivation = KBKDFCMAC(
        algorithm=AES256,
        mode=Mode.CounterMode,
        length=32,
        rlen=2,
        llen=None,
        location=CounterLocation.BeforeFixed,
        label=None,
        context=None,
        fixed=b"X\x00" + nonce[:12],
    )
    return Secret(derivation.derive(key))
