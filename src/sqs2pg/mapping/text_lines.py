"""Lines as one text: a sequence of bytes that makes an object only of a line that is asked for.

An archive has millions of lines, and the native executor reads them where they are. Without a
compiler lines are objects. No I/O here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, overload


class TextLines(Sequence[bytes]):
    """Lines that follow each other in one text."""

    def __init__(self, text: bytes, count: int, find: Callable[[bytes], bytes]) -> None:
        """`text` has `count` lines; the last one may lack its line feed. `find` returns where each
        line of a text begins, and where one after the last would, as uint32.
        """
        self.text = text
        self._count = count
        self.find = find

    @classmethod
    def joined(cls, parts: Iterable[TextLines]) -> TextLines:
        """Return the lines of several texts, at least one line."""
        kept = [one for one in parts if len(one)]
        texts = (one.text if one.text.endswith(b"\n") else one.text + b"\n" for one in kept)
        return cls(b"".join(texts), sum(map(len, kept)), kept[0].find)

    @cached_property
    def _starts(self) -> memoryview:
        return memoryview(self.find(self.text)).cast("I")

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: Any) -> Any:
        chosen = range(self._count)[index]
        if not isinstance(chosen, range):
            return self.text[self._starts[chosen] : self._starts[chosen + 1] - 1]
        if chosen.step != 1:
            return [self[at] for at in chosen]
        if len(chosen) == self._count:
            return self
        starts = self._starts
        text = self.text[starts[chosen.start] : starts[chosen.stop]]
        return TextLines(text, len(chosen), self.find)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.text.removesuffix(b"\n").split(b"\n") if self._count else ())

    def __repr__(self) -> str:
        return f"TextLines({self._count})"
