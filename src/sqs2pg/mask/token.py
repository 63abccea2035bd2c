"""Armour: what the encrypting operators share: padding, and ciphertext as a token of plain ASCII.

    token   = letter, version, "_", base64url without padding (RFC 4648, section 5)
    padded  = value, 0x80, as few zero bytes as make a multiple of 32 (ISO/IEC 9797-1, method 2)

Padding keeps the value's length out of the token's: values of up to 31 bytes all look alike.
"""

from __future__ import annotations

import base64
import re
import unicodedata

from sqs2pg.errors import PermanentFault, Sqs2pgError, Stage

BLOCK_BYTES = 32
VALUE_BYTES = 2 * BLOCK_BYTES
"""What a column must have room for, padded: text of up to 63 bytes, and an address or UUID in its
longest spelling, 45."""

_TOKEN = re.compile(r"([a-z])([1-9][0-9]{0,3})_([A-Za-z0-9_-]+)\Z")


def pad(value: bytes) -> bytes:
    """Return the value padded to a multiple of 32 bytes; it grows by 1 to 32."""
    return value + b"\x80" + bytes(-(len(value) + 1) % BLOCK_BYTES)


def unpad(padded: bytes) -> bytes:
    """Return what `pad` was given. Raises Sqs2pgError `mask_damaged` for anything else."""
    value, mark, zeros = padded.rpartition(b"\x80")
    if not mark or zeros.strip(b"\0"):
        raise damaged()
    return value


def armour(letter: str, version: int, ciphertext: bytes) -> str:
    """Return a ciphertext as a token that names its operator and its root's version."""
    return f"{letter}{version}_{base64.urlsafe_b64encode(ciphertext).rstrip(b'=').decode()}"


def unarmour(token: str) -> tuple[str, int, bytes]:
    """Return a token's letter, version and ciphertext. Raises Sqs2pgError `not_a_mask`."""
    if match := _TOKEN.match(token):
        text = match[3]
        data = (
            base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)) if len(text) % 4 != 1 else b""
        )
        if data and armour(match[1], int(match[2]), data) == token:
            return match[1], int(match[2]), data
    raise Sqs2pgError(
        "this is not a token of an encrypting mask",
        code="not_a_mask",
        hint="such tokens begin with e or d, a version and an underscore; fpe_ff1's are "
        "opened by naming the operator",
    )


def token_length(ciphertext_bytes: int, version_digits: int = 4) -> int:
    """Return the characters of a token, its version at its longest unless told."""
    return 2 + version_digits + -(-ciphertext_bytes * 4 // 3)


def domain_bytes(domain: str) -> bytes:
    """Return a domain as it enters keys and associated data: NFC UTF-8."""
    return unicodedata.normalize("NFC", domain).encode()


def utf8(value: str) -> bytes:
    """Return a value's UTF-8. Raises PermanentFault `bad_unicode` for a lone surrogate."""
    try:
        return value.encode()
    except UnicodeEncodeError:
        pass  # its context would hold the value
    raise PermanentFault("bad_unicode", stage=Stage.MASK)


def damaged() -> Sqs2pgError:
    """Return the error of a token that the key does not open."""
    return Sqs2pgError(
        "the token does not open: it was changed, or belongs to another field or key",
        code="mask_damaged",
        hint="give domain and kind of the field it stands in; `sqs2pg keys list` shows the keys",
    )
