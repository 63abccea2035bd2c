"""Lines: the content of an archive, cut into records, each with its time.

One JSON document per line; documents one after the other without line feeds (Firehose);
`2026-01-02T03:04:05.678Z {…}` lines (CloudWatch export); CloudWatch subscription envelopes
(`DATA_MESSAGE`), whose events become lines. A line that is no JSON is passed on; the decoder
refuses it. No I/O of its own.
"""

from __future__ import annotations

import re
import time
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from sqs2pg.errors import PermanentFault, Sqs2pgError
from sqs2pg.native import extension

AHEAD_S = 7 * 86_400.0
"""How far in the future a line's time may be: clocks differ, and the ledger has days ahead."""
LINE_BYTES_MAX = 256 * 2**20
"""The longest line: Firehose makes objects of up to 128 MiB, which may be one line."""

NO_FAULTS: Mapping[int, PermanentFault] = MappingProxyType({})

_EXPORTED = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?)Z[ \t](?=\s*[{\[])")
_SUBSCRIPTION = re.compile(rb'\s*\{\s*"messageType"\s*:\s*"(DATA|CONTROL)_MESSAGE"')
_GLUED = re.compile(rb"\}[ \t]*\{")
# What decides where a document ends: braces, and strings, which may contain braces.
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}]', re.DOTALL)


_NO_BATCH = (
    *(msgspec.DecodeError, UnicodeError, KeyError, TypeError, AttributeError, ValueError),
    *(OverflowError, RecursionError),
)
"""What a batch of a subscription raises that is not one."""


class Line(NamedTuple):
    """One record, as it was archived."""

    body: bytes
    sent_ms: int | None
    """When it was sent, in milliseconds since the epoch; None where the archive does not say."""

    def __repr__(self) -> str:
        return "Line(…)"


class LineChunk(NamedTuple):
    """Records that follow each other."""

    bodies: Sequence[bytes]
    times: Sequence[int | None] | None = None
    """As `Line.sent_ms` of each; None: no record says when it was sent."""
    faults: Mapping[int, PermanentFault] = NO_FAULTS
    """Why records are not read, by their places in `bodies`."""
    size: int = 0
    """Bytes of all bodies or a little more, where it is known; else 0."""

    def part(self, begin: int, end: int) -> LineChunk:
        """Return the records from `begin` on, up to `end`."""
        if begin == 0 and end == len(self.bodies):
            return self
        times = None if self.times is None else self.times[begin:end]
        faults = {at - begin: fault for at, fault in self.faults.items() if begin <= at < end}
        return LineChunk(self.bodies[begin:end], times, faults, self.size)

    def __repr__(self) -> str:
        return f"LineChunk({len(self.bodies)} lines)"


def split_lines(pieces: Iterator[bytes], name: str) -> Iterator[LineChunk]:
    """Yield the records of an archive's content, by chunks. Raises Sqs2pgError `archive_line`.

    Usual lines are passed on as they are, white space around them included.
    """
    native = extension()
    usual_lines = native.split_usual_lines if native else split_usual_lines
    for raw in _without_mark(_whole_lines(pieces, name)):
        if bodies := usual_lines(raw):
            yield LineChunk(bodies, size=len(raw))
        else:
            chunk = chunk_of(odd_lines(raw))
            if chunk.bodies:
                yield chunk


def chunk_of(lines: Iterable[Line]) -> LineChunk:
    """Return a chunk of single records."""
    found = list(lines)
    return LineChunk([body for body, _ in found], [sent_ms for _, sent_ms in found])


def _without_mark(raws: Iterator[bytes]) -> Iterator[bytes]:
    return chain([next(raws, b"").removeprefix(BOM_UTF8)], raws)


def split_usual_lines(raw: bytes) -> Sequence[bytes] | None:
    """Return whole lines where they are objects, one on each, without a time in front; else None.

    Some scans of all lines at once: a look at each would cost more than to decode it.
    """
    lines = raw.count(b"\n") + (not raw.endswith(b"\n"))
    objects = raw.count(b"\n{") + (raw[:1] == b"{")
    if lines != objects or not _is_plain(raw):
        return None
    return raw.removesuffix(b"\n").split(b"\n")


def _is_plain(raw: bytes) -> bool:
    # Flat objects: each brace that closes one ends a line, or all but the last one do.
    ends = raw.count(b"}\n") + raw.endswith(b"}")
    glued = raw.count(b"}") != ends and _GLUED.search(raw)
    return not glued and b'"messageType"' not in raw


def odd_lines(raw: bytes) -> Iterator[Line]:
    """Yield the records of whole lines of any form."""
    for physical in raw.split(b"\n"):
        line = physical.strip()
        if line[:1] == b"{" and not _GLUED.search(line) and not _SUBSCRIPTION.match(line):
            yield Line(line, None)
        elif line:
            yield from _records(line)


def _whole_lines(pieces: Iterator[bytes], name: str) -> Iterator[bytes]:
    """Yield the content in pieces that end with a line, its feed included; the last may have none.

    Raises Sqs2pgError `archive_line`.
    """
    rest: list[bytes] = []
    size = 0
    for piece in pieces:
        end = piece.rfind(b"\n") + 1
        first = piece.find(b"\n") + 1 if end else len(piece)
        if size + first > LINE_BYTES_MAX:
            raise too_long(name)
        if end:
            yield b"".join([*rest, piece[:end]])
            rest, size = [], 0
        if end < len(piece):
            rest.append(piece[end:])
            size += len(piece) - end
    if rest:
        yield b"".join(rest)


def too_long(name: str) -> Sqs2pgError:
    """Return the fault of an archive with a record that is too long."""
    return Sqs2pgError(
        f"{name} has a line of more than {LINE_BYTES_MAX // 2**20} MiB",
        code="archive_line",
        hint="is it JSON lines?",
    )


def _records(line: bytes) -> Iterator[Line]:
    if (exported := _EXPORTED.match(line)) and (stamp := _time(exported[1])):
        sent_ms = _bounded(round(stamp.timestamp() * 1000))
        yield Line(line[exported.end() :], sent_ms)
    elif line[:1] == b"{" and _GLUED.search(line):
        for document in _split(line):
            yield from lines_of(document)
    else:
        yield from lines_of(line)


def _time(stamp: bytes) -> datetime | None:
    """Return the time of an exported line; None where it is none, such as a thirteenth month."""
    try:
        return datetime.fromisoformat(stamp.decode()[:26] + "+00:00")
    except ValueError:
        return None


def _bounded(sent_ms: int) -> int | None:
    """Return milliseconds at which a line may have been sent; None for any other.

    Those of a later day than the ledger has would hold the whole archive.
    """
    return sent_ms if 0 <= sent_ms < (time.time() + AHEAD_S) * 1000 else None


def lines_of(line: bytes) -> Iterator[Line]:
    """Yield the events of a document that is a batch of a subscription, else the document."""
    kind = _SUBSCRIPTION.match(line)
    if kind is None:
        yield Line(line, None)
        return
    if kind[1] == b"CONTROL":
        return
    try:
        events = msgspec.json.decode(line)["logEvents"]
        found = [
            Line(event["message"].encode(), _bounded(int(event["timestamp"]))) for event in events
        ]
    except _NO_BATCH:
        found = [Line(line, None)]  # the decoder will say what is wrong with it
    yield from found


def _split(line: bytes) -> Iterator[bytes]:
    """Yield the documents of a line that has several, one after the other."""
    depth = start = 0
    for token in _TOKEN.finditer(line):
        if token[0] == b"{":
            depth += 1
        elif token[0] == b"}":
            depth -= 1
            if depth == 0:
                yield line[start : token.end()].strip()
                start = token.end()
    if rest := line[start:].strip():
        yield rest
