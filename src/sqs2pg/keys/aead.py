"""AEAD: bytes -> ciphertext that only the key opens, and only in the context it was sealed for.

Format 1: one byte (0x01), 24 bytes of random nonce, then AES-256-GCM's ciphertext and
16-byte tag: 41 bytes more than the plaintext.

It is XAES-256-GCM (C2SP, https://c2sp.org/XAES-256-GCM). GCM's own 12-byte nonce is too
short to draw at random for more than 2**32 values under one key (NIST SP 800-38D, section 8.3).
So each value gets a key of its own: the NIST SP 800-108r1 counter-mode KDF, with AES-256-CMAC,
of the key over label "X" and the nonce's first 12 bytes; the last 12 are GCM's nonce under that
key. After 2**80 values the chance of any nonce repeating is still 2**-32.

Format 2 (0x02, a 12-byte random nonce, ciphertext and tag: 29 bytes more) is AES-256-GCM itself,
for a key that seals few values, namely those of one person. 2**32 values are the same bound as
above, and nobody has as many. Without a derivation for each value, sealing takes a fifth of the
time.

The associated data are the format byte, then each field as a 4-byte big-endian length and its
bytes: no two lists of fields give the same bytes. No I/O except the system's randomness.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import ModuleType
from typing import cast

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import ECB

from sqs2pg.errors import Sqs2pgError

FORMAT = b"\x01"
FORMAT_PLAIN = b"\x02"
NONCE_BYTES = 24
NONCE_BYTES_PLAIN = 12
TAG_BYTES = 16
OVERHEAD_BYTES = len(FORMAT) + NONCE_BYTES + TAG_BYTES
OVERHEAD_BYTES_PLAIN = len(FORMAT_PLAIN) + NONCE_BYTES_PLAIN + TAG_BYTES
WRAPS_PER_KEY = 4096
"""Keys that are wrapped under one derived key. With as many random last halves of a nonce under one
first half, 2**53 wraps repeat a nonce with a probability of 2**-32."""
CIPHERS_MAX = 4096
"""Derived keys of wrapped keys that are kept for opening more of them: about 10 MB."""

_BLOCK = 2**128 - 1
_COUNTERS = int.from_bytes(b"\0\x01X\0" + bytes(12) + b"\0\x02X\0" + bytes(12), "big")
"""The two blocks of the key derivation without the context: counter 1 and 2, label X, separator."""


class SealingKey:
    """A key prepared for many values: AES's key schedule and CMAC's subkey are computed once.

    Only for one thread at a time.
    """

    __slots__ = ("_blocks", "_mask")

    def __init__(self, key: bytes) -> None:
        self._blocks = Cipher(AES256(key), ECB()).encryptor().update  # noqa: S305  as CMAC's part
        # NIST SP 800-38B, section 6.1: the first subkey, doubled in GF(2**128).
        last = int.from_bytes(self._blocks(bytes(16)), "big")
        subkey = (last << 1 & _BLOCK) ^ (0x87 if last >> 127 else 0)
        self._mask = _COUNTERS ^ (subkey << 128 | subkey)

    def seal(self, plaintext: bytes, aad: bytes) -> bytes:
        """Return the plaintext sealed; `aad` comes from `associated`.

        Each call draws a new nonce, so equal plaintexts give unequal results.
        """
        nonce = os.urandom(NONCE_BYTES)
        return FORMAT + nonce + self.encrypt(nonce, plaintext, FORMAT + aad)

    def open(self, sealed: bytes, aad: bytes) -> bytes:
        """Return the plaintext; `aad` comes from `associated`. Raises as `open_sealed`."""
        _require_format(FORMAT, sealed, OVERHEAD_BYTES)
        nonce, ciphertext = sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :]
        if len(ciphertext) >= TAG_BYTES:
            try:
                return self._cipher(nonce).decrypt(nonce[12:], ciphertext, FORMAT + aad)
            except InvalidTag:
                pass  # raised below, so that the fault does not have this one as its context
        raise _damaged()

    def encrypt(self, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
        """Return ciphertext and tag. `nonce` has 24 bytes, never used twice under the key."""
        return self._cipher(nonce).encrypt(nonce[12:], plaintext, aad)

    def _cipher(self, nonce: bytes) -> AESGCM:
        return AESGCM(self._value_key(nonce))

    def _value_key(self, nonce: bytes) -> bytes:
        # Two blocks of SP 800-108r1's input, each a whole message of CMAC: counter, label,
        # separator and context fill one block.
        context = int.from_bytes(nonce[:12], "big")
        return self._blocks((self._mask ^ (context << 128 | context)).to_bytes(32, "big"))


class WrappingKey(SealingKey):
    """A key that wraps many keys: one derived key serves WRAPS_PER_KEY of them.

    Still XAES-256-GCM with 24 random bytes of nonce: only the first 12 stay the same for a while.
    The last 12 are drawn for each wrap, so a forked process repeats none. Wrapped keys that have
    the first half in common are opened by one cipher, too.
    """

    __slots__ = ("_ciphers", "_first", "_left")

    def __init__(self, key: bytes) -> None:
        super().__init__(key)
        self._first = b""
        self._left = 0
        self._ciphers: dict[bytes, AESGCM] = {}

    def seal(self, plaintext: bytes, aad: bytes, last: bytes = b"") -> bytes:
        """Return the plaintext sealed, as `SealingKey.seal`. `last`: one of `nonces`."""
        nonce = self._first_half(1) + (last or os.urandom(12))
        return FORMAT + nonce + self.encrypt(nonce, plaintext, FORMAT + aad)

    def lend(self, wraps: int) -> tuple[tuple[bytes, bytes], ...]:
        """Return derived keys for so many wraps, each with the first half of its nonces.

        The first one is for the first WRAPS_PER_KEY wraps, the next one for the next. As `seal`
        does it: format 1, and a last half drawn for each.
        """
        sizes = (min(WRAPS_PER_KEY, wraps - at) for at in range(0, wraps, WRAPS_PER_KEY))
        firsts = map(self._first_half, sizes)
        return tuple((self._value_key(first), first) for first in firsts)

    def derived(self, first: bytes) -> bytes:
        """Return the derived key of the nonces that begin with `first`, 12 bytes."""
        return self._value_key(first)

    def _first_half(self, wraps: int) -> bytes:
        """Return the first half of the nonces of so many wraps, at most WRAPS_PER_KEY."""
        if self._left < wraps:
            self._first, self._left = os.urandom(12), WRAPS_PER_KEY
        self._left -= wraps
        return self._first

    def _cipher(self, nonce: bytes) -> AESGCM:
        first = nonce[:12]
        cipher = self._ciphers.get(first)
        if cipher is None:
            if len(self._ciphers) >= CIPHERS_MAX:
                self._ciphers.clear()
            cipher = self._ciphers[first] = AESGCM(self._value_key(nonce))
        return cipher


class SharedKey(WrappingKey):
    """A key that seals many values at once: they share derived keys as wrapped keys do.

    The native code seals where it can.
    """

    __slots__ = ("_extension",)

    def __init__(self, key: bytes, extension: ModuleType | None) -> None:
        super().__init__(key)
        self._extension = extension if extension is not None and extension.SEALS else None

    def seal_all(
        self, what: bytes, places: Sequence[tuple[str, str]], plaintexts: Sequence[bytes]
    ) -> list[bytes]:
        """Return the plaintexts sealed.

        The associated data of each is `what`, from `associated`, followed by the two texts of its
        place in the same form.
        """
        if self._extension is not None:
            drawn = os.urandom(len(plaintexts) * NONCE_BYTES_PLAIN)
            sealed = self._extension.seal_texts(
                self.lend(len(plaintexts)), WRAPS_PER_KEY, FORMAT + what, drawn, places, plaintexts
            )
            return cast("list[bytes]", sealed)
        aads = [what + associated([text.encode() for text in place]) for place in places]
        return list(map(self.seal, plaintexts, aads, nonces(len(plaintexts))))


class PersonKey:
    """The data key of one person, for the few values that are theirs: format 2."""

    __slots__ = ("_cipher",)

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, plaintext: bytes, aad: bytes, nonce: bytes = b"") -> bytes:
        """Return the plaintext sealed under `nonce`, one of `nonces`, or else a new random one.

        `aad` comes from `associated`.
        """
        nonce = nonce or os.urandom(NONCE_BYTES_PLAIN)
        return FORMAT_PLAIN + nonce + self._cipher.encrypt(nonce, plaintext, FORMAT_PLAIN + aad)

    def open(self, sealed: bytes, aad: bytes) -> bytes:
        """Return the plaintext; `aad` comes from `associated`. Raises as `open_sealed`."""
        _require_format(FORMAT_PLAIN, sealed, OVERHEAD_BYTES_PLAIN)
        nonce, ciphertext = sealed[1 : 1 + NONCE_BYTES_PLAIN], sealed[1 + NONCE_BYTES_PLAIN :]
        if len(ciphertext) >= TAG_BYTES:
            try:
                return self._cipher.decrypt(nonce, ciphertext, FORMAT_PLAIN + aad)
            except InvalidTag:
                pass
        raise _damaged()


def nonces(count: int) -> list[bytes]:
    """Return 12-byte nonces, drawn by one call of the system. Each is for one `seal`."""
    return split_nonces(os.urandom(count * NONCE_BYTES_PLAIN))


def split_nonces(drawn: bytes) -> list[bytes]:
    """Return so many drawn bytes as nonces."""
    return [drawn[at : at + NONCE_BYTES_PLAIN] for at in range(0, len(drawn), NONCE_BYTES_PLAIN)]


def _require_format(form: bytes, sealed: bytes, least: int) -> None:
    """Raise Sqs2pgError where what is long enough begins with another format's byte."""
    if sealed[:1] != form and len(sealed) >= least:
        raise Sqs2pgError(
            "a sealed body has a format this version does not know",
            code="sealed_body_format",
            hint="open it with the version of sqs2pg that sealed it, or a newer one",
        )


def _damaged() -> Sqs2pgError:
    return Sqs2pgError(
        "a sealed body does not open: it was changed, moved to another row, or sealed with "
        "another key",
        code="sealed_body_damaged",
        hint="check with `sqs2pg keys list` that the key it was sealed with is the one in use",
    )


def open_sealed(key: bytes, sealed: bytes, aad: Sequence[bytes]) -> bytes:
    """Return the plaintext that was sealed with the same key and fields.

    Raises Sqs2pgError `sealed_body_damaged` if the key, the fields or any bit differ, and
    `sealed_body_format` for a format that this version does not know.
    """
    return SealingKey(key).open(sealed, associated(aad))


def associated(fields: Sequence[bytes]) -> bytes:
    """Return the fields as one byte string, each after its length (4 bytes, big-endian).

    Raises OverflowError for a field of 4 GiB or more.
    """
    return b"".join(len(field).to_bytes(4, "big") + field for field in fields)


def encrypt(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
    """Return XAES-256-GCM's ciphertext and tag. `key` 32 bytes, `nonce` 24, never used twice."""
    return SealingKey(key).encrypt(nonce, plaintext, aad)
