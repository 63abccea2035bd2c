"""Columns of text: a record of CSV or of space-separated text becomes a JSON object.

The types are the mapping's: a number or boolean is taken out of its text, and text that does not
fit stays text. No I/O here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from sqs2pg.pipeline.archive_check import format_refusal

# RFC 8259, section 6, and what people write beside it: a plus sign, zeros in front, no digit before
# or after the point.
_NUMBER = re.compile(r"([+-]?)0*(?=[0-9.])([0-9]*)(?:\.([0-9]*))?([eE][+-]?[0-9]+)?", re.ASCII)
_BOOLEANS = {"true": True, "false": False}

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
Convert = Callable[[str], Any]


class Columns:
    """The names of a file's columns, and what the mapping takes from each."""

    def __init__(
        self,
        names: Sequence[str],
        file: str,
        kinds: Mapping[str, str],
        *,
        declared: bool = False,
    ) -> None:
        """`kinds`: what the mapping takes from a column, `string`, `number`, `boolean`, `array` or
        `any`, by its name; what it takes as text stays text, and all does where there is no
        mapping. `declared`: the names are those of `archive.columns`, else of the file's first
        line.

        Raises ArchiveRefused where the names do not name every column once, or none is a source.
        """
        _check(names, file, kinds, declared=declared)
        self.names = names
        found = ((index, _CONVERTS.get(kinds.get(one, ""))) for index, one in enumerate(names))
        self._converts = [(index, convert) for index, convert in found if convert is not None]

    def document(self, row: Sequence[str | None]) -> bytes | None:
        """Return a record with a field for each column as a JSON object; None where it is not
        UTF-8. An empty field is null.
        """
        values: list[Any] = [one or None for one in row]
        for index, convert in self._converts:
            if text := row[index]:
                values[index] = convert(text)
        try:
            return _encode(dict(zip(self.names, values, strict=True)))
        except UnicodeError:
            return None


def _check(names: Sequence[str], file: str, kinds: Mapping[str, str], *, declared: bool) -> None:
    origin = "archive.columns" if declared else "its header"
    remedy = "correct archive.columns" if declared else "correct the first line"
    if not names:
        raise format_refusal(
            f"{file}: its first line names no column",
            "write the names of the columns into the first line, or set archive.columns",
        )
    nameless = [number for number, one in enumerate(names, 1) if not one.strip()]
    if nameless:
        raise format_refusal(
            f"{file}: column {nameless[0]} of {origin} has no name, and every column needs one",
            f"{remedy}: it names every column; or set archive.columns",
        )
    first: dict[str, int] = {}
    for number, one in enumerate(names, 1):
        if first.setdefault(one, number) != number:
            raise format_refusal(
                f"{file}: columns {first[one]} and {number} of {origin} have one name",
                f"{remedy}: each column has a name of its own",
            )
    if kinds and not kinds.keys() & set(names):
        raise format_refusal(
            f"{file}: no column of {origin} is a `source` of the mapping",
            f"{remedy}: write the names of the sources there",
        )


def _number(text: str) -> Any:
    """Return a number as JSON writes it, digit by digit; other text as it is."""
    found = _NUMBER.fullmatch(text.strip())
    if found is None or not (found[2] or found[3]):
        return text
    sign = "-" if found[1] == "-" else ""
    fraction = f".{found[3]}" if found[3] else ""
    return msgspec.Raw(f"{sign}{found[2] or 0}{fraction}{found[4] or ''}".encode())


def _boolean(text: str) -> Any:
    return _BOOLEANS.get(text.strip().lower(), text)


def _json(text: str) -> Any:
    """Return text that is JSON as it is; other text as a string."""
    try:
        _decode(text)
        return msgspec.Raw(text.encode())
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return text


_CONVERTS: Mapping[str, Convert] = {
    "number": _number,
    "boolean": _boolean,
    "any": _json,
    "array": _json,
}
