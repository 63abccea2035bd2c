"""Lines of an archive as the units of a batch, without a message object for each.

The native executor reads the bytes as they are. Whoever needs a message (Python's executor, the
quarantine, the vault) gets one made of the line, each time it asks. No I/O here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, overload

from sqs2pg.mapping.ledger_key import line_id, line_prefix
from sqs2pg.mapping.text_lines import TextLines
from sqs2pg.message import Message, MessageAttribute, SystemAttributes

_NUMBER_DIGITS = 8  # of a line's number, at the end of its id


class LineUnits(Sequence[Message]):
    """Lines that follow each other in one archive."""

    def __init__(
        self,
        bodies: Sequence[bytes],
        times: Sequence[int | None] | None,
        *,
        day_ms: int,
        mark: str,
        first: int,
        attributes: Mapping[str, MessageAttribute] | None = None,
    ) -> None:
        """`times`: milliseconds since the epoch for each line, None where it does not say; None:
        no line does. Such lines have `day_ms`. `mark` is that of `line_mark`, `first` the number of
        the first line. `attributes`: as those of a message, the same for each line.

        Raises FatalFault where a number is too high.
        """
        self._mark = mark
        self.attributes = dict(attributes) if attributes else None
        self.bodies = bodies if isinstance(bodies, TextLines) else tuple(bodies)
        self.day_ms = day_ms
        self.times = _times(times, day_ms)
        """None: all have `day_ms`."""
        self.prefix = line_prefix(mark)
        self.first = first
        if bodies:
            line_id(mark, first + len(bodies) - 1)  # raises where the numbers end
        self._day = SystemAttributes(day_ms)

    @property
    def content(self) -> bytes | tuple[bytes, ...]:
        """All lines as the native executor takes them: one text, or each by itself."""
        return self.bodies.text if isinstance(self.bodies, TextLines) else self.bodies

    @property
    def size(self) -> int:
        """Bytes of all lines, or of the text that has them."""
        content = self.content
        return len(content) if isinstance(content, bytes) else sum(map(len, content))

    def id_of(self, index: int) -> str:
        """Return the MessageId of a line."""
        return f"{self.prefix}{self.first + index:0{_NUMBER_DIGITS}x}"

    def indexes(self, ids: Collection[str]) -> list[int]:
        """Return the places of the lines with these ids, rising; ids of other lines have none."""
        found = (
            int(name[-_NUMBER_DIGITS:], 16) - self.first
            for name in ids
            if name.startswith(self.prefix)
        )
        return sorted(index for index in found if 0 <= index < len(self.bodies))

    def __len__(self) -> int:
        return len(self.bodies)

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Message]: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            chosen = range(len(self.bodies))[index]
            return self._part(chosen) if chosen.step == 1 else list(map(self._message, chosen))
        return self._message(range(len(self.bodies))[index])

    def __iter__(self) -> Iterator[Message]:
        return map(self._message, range(len(self.bodies)))

    def _part(self, chosen: range) -> LineUnits:
        begin, end = chosen.start, max(chosen.start, chosen.stop)
        return LineUnits(
            self.bodies[begin:end],
            None if self.times is None else self.times[begin:end],
            day_ms=self.day_ms,
            mark=self._mark,
            first=self.first + begin,
            attributes=self.attributes,
        )

    def _message(self, index: int) -> Message:
        attributes = self._day
        if self.times is not None and self.times[index] != self.day_ms:
            attributes = SystemAttributes(self.times[index])
        text = self.bodies[index].strip().decode("utf-8", "surrogateescape")
        return Message(self.id_of(index), "", text, attributes, self.attributes)

    def __repr__(self) -> str:
        return f"LineUnits({len(self.bodies)} lines)"


def _times(times: Sequence[int | None] | None, day_ms: int) -> tuple[int, ...] | None:
    if times is None or times.count(None) == len(times):
        return None
    return tuple(day_ms if one is None else one for one in times)
