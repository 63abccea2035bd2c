"""CSV: each record becomes a JSON object, whose names are those of the header or of the settings.

RFC 4180: fields are separated by commas, quoted by `"`, and may contain line feeds in quotes. The
types are the mapping's: a number or boolean is taken out of its text. An empty field is null. A
record that cannot be read goes to the quarantine as it stands, with its line in the file.

Bounded: one record in memory, LINE_BYTES_MAX at most. No I/O of its own.
"""

from __future__ import annotations

import csv
from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping, Sequence

from sqs2pg.errors import PermanentFault
from sqs2pg.pipeline.archive_columns import Columns
from sqs2pg.pipeline.archive_lines import LINE_BYTES_MAX, LineChunk, too_long

RECORDS_AT_ONCE = 2_000


def split_csv(
    pieces: Iterator[bytes], name: str, kinds: Mapping[str, str], declared: Sequence[str] = ()
) -> Iterator[LineChunk]:
    """Yield the records as JSON objects, by chunks.

    `kinds`: as for `Columns`. `declared`: the names of the columns of a file without a header.
    Raises ArchiveRefused for a header that does not name every column once.
    """
    csv.field_size_limit(LINE_BYTES_MAX)
    source = _Physical(pieces, name)
    reader = csv.reader(source, strict=True)
    header: Sequence[str] | None = declared
    if not declared:
        try:
            header = next(reader, None)
        except csv.Error:
            header = []
    if header is None:
        return
    columns = Columns(header, name, kinds, declared=bool(declared))
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
            named = f"{len(header)} are named" if declared else f"the header {len(header)}"
            fault = PermanentFault("csv_fields", f"line {line} has {len(row)} fields, {named}")
        body = None if row is None or fault else columns.document(row)
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
            raise too_long(self._name, "record")
        return line.decode("utf-8", "surrogateescape")


def _lines(pieces: Iterator[bytes], name: str) -> Iterator[bytes]:
    rest = b""
    mark = BOM_UTF8
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        if len(rest) > LINE_BYTES_MAX:
            raise too_long(name, "record")
        for line in whole:
            yield line.removeprefix(mark) + b"\n"
            mark = b""
    if rest:
        yield rest.removeprefix(mark)
