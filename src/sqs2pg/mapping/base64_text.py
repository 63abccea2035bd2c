"""Base64 in a text -> the text of a `bytea`. No I/O here."""

from __future__ import annotations

import re
from binascii import a2b_base64

from sqs2pg.errors import PermanentFault, Stage

PREFIX = r"\x"
"""What PostgreSQL's hexadecimal form of a `bytea` begins with."""

# RFC 4648, sections 4 and 5: whole groups of four, padded, of one alphabet; no line breaks.
_FORM = r"(?:[A-Za-z0-9{0}]{{4}})*(?:[A-Za-z0-9{0}]{{2}}==|[A-Za-z0-9{0}]{{3}}=)?\Z"
_STANDARD, _FOR_URLS = re.compile(_FORM.format("+/")), re.compile(_FORM.format("_-"))
_ALPHABETS = str.maketrans("-_", "+/")


def bytea(value: str) -> str:
    r"""Return base64 as `\x` and hexadecimal digits, as PostgreSQL's `bytea` takes it.

    The standard alphabet and the one for URLs, not both in one value, with padding. Raises
    PermanentFault `bad_base64`.
    """
    if _STANDARD.match(value):
        return PREFIX + a2b_base64(value).hex()
    if _FOR_URLS.match(value):
        return PREFIX + a2b_base64(value.translate(_ALPHABETS)).hex()
    raise PermanentFault("bad_base64", stage=Stage.MASK)


def characters(length: int) -> int:
    """Return how many characters so many bytes have in the text of a `bytea`."""
    return len(PREFIX) + 2 * length
