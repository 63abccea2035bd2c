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
from itertools import chain, repeat
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from sqs2pg.errors import PermanentFault, Sqs2pgError
from sqs2pg.mapping.ledger_key import AHEAD_S
from sqs2pg.mapping.text_lines import TextLines
from sqs2pg.native import extension

LINE_BYTES_MAX = 256 * 2**20
"""The longest line: Firehose makes objects of up to 128 MiB, which may be one line."""

NO_FAULTS: Mapping[int, PermanentFault] = MappingProxyType({})

_EXPORTED = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?)Z[ \t](?=\s*[{\[])")
_SUBSCRIPTION = re.compile(rb'"messageType"\s*+:\s*+"(?:DATA|CONTROL)_MESSAGE"')
GLUED = re.compile(rb"\}[ \t]*\{")
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


def split_lines(
    pieces: Iterator[bytes], name: str, *, opens_batches: bool = True
) -> Iterator[LineChunk]:
    """Yield the records of an archive's content, by chunks. Raises Sqs2pgError `archive_line`.

    Usual lines are passed on as they are, white space around them included. `opens_batches`: the
    events of a subscription's batch are records, else the batch is one.
    """
    native = extension()

    def usual_lines(raw: bytes) -> Sequence[bytes] | None:
        if native is None:
            return split_usual_lines(raw)
        count = native.count_usual_lines(raw)
        return TextLines(raw, count, native.line_starts) if count else None

    for raw in _without_mark(_whole_lines(pieces, name)):
        if bodies := usual_lines(raw):
            yield LineChunk(bodies, size=len(raw))
        else:
            chunk = chunk_of(odd_lines(raw, opens_batches=opens_batches))
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
    glued = raw.count(b"}") != ends and GLUED.search(raw)
    return not glued and b'"messageType"' not in raw


def odd_lines(raw: bytes, *, opens_batches: bool = True) -> Iterator[Line]:
    """Yield the records of whole lines of any form."""
    for physical in raw.split(b"\n"):
        line = physical.strip()
        if not line:
            continue
        for one in _documents(line):
            if opens_batches:
                yield from lines_of(*one)
            else:
                yield one


def lines_in(chunks: Iterable[LineChunk]) -> Iterator[Line]:
    """Yield the records of chunks one by one."""
    for chunk in chunks:
        times = repeat(None) if chunk.times is None else chunk.times
        for body, sent_ms in zip(chunk.bodies, times, strict=False):
            yield Line(body, sent_ms)


def physical_lines(pieces: Iterator[bytes], name: str) -> Iterator[Line]:
    """Yield the lines of text of any form, without feeds. Raises Sqs2pgError `archive_line`."""
    for raw in _without_mark(_whole_lines(pieces, name)):
        for line in raw.removesuffix(b"\n").split(b"\n"):
            yield Line(line, None)


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
            yield b"".join([*rest, memoryview(piece)[:end]])
            rest, size = [], 0
        if end < len(piece):
            rest.append(piece[end:])
            size += len(piece) - end
    if rest:
        yield b"".join(rest)


def too_long(name: str, unit: str = "line") -> Sqs2pgError:
    """Return the fault of an archive with a record that is too long. `unit`: what it is."""
    return Sqs2pgError(
        f"{name} has a {unit} of more than {LINE_BYTES_MAX // 2**20} MiB, which is one message",
        code="archive_line",
        hint="give one JSON document on each line, or an array of documents: each of them is held "
        "in memory",
    )


def document_too_long(name: str, bytes_max: int) -> Sqs2pgError:
    """Return the fault of an archive with a document of more bytes than the settings allow."""
    return Sqs2pgError(
        f"{name} has a document of more than {bytes_max:,} bytes, which is one message",
        code="archive_line",
        hint="each document is held in memory: split it, or raise envelope.s3_bytes_max",
    )


def _documents(line: bytes) -> Iterator[Line]:
    """Yield the documents of a line, and the time that an export put in front."""
    if line[:1] != b"{":
        if (exported := _EXPORTED.match(line)) and (stamp := _time(exported[1])):
            yield Line(line[exported.end() :], _bounded(round(stamp.timestamp() * 1000)))
        else:
            yield Line(line, None)
    elif GLUED.search(line):
        yield from (Line(document, None) for document in _split(line))
    else:
        yield Line(line, None)


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


def lines_of(document: bytes, sent_ms: int | None = None) -> Iterator[Line]:
    """Yield the events of a document that is a batch of a subscription, else the document.

    A batch's control messages are no events. An event has its own time.
    """
    if document[:1] != b"{" or not _SUBSCRIPTION.search(document):
        yield Line(document, sent_ms)
        return
    found = [Line(document, sent_ms)]  # the decoder will say what is wrong with it
    try:
        batch = msgspec.json.decode(document)
        if batch["messageType"] == "CONTROL_MESSAGE":
            found = []
        elif batch["messageType"] == "DATA_MESSAGE":
            found = [
                Line(event["message"].encode(), _bounded(int(event["timestamp"])))
                for event in batch["logEvents"]
            ]
    except _NO_BATCH:
        pass
    yield from found


def is_batch(head: bytes) -> bool:
    """Whether content that begins so is a batch of a subscription, or several."""
    text = head.removeprefix(BOM_UTF8).lstrip()
    return text[:1] == b"{" and _SUBSCRIPTION.search(text) is not None and b'"logEvents"' in text


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
