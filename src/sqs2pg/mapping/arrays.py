"""Arrays: a JSON array -> the text of a PostgreSQL array.

Each element is read and converted as a field of the element's type would be; null becomes NULL.
An element that is an array itself is a fault: PostgreSQL's arrays of arrays must be rectangular,
and JSON's need not be.

The quoting is that of PostgreSQL's own output (documentation, chapter 8.15.6), so the text is the
one that a SELECT shows. COPY's escapes come after it. No I/O here.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from sqs2pg.errors import PermanentFault, Stage
from sqs2pg.mapping import json_slices
from sqs2pg.mapping.json_slices import UNREADABLE, Slice, raw_text

NULL = "NULL"
"""An element without a value. The text of these four letters is quoted."""
BRACKETS = "[]"
"""What the name of an array type ends in, after the name of its elements' type."""

Element = Callable[[str], str | None]
"""From the text of an element that is not null to the element's own text; None for NULL."""

_NORMALIZERS: dict[str, Callable[[str], str]] = {
    "string": json_slices.string,
    "number": json_slices.number,
    "boolean": json_slices.boolean,
    "number_text": json_slices.number_or_string,
    "boolean_text": json_slices.boolean_or_string,
    "scalar": json_slices.scalar_or_string,
}
# PostgreSQL's array_out: what it quotes besides the empty text and NULL.
_QUOTED = re.compile(r'["\\{}, \t\n\r\v\f]')
_ESCAPED = re.compile(r'(["\\])')


def array_converter(json_kind: str, element: Element) -> Callable[[str], str]:
    """Return the converter of JSON arrays with elements of a JSON kind.

    It raises PermanentFault: `nested_array`, `wrong_type` for an element of another kind or a text
    that is no JSON array, and what `element` raises.
    """
    normalize = _NORMALIZERS[json_kind]

    def convert(value: str) -> str:
        return "{" + ",".join([written(raw_text(raw)) for raw in _elements(value)]) + "}"

    def written(text: str) -> str:
        if text == "null":
            return NULL
        if text[0] == "[":
            raise PermanentFault("nested_array", stage=Stage.MASK)
        made = element(normalize(text))
        return NULL if made is None else quoted(made)

    return convert


def quoted(text: str) -> str:
    """Return an element's text as it stands in an array's."""
    if text and not _QUOTED.search(text) and text.upper() != NULL:
        return text
    return '"' + _ESCAPED.sub(r"\\\1", text) + '"'


def _elements(value: str) -> list[msgspec.Raw]:
    # A value of the body is valid JSON; the text of a message attribute may be anything.
    try:
        return Slice(value).elements()
    except UNREADABLE:
        pass
    raise PermanentFault("wrong_type")
