"""CSV with a header: each record becomes a JSON object, whose names are those of the header.

RFC 4180: fields are separated by commas, quoted by `"`, and may contain line feeds in quotes. The
types are the mapping's: a number or boolean is taken out of its text. An empty field is null. A
record that cannot be read goes to the quarantine as it stands, with its line in the file.

Bounded: one record in memory, LINE_BYTES_MAX at most. No I/O of its own.
"""

from __future__ import annotations

import csv
import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from sqs2pg.errors import PermanentFault
from sqs2pg.pipeline.archive_check import format_refusal
from sqs2pg.pipeline.archive_lines import LINE_BYTES_MAX, LineChunk, too_long

RECORDS_AT_ONCE = 2_000

# RFC 8259, section 6, and what people write beside it: a plus sign, zeros in front, no digit before
# or after the point.
_NUMBER = re.compile(r"([+-]?)0*(?=[0-9.])([0-9]*)(?:\.([0-9]*))?([eE][+-]?[0-9]+)?", re.ASCII)
_BOOLEANS = {"true": True, "false": False}

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
Convert = Callable[[str], Any]


def split_csv(pieces: Iterator[bytes], name: str, kinds: Mapping[str, str]) -> Iterator[LineChunk]:
    """Yield the records as JSON objects, by chunks.

    `kinds`: what the mapping takes from a column, `string`, `number`, `boolean`, `array` or `any`,
    by the names of the header; what it takes as text stays text, and all does where there is no
    mapping. Raises ArchiveRefused for a header that does not name every column once.
    """
    csv.field_size_limit(LINE_BYTES_MAX)
    source = _Physical(pieces, name)
    reader = csv.reader(source, strict=True)
    try:
        header = next(reader, None)
    except csv.Error:
        header = []
    if header is None:
        return
    converts = _converts(header, name, kinds)
    bodies: list[bytes] = []
    faults: dict[int, PermanentFault] = {}
    while True:
        source.begin()
        line = reader.line_num + 1
        fault = None
        row: list[str] | None = None
        try:
            row = next(reader, None)
        except csv.Error:
            fault = PermanentFault("csv_quotes", f"line {line}")
        if row is None and fault is None:
            break
        if row == []:
            continue  # an empty line
        if row is not None and len(row) != len(header):
            fault = PermanentFault(
                "csv_fields", f"line {line} has {len(row)} fields, the header {len(header)}"
            )
        body = None if row is None or fault else _document(header, row, converts)
        if body is None:
            faults[len(bodies)] = fault or PermanentFault("bad_unicode", f"line {line}")
        bodies.append(source.taken() if body is None else body)
        if len(bodies) == RECORDS_AT_ONCE:
            yield LineChunk(bodies, None, faults)
            bodies, faults = [], {}
    if bodies:
        yield LineChunk(bodies, None, faults)


class _Physical(Iterator[str]):
    """The lines of a file with their ends, as the csv module takes them; notes a record's lines."""

    def __init__(self, pieces: Iterator[bytes], name: str) -> None:
        self._lines = _lines(pieces, name)
        self._name = name
        self._taken: list[bytes] = []
        self._size = 0

    def begin(self) -> None:
        """Begin a record."""
        self._taken.clear()
        self._size = 0

    def taken(self) -> bytes:
        """Return the lines of the record as they stand."""
        return b"".join(self._taken).strip(b"\r\n")

    def __next__(self) -> str:
        line = next(self._lines)
        self._taken.append(line)
        self._size += len(line)
        if self._size > LINE_BYTES_MAX:
            raise too_long(self._name)
        return line.decode("utf-8", "surrogateescape")


def _lines(pieces: Iterator[bytes], name: str) -> Iterator[bytes]:
    rest = b""
    mark = BOM_UTF8
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        if len(rest) > LINE_BYTES_MAX:
            raise too_long(name)
        for line in whole:
            yield line.removeprefix(mark) + b"\n"
            mark = b""
    if rest:
        yield rest.removeprefix(mark)


def _converts(
    header: Sequence[str], name: str, kinds: Mapping[str, str]
) -> list[tuple[int, Convert]]:
    """Return how to convert the columns that are no text. Raises ArchiveRefused."""
    nameless = [number for number, one in enumerate(header, 1) if not one.strip()]
    if nameless or not header:
        where = f"column {nameless[0]} of its header has" if nameless else "it has"
        raise format_refusal(
            f"{name}: {where} no name, and a CSV file needs a header that names every column",
            "write the names of the columns into the first line, separated by commas",
        )
    for number, one in enumerate(header):
        if (first := header.index(one)) != number:
            raise format_refusal(
                f"{name}: columns {first + 1} and {number + 1} of its header have one name",
                "give each column a name of its own in the first line",
            )
    if kinds and not kinds.keys() & set(header):
        raise format_refusal(
            f"{name}: no column of its header is a `source` of the mapping",
            "write the names of the sources into the first line, separated by commas (RFC 4180)",
        )
    found = ((index, _CONVERTS.get(kinds.get(one, ""))) for index, one in enumerate(header))
    return [(index, convert) for index, convert in found if convert is not None]


def _document(
    header: Sequence[str], row: list[str], converts: Sequence[tuple[int, Convert]]
) -> bytes | None:
    """Return a record as a JSON object; None where it is not UTF-8."""
    values: list[Any] = [one or None for one in row]
    for index, convert in converts:
        if row[index]:
            values[index] = convert(row[index])
    try:
        return _encode(dict(zip(header, values, strict=True)))
    except UnicodeError:
        return None


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
