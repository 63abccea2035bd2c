"""Tokens of the encrypting operators: padding, and ciphertext as plain ASCII.

    token   = letter, version, "_", base64url without padding (RFC 4648, section 5)
    padded  = value, 0x80, as few zero bytes as make a multiple of 32 (ISO/IEC 9797-1, method 2)

Padding hides the value's length: tokens of values of up to 31 bytes all have the same length.
"""

from __future__ import annotations

import base64
import re
import unicodedata

from sqs2pg.errors import PermanentFault, Sqs2pgError, Stage

BLOCK_BYTES = 32
VALUE_BYTES = 2 * BLOCK_BYTES
"""The padded length that a column must have room for: text of up to 63 bytes, and an address or
UUID in its longest spelling, 45 bytes."""

_TOKEN = re.compile(r"([a-z])([1-9][0-9]{0,3})_([A-Za-z0-9_-]+)\Z")


def pad(value: bytes) -> bytes:
    """Return the value padded to a multiple of 32 bytes: 1 to 32 bytes more."""
    return value + b"\x80" + bytes(-(len(value) + 1) % BLOCK_BYTES)


def unpad(padded: bytes) -> bytes:
    """Return the value that `pad` padded. Raises Sqs2pgError `mask_damaged` for anything else."""
    value, mark, zeros = padded.rpartition(b"\x80")
    if not mark or zeros.strip(b"\0"):
        raise damaged()
    return value


def format_token(letter: str, version: int, ciphertext: bytes) -> str:
    """Return a ciphertext as a token that names its operator and its root's version."""
    return f"{letter}{version}_{base64.urlsafe_b64encode(ciphertext).rstrip(b'=').decode()}"


def parse_token(token: str) -> tuple[str, int, bytes]:
    """Return a token's letter, version and ciphertext. Raises Sqs2pgError `not_a_mask`."""
    if match := _TOKEN.match(token):
        text = match[3]
        data = (
            base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)) if len(text) % 4 != 1 else b""
        )
        if data and format_token(match[1], int(match[2]), data) == token:
            return match[1], int(match[2]), data
    raise Sqs2pgError(
        "this is not a token of an encrypting mask",
        code="not_a_mask",
        hint="such tokens begin with e or d, a version and an underscore; masks of fpe_ff1 are "
        "opened with open_fpe_ff1",
    )


def token_length(ciphertext_bytes: int, version_digits: int = 4) -> int:
    """Return the characters of a token; by default with the longest version."""
    return 2 + version_digits + -(-ciphertext_bytes * 4 // 3)


def domain_bytes(domain: str) -> bytes:
    """Return the bytes of a domain in keys and associated data: NFC UTF-8."""
    return unicodedata.normalize("NFC", domain).encode()


def utf8(value: str) -> bytes:
    """Return a value's UTF-8. Raises PermanentFault `bad_unicode` for a lone surrogate."""
    try:
        return value.encode()
    except UnicodeEncodeError:
        pass  # raised below, since its context would have the value
    raise PermanentFault("bad_unicode", stage=Stage.MASK)


def damaged() -> Sqs2pgError:
    """Return the error of a token that the key does not open."""
    return Sqs2pgError(
        "the token does not open: it was changed, or belongs to another field or key",
        code="mask_damaged",
        hint="give domain and kind of the token's field; `sqs2pg keys list` shows the keys",
    )
