"""The tap: a sample of the masked rows that are written, for whoever watches.

Place in the flow: after COMMIT, beside the sink. It sees nothing but the lines that COPY has sent,
so what is masked is masked here too. Nothing is kept while nobody watches: a batch then costs one
comparison. The sink writes, and the status server's threads read.

Must never do: be asked for a value that a row does not have, or hold up a batch.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence

import msgspec

from sqs2pg.mapping.copy_text import values
from sqs2pg.mapping.encoder import CopyText
from sqs2pg.postgres.target_copy import TargetTable

WATCHED_S = 10.0
"""So long after a reading rows are kept for the next one, seconds."""
BATCH_ROWS = 5
"""Rows of one batch and table that are kept: its first ones."""
BATCHES_MAX = 40
"""Batches that are kept, the latest ones."""
CHARACTERS_MAX = 200
"""Of one value; the rest is cut off."""


class TappedRow(msgspec.Struct, frozen=True):
    """One row as it was sent to COPY."""

    at: float
    """When its batch was committed, seconds since the epoch."""
    table: str
    """`schema.table`."""
    row: dict[str, str | None]
    """The texts of its columns, at most CHARACTERS_MAX characters each."""


class TappedRows(msgspec.Struct):
    """The answer of `/tap`."""

    rows: list[TappedRow]
    """The oldest first."""


class _Tapped(msgspec.Struct, frozen=True):
    at: float
    target: TargetTable
    lines: list[bytes]


class Tap:
    """A sample of one pipeline's rows."""

    def __init__(self) -> None:
        self._watched_until = -math.inf
        self._kept: deque[_Tapped] = deque(maxlen=BATCHES_MAX)

    @property
    def watched(self) -> bool:
        """Whether somebody has read it lately."""
        return time.monotonic() < self._watched_until

    def take(self, targets: Sequence[TargetTable], texts: Sequence[CopyText]) -> None:
        """Keep some of the lines that were committed, given by target."""
        now = time.time()
        for target, (text, rows) in zip(targets, texts, strict=True):
            if rows:
                lines = text.split(b"\n", BATCH_ROWS)[:-1]
                self._kept.append(_Tapped(now, target, lines))

    def read(self, since: float) -> list[TappedRow]:
        """Return what was kept after `since` (seconds since the epoch), the oldest first."""
        self._watched_until = time.monotonic() + WATCHED_S
        return [
            TappedRow(one.at, one.target.name, _row(one.target, line))
            for one in tuple(self._kept)
            if one.at > since
            for line in one.lines
        ]


def _row(target: TargetTable, line: bytes) -> dict[str, str | None]:
    # Behind the columns a state table's line has marks of ours.
    cells = values(line.decode())
    return {name: _short(cell) for name, cell in zip(target.columns, cells, strict=False)}


def _short(cell: str | None) -> str | None:
    if cell is None or len(cell) <= CHARACTERS_MAX:
        return cell
    return f"{cell[:CHARACTERS_MAX]}…"
