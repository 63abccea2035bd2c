"""HMAC-SHA256 under one key for many messages: the key is absorbed once. Pure.

Measured on a short message: 1.0 us by the states below, where copying an `hmac.new()` took 1.7 and
`hmac.digest`, which sets the key up again at every call, 2.7.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _hashlib import HASH

_BLOCK_BYTES = 64  # of SHA-256 (FIPS 180-4)
_INNER_PAD = bytes(byte ^ 0x36 for byte in range(256))  # RFC 2104, section 2
_OUTER_PAD = bytes(byte ^ 0x5C for byte in range(256))


def hmac_states(key: bytes) -> tuple[HASH, HASH]:
    """Return the inner and outer SHA-256 states of HMAC (RFC 2104) with the key absorbed.

    HMAC of a message: copy the inner one, update it with the message, copy the outer one, update
    it with the inner digest; the outer digest is the result. `mask/pseudonymize.py` does so itself:
    it saves the call of `KeyedHash` for each value.
    """
    if len(key) > _BLOCK_BYTES:
        key = hashlib.sha256(key).digest()
    block = key.ljust(_BLOCK_BYTES, b"\0")
    inner = hashlib.sha256(block.translate(_INNER_PAD))
    outer = hashlib.sha256(block.translate(_OUTER_PAD))
    return inner, outer


class KeyedHash:
    """HMAC-SHA256 under one key. May be used from several threads at once."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        self._inner, self._outer = hmac_states(key)

    def hexdigest(self, message: bytes) -> str:
        """Return the code of `message`, 64 hexadecimal digits."""
        inner = self._inner.copy()
        inner.update(message)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.hexdigest()
