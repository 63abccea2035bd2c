"""Canonical forms: the bytes that all spellings of one value share, by the field's kind.

They are frozen, with known answers in tests/vectors/: a change would give known values a second
token. They raise PermanentFault with a code. Neither the fault nor its context has the value, which
is why faults are raised here after the `except` block, not in it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton

from sqs2pg.errors import PermanentFault, Stage

Canonical = Callable[[str], bytes]

MARKS_MAX = 30
"""Longest run of combining characters in a text: Unicode Standard Annex #15, Stream-Safe Text
Format. The time to normalize grows with the square of the run's length: 80,000 marks, which is a
small message, took 13 s."""

EMAIL_LOCAL_BYTES_MAX = 64
"""RFC 5321, section 4.5.3.1.1."""
EMAIL_DOMAIN_BYTES_MAX = 255
"""RFC 5321, section 4.5.3.1.2."""
PHONE_DIGITS_MAX = 15
"""ITU-T E.164, section 6."""

_IPV4_MAPPED = bytes(10) + b"\xff\xff"  # RFC 4291, section 2.5.5.2


def ip(value: str) -> bytes:
    """Return an address as the 4 or 16 bytes of `inet_pton`; IPv4-mapped IPv6 as IPv4's 4.

    POSIX's `inet_pton` takes dotted decimal with four parts and no leading zeros, and the text
    forms of RFC 4291; no spaces, no zone, no port. Raises PermanentFault `bad_ip`.
    """
    try:
        if ":" not in value:
            return inet_pton(AF_INET, value)
        if "%" not in value:  # some systems accept a zone (RFC 4007); it names no other host
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
    if value.isascii():  # ASCII is in every normal form, and the test costs nothing
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


def email(value: str) -> bytes:
    """Return an address as UTF-8 of NFC of its case-folded form: in practice mail ignores case.

    The part before the last `@` has 1 to 64 bytes, the part after it 1 to 255; neither has spaces
    or control characters. Dots and `+` tags stay: each provider has its own rules for them. Raises
    PermanentFault `bad_email`, and what `text` raises.
    """
    if value.isascii():
        form = value.lower()
    else:
        text(value)  # limits the marks, and refuses lone surrogates
        # Unicode Standard, definition D145, then composed: NFD first, for folding U+0345.
        folded = unicodedata.normalize("NFD", value).casefold()
        form = unicodedata.normalize("NFC", folded)
    local, at, domain = form.rpartition("@")
    if (
        not at
        or not 1 <= len(local.encode()) <= EMAIL_LOCAL_BYTES_MAX
        or not 1 <= len(domain.encode()) <= EMAIL_DOMAIN_BYTES_MAX
        or not form.isprintable()
        or any(map(str.isspace, form))
    ):
        raise PermanentFault("bad_email", stage=Stage.MASK)
    return form.encode()


_PHONE = re.compile(r"\+?[0-9 \-./()\u00a0]+\Z")
_NO_DIGIT = re.compile(r"[^0-9]+")


def phone(value: str) -> bytes:
    """Return a number as its ASCII digits, 1 to 15, leading zeros kept.

    A leading `+`, spaces, no-break spaces and `-./()` are left out. Country codes are not
    interpreted, so `+49 30 1` and `0049 30 1` stay two numbers. Raises PermanentFault `bad_phone`.
    """
    if _PHONE.match(value):
        digits = _NO_DIGIT.sub("", value)
        if 1 <= len(digits) <= PHONE_DIGITS_MAX:
            return digits.encode()
    raise PermanentFault("bad_phone", stage=Stage.MASK)


_UUID = re.compile(
    r"(?:urn:uuid:)?(?:([0-9a-f]{8})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{12})"
    r"|([0-9a-f]{32}))\Z",
    re.ASCII | re.IGNORECASE,
)


def uuid(value: str) -> bytes:
    """Return a UUID (RFC 9562, section 4) as its 16 bytes, whatever its version.

    With hyphens or without, in either case, in braces, or as `urn:uuid:`. Raises PermanentFault
    `bad_uuid`.
    """
    bare = value[1:-1] if value[:1] == "{" and value[-1:] == "}" else value
    if match := _UUID.match(bare):
        return bytes.fromhex("".join(filter(None, match.groups())))
    raise PermanentFault("bad_uuid", stage=Stage.MASK)


IP_OR_TEXT = "ip_or_text"
"""The kind of a field with `kind = "ip"` and `otherwise = "text"`."""
_NO_TEXT = b"\xff"  # in no UTF-8


def ip_or_text(value: str) -> bytes:
    """Return an address as `ip` does; any other text as `text` does.

    A text of 4 or 16 bytes gets one more, so that it is no address's form. Raises what `text`
    raises.
    """
    try:
        return ip(value)
    except PermanentFault:
        pass
    form = text(value)
    return form + _NO_TEXT if len(form) in (4, 16) else form


CANONICAL: dict[str, Canonical] = {
    "email": email,
    "ip": ip,
    IP_OR_TEXT: ip_or_text,
    "phone": phone,
    "text": text,
    "uuid": uuid,
}
"""By the `kind` of a field."""


def shown(kind: str, canonical: bytes) -> str:
    """Return canonical bytes as text: RFC 5952's address, a UUID with hyphens, the text itself."""
    if kind == "ip" or (kind == IP_OR_TEXT and len(canonical) in (4, 16)):
        return inet_ntop(AF_INET if len(canonical) == 4 else AF_INET6, canonical)
    if kind == "uuid":
        digits = canonical.hex()
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
    return canonical.removesuffix(_NO_TEXT).decode()
