"""Space-separated text: each line becomes a JSON object (VPC flow logs, access logs of an ALB).

Fields are separated by white space. Quotes around a field let it contain some: it ends at a quote
that white space follows, and `\\"` in it is a quote. The columns are those that the settings name,
else those of the first line. A field that is `-` is null.

A column `ip:port` makes two of one field, divided at its last colon, and takes the brackets off an
IPv6 address. AWS adds fields at the end of a line: those past the declared columns are left out.

A line that cannot be read goes to the quarantine as it stands, with its number in the file.
Bounded: one line in memory, LINE_BYTES_MAX at most. No I/O of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from sqs2pg.errors import PermanentFault
from sqs2pg.pipeline.archive_columns import Columns
from sqs2pg.pipeline.archive_lines import Line, LineChunk

RECORDS_AT_ONCE = 2_000
NULL = "-"
_SPACE = " \t\r\n"

# Only spaces and tabs separate: other white space is part of a field.
_FIELD = re.compile(
    r'[ \t]*+(?:"((?:[^"\\]++|\\.|"(?=[^ \t]))*+)"(?![^ \t])|([^ \t"][^ \t]*+))', re.DOTALL
)
_ESCAPED = re.compile(r'\\(["\\])')


def split_space(
    lines: Iterable[Line], name: str, kinds: Mapping[str, str], columns: Sequence[str] = ()
) -> Iterator[LineChunk]:
    """Yield the lines as JSON objects, by chunks, each with its time; empty lines are left out.

    `kinds`: as for `Columns`. `columns`: their names, in order; without any the first line has
    them. Raises ArchiveRefused as `Columns`.
    """
    layout = _Layout(columns, name, kinds, declared=True) if columns else None
    chunk = _Chunk()
    for number, (line, sent_ms) in enumerate(lines, 1):
        fields = fields_of(line.decode("utf-8", "surrogateescape"))
        if fields == []:
            continue
        if layout is None:
            layout = _Layout(fields or (), name, kinds, declared=False)
            continue
        chunk.add(line, sent_ms, layout.document(fields, f"line {number}"))
        if len(chunk.bodies) == RECORDS_AT_ONCE:
            yield chunk.taken()
            chunk = _Chunk()
    if chunk.bodies:
        yield chunk.taken()


def fields_of(line: str) -> list[str] | None:
    """Return the fields of a line, quotes taken off; None where a quote does not end."""
    line = line.strip(_SPACE)
    if '"' not in line:
        return [one for one in line.replace("\t", " ").split(" ") if one]
    fields: list[str] = []
    at = 0
    while at < len(line):
        field = _FIELD.match(line, at)
        if field is None:
            return None
        quoted = field[1]
        fields.append(field[2] if quoted is None else _ESCAPED.sub(r"\1", quoted))
        at = field.end()
    return fields


class _Chunk:
    """Records on their way into a LineChunk."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self._times: list[int | None] = []
        self._faults: dict[int, PermanentFault] = {}

    def add(self, line: bytes, sent_ms: int | None, made: bytes | PermanentFault) -> None:
        """Add what a line became: a document, or why it is none."""
        if isinstance(made, PermanentFault):
            self._faults[len(self.bodies)] = made
            made = line.strip()
        self.bodies.append(made)
        self._times.append(sent_ms)

    def taken(self) -> LineChunk:
        has_times = any(one is not None for one in self._times)
        return LineChunk(self.bodies, self._times if has_times else None, self._faults)


class _Layout:
    """Which field of a line goes to which column."""

    def __init__(
        self, fields: Sequence[str], name: str, kinds: Mapping[str, str], *, declared: bool
    ) -> None:
        self._count = len(fields)
        self._declared = declared
        self._pairs = [at for at, one in enumerate(fields) if declared and ":" in one]
        names = [part for one in fields for part in (one.split(":", 1) if declared else [one])]
        self._columns = Columns(names, name, kinds, declared=declared)

    def document(self, fields: list[str] | None, where: str) -> bytes | PermanentFault:
        """Return a line's fields as a JSON object, or what is wrong; `where` names the line."""
        if fields is None:
            return PermanentFault("space_quotes", where)
        if len(fields) < self._count or (len(fields) > self._count and not self._declared):
            return PermanentFault(
                "space_fields", f"{where} has {len(fields)} fields, and {self._count} are named"
            )
        row: list[str | None] = [None if one == NULL else one for one in fields[: self._count]]
        for at in reversed(self._pairs):
            row[at : at + 1] = _pair(row[at])
        body = self._columns.document(row)
        return PermanentFault("bad_unicode", where) if body is None else body


def _pair(field: str | None) -> tuple[str | None, str | None]:
    """Return address and port; a field without a port is an address alone."""
    if field is None:
        return None, None
    address, colon, port = field.rpartition(":")
    if not colon or field.endswith("]"):
        address, port = field, ""
    return address.removeprefix("[").removesuffix("]"), port
