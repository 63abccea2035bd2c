"""Canonical forms: the bytes that all spellings of one value share, by the field's kind.

Frozen, with its known answers in tests/vectors/: a change would give every known value a second
token. Raises PermanentFault with a code; neither the fault nor its context holds the value, which
is why faults here are raised outside the `except` blocks that notice them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from socket import AF_INET, AF_INET6, inet_pton

from sqs2pg.errors import PermanentFault, Stage

Canonical = Callable[[str], bytes]

MARKS_MAX = 30
"""Longest run of combining characters in a text: Unicode Standard Annex #15, Stream-Safe Text
Format. Normalizing takes time in the square of the run's length: 80,000 marks, a small message,
took 13 s."""

_IPV4_MAPPED = bytes(10) + b"\xff\xff"  # RFC 4291, section 2.5.5.2


def ip(value: str) -> bytes:
    """Return an address as the 4 or 16 bytes of `inet_pton`; IPv4-mapped IPv6 as IPv4's 4.

    POSIX's `inet_pton` takes dotted decimal with four parts and no leading zeros, and the text
    forms of RFC 4291; no spaces, no zone, no port. Raises PermanentFault `bad_ip`.
    """
    try:
        if ":" not in value:
            return inet_pton(AF_INET, value)
        if "%" not in value:  # some systems take a zone (RFC 4007), which names no other host
            address = inet_pton(AF_INET6, value)
            return address[12:] if address.startswith(_IPV4_MAPPED) else address
    except (OSError, ValueError):  # ValueError: a NUL or a lone surrogate
        pass
    raise PermanentFault("bad_ip", stage=Stage.MASK)


def text(value: str) -> bytes:
    """Return any text, the empty one too, as UTF-8 of its Normalization Form C.

    Raises PermanentFault `bad_unicode` for a lone surrogate, `too_many_marks` for more than
    MARKS_MAX combining characters in a row.
    """
    if value.isascii():  # is in every normal form; Python knows without looking
        return value.encode()
    if len(value) > MARKS_MAX:
        _bound_marks(value)
    try:
        return unicodedata.normalize("NFC", value).encode()
    except UnicodeEncodeError:
        pass
    raise PermanentFault("bad_unicode", stage=Stage.MASK)


def _bound_marks(value: str) -> None:
    if not any(map(unicodedata.combining, value)):
        return
    run = 0
    for combining_class in map(unicodedata.combining, value):
        run = run + 1 if combining_class else 0
        if run > MARKS_MAX:
            raise PermanentFault("too_many_marks", stage=Stage.MASK)


CANONICAL: dict[str, Canonical] = {"ip": ip, "text": text}
"""By the `kind` of a field."""
