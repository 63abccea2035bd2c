"""Batches of an archive: its chunks of lines, cut to the size of a transaction, read ahead.

A thread reads, decompresses, splits and encodes the next batches while PostgreSQL takes the one
before. Bounded: AHEAD batches wait, and each has at most BATCH_BYTES_MAX of lines and the line that
reaches it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple, TypeVar

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.encoder import NONE_UNREAD
from sqs2pg.mapping.line_units import LineUnits
from sqs2pg.mapping.text_lines import TextLines
from sqs2pg.message import MessageAttribute
from sqs2pg.pipeline.archive_lines import LineChunk

BATCH_BYTES_MAX = 16 * 2**20
"""Bodies of a batch; the line that reaches it is its last."""
BATCHES_AT_ONCE = 10
"""A batch of lines is as large as this many of the queue's: no line has to be visible soon, and
each batch costs a commit."""
LINES_AT_ONCE = 20_000
"""But of no more lines than these, unless one batch of the queue has more: larger ones gain little,
and need memory."""
AHEAD = 1
"""Batches that are ready before they are needed. One more is being made."""

_Made = TypeVar("_Made")


class LineBatch(NamedTuple):
    """Lines for one transaction."""

    units: LineUnits
    faults: Mapping[str, PermanentFault] = NONE_UNREAD
    """Why lines go to the quarantine unread, by MessageId."""


def lines_at_once(rows_max: int) -> int:
    """Return how many lines one batch has; `rows_max` messages make a batch of the queue."""
    return max(rows_max, min(BATCHES_AT_ONCE * rows_max, LINES_AT_ONCE))


def batches(
    chunks: Iterator[LineChunk],
    *,
    mark: str,
    day_ms: int,
    first: int = 0,
    lines_max: int,
    bytes_max: int | None = None,
    attributes: Mapping[str, MessageAttribute] | None = None,
) -> Iterator[LineBatch]:
    """Yield lines, numbered from `first` on, none empty; blocking.

    `mark` is that of `line_mark`; `day_ms` dates lines without a time; `attributes` are those of
    each line. Raises FatalFault for a line number of `LINES_MAX` or more, and what `chunks` raises,
    after the lines before it.
    """
    number = first
    for chunk in _cut(chunks, lines_max, bytes_max or BATCH_BYTES_MAX):
        units = LineUnits(
            chunk.bodies,
            chunk.times,
            day_ms=day_ms,
            mark=mark,
            first=number,
            attributes=attributes,
        )
        faults = {units.id_of(index): fault for index, fault in chunk.faults.items()}
        yield LineBatch(units, faults)
        number += len(units)


def _cut(chunks: Iterator[LineChunk], lines_max: int, bytes_max: int) -> Iterator[LineChunk]:
    """Join and cut chunks to the size of batches. A fault of `chunks` comes after its lines."""
    waiting: list[LineChunk] = []
    lines = size = 0
    fault: Exception | None = None
    while True:
        try:
            chunk = next(chunks, None)
        except Exception as raised:  # noqa: BLE001  raised again, once the lines before it are out
            chunk, fault = None, raised
        if chunk is None:
            break
        begin = 0
        while begin < len(chunk.bodies):
            end, size = _room(chunk, begin, lines_max - lines, size, bytes_max)
            waiting.append(chunk.part(begin, end))
            lines += end - begin
            begin = end
            if lines >= lines_max or size >= bytes_max:
                yield _joined(waiting)
                waiting, lines, size = [], 0, 0
    if waiting:
        yield _joined(waiting)
    if fault is not None:
        raise fault


def _room(chunk: LineChunk, begin: int, lines: int, size: int, bytes_max: int) -> tuple[int, int]:
    """Return where a batch with room for so many lines ends in a chunk, and its size then."""
    end = min(len(chunk.bodies), begin + lines)
    if chunk.size and size + chunk.size < bytes_max:
        return end, size + chunk.size  # more than there is, but no line needs to be looked at
    whole = size + sum(map(len, chunk.bodies[begin:end]))
    if whole < bytes_max:
        return end, whole
    for index in range(begin, end):
        size += len(chunk.bodies[index])
        if size >= bytes_max:
            return index + 1, size
    return end, size


def _joined(parts: list[LineChunk]) -> LineChunk:
    if len(parts) == 1:
        return parts[0]
    bodies = _bodies(parts)
    times: list[int | None] | None = None
    if any(part.times is not None for part in parts):
        times = []
        for part in parts:
            times += [None] * len(part.bodies) if part.times is None else part.times
    faults: dict[int, PermanentFault] = {}
    at = 0
    for part in parts:
        faults |= {at + index: fault for index, fault in part.faults.items()}
        at += len(part.bodies)
    return LineChunk(bodies, times, faults)


def _bodies(parts: list[LineChunk]) -> Sequence[bytes]:
    texts = [part.bodies for part in parts if isinstance(part.bodies, TextLines)]
    if len(texts) == len(parts):
        return TextLines.joined(texts)
    return list(chain.from_iterable(part.bodies for part in parts))


async def made_ahead(make: Callable[[], _Made | None]) -> AsyncGenerator[_Made]:
    """Yield what `make` returns, which runs in a thread, until it returns None.

    What it raises is raised after what it made before. It does not run any more once this
    generator is closed.
    """
    ready: asyncio.Queue[_Made | Exception | None] = asyncio.Queue(AHEAD)
    is_wanted = True

    async def fill() -> None:
        while is_wanted:
            one: _Made | Exception | None
            try:
                one = await asyncio.to_thread(make)
            except Exception as raised:  # noqa: BLE001  raised again by the other end
                one = raised
            await ready.put(one)
            if one is None or isinstance(one, Exception):
                return

    filling = asyncio.create_task(fill())
    try:
        while (one := await ready.get()) is not None:
            if isinstance(one, Exception):
                raise one
            yield one
    finally:
        # A thread cannot be cancelled: what it reads from must not be used until it has returned.
        is_wanted = False
        while not ready.empty():
            ready.get_nowait()
        await asyncio.wait([filling])
