"""Which lines of a transaction a state table holds something of: the vault seals no others.

A merge says which lines of its own it left out. The slow path merges a batch in pieces, and goes
back to savepoints. So a line may be superseded by one of a later piece; it is known by the text of
its key there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from sqs2pg.mapping.encoder import parts_of
from sqs2pg.mapping.originals import LeftOut
from sqs2pg.message import Row
from sqs2pg.postgres.state_table import Merge


class _Piece(NamedTuple):
    """What one merge left out."""

    target: int
    merge: Merge
    places: Sequence[int]
    """From 0, rising, among the target's lines of the rows."""
    rows: Sequence[Row] | None
    """None: all rows of the batch."""


class HeldLines:
    """The merges of one transaction, on their way to the vault."""

    def __init__(self) -> None:
        self._pieces: list[_Piece] = []
        self._saved = 0

    def note(
        self, target: int, merge: Merge, places: Sequence[int], rows: Sequence[Row] | None
    ) -> None:
        """Note what a merge left out of the lines of `rows`; None: of all rows of the batch."""
        self._pieces.append(_Piece(target, merge, places, rows))

    def save(self) -> None:
        """Note that the caller has set a savepoint."""
        self._saved = len(self._pieces)

    def rewind(self) -> None:
        """Note that the caller went back to its savepoint."""
        del self._pieces[self._saved :]

    def left_out(self, rows: Callable[[], Sequence[Row]]) -> LeftOut:
        """Return the lines that no table holds anything of, by target and message.

        `rows` returns all rows of the batch, and is called only where it has to be.
        """
        found: LeftOut = {}
        by_target: dict[int, list[_Piece]] = {}
        for piece in self._pieces:
            by_target.setdefault(piece.target, []).append(piece)
        for target, pieces in by_target.items():
            lines: dict[str, set[int]] = {}
            for message_id, line in _left_out(pieces, rows):
                lines.setdefault(message_id, set()).add(line)
            if lines:
                found[target] = lines
        return found


def _left_out(
    pieces: Sequence[_Piece], all_rows: Callable[[], Sequence[Row]]
) -> Iterator[tuple[str, int]]:
    """Yield the message of each line that was left out, and which of its lines it is."""
    held: dict[tuple[str, ...], tuple[str, int]] = {}
    merge = pieces[0].merge
    # With `keep_if_null` a row may keep what an older line has.
    overwrites = len(pieces) > 1 and bool(merge.update) and not merge.keep_if_null
    key = [merge.columns.index(name) for name in merge.key]
    for target, _, places, rows in pieces:
        if not (places or overwrites):
            continue
        left = set(places)
        lines = _lines(all_rows() if rows is None else rows, target)
        for place, (message_id, line, text) in enumerate(lines):
            if place in left:
                yield message_id, line
            elif overwrites:
                cells = text.split("\t")
                named = tuple(map(cells.__getitem__, key))
                if before := held.get(named):
                    yield before
                held[named] = message_id, line


def _lines(rows: Iterable[Row], target: int) -> Iterator[tuple[str, int, str]]:
    """Yield each line of a target: its message, which of the message's it is, and its text."""
    for row in rows:
        for part in parts_of(row):
            if part.target == target:
                texts = part.text.split("\n") if part.count > 1 else (part.text,)
                for line in range(part.count):
                    yield row.message_id, line, texts[line]
