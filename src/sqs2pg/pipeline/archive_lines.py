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
from collections.abc import Iterator
from datetime import datetime
from itertools import chain
from typing import NamedTuple

import msgspec

from sqs2pg.errors import Sqs2pgError

AHEAD_S = 7 * 86_400.0
"""How far in the future a line's time may be: clocks differ, and the ledger has days ahead."""
LINE_BYTES_MAX = 256 * 2**20
"""The longest line: Firehose makes objects of up to 128 MiB, which may be one line."""

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


def split_lines(pieces: Iterator[bytes], name: str) -> Iterator[Line]:
    """Yield the records of an archive's content. Raises Sqs2pgError `archive_line`."""
    raws = _physical(pieces, name)
    for raw in chain([next(raws, b"").removeprefix(BOM_UTF8)], raws):
        line = raw.strip()
        if line[:1] == b"{" and not _GLUED.search(line) and not _SUBSCRIPTION.match(line):
            yield Line(line, None)  # the usual case
        elif line:
            yield from _records(line)


def _physical(pieces: Iterator[bytes], name: str) -> Iterator[bytes]:
    """Yield lines without their line feeds."""
    rest: list[bytes] = []
    size = 0
    for piece in pieces:
        head, feed, tail = piece.partition(b"\n")
        rest.append(head)
        size += len(head)
        if size > LINE_BYTES_MAX:
            raise Sqs2pgError(
                f"{name} has a line of more than {LINE_BYTES_MAX // 2**20} MiB",
                code="archive_line",
                hint="is it JSON lines?",
            )
        if not feed:
            continue
        yield b"".join(rest)
        *whole, last = tail.split(b"\n")
        yield from whole
        rest, size = [last], len(last)
    yield b"".join(rest)


def _records(line: bytes) -> Iterator[Line]:
    if (exported := _EXPORTED.match(line)) and (stamp := _time(exported[1])):
        sent_ms = _bounded(round(stamp.timestamp() * 1000))
        yield Line(line[exported.end() :], sent_ms)
    elif _GLUED.search(line):
        for document in _split(line):
            yield from _of_subscription(document)
    else:
        yield from _of_subscription(line)


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


def _of_subscription(line: bytes) -> Iterator[Line]:
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
