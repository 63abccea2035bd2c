"""Keys just committed: they tell a second delivery of a message before it is encoded.

A standard queue may deliver a message twice. The ledger knows it, but asking it costs the whole
batch its COPY path. This process remembers what it has committed itself, and answers for that.

Promises: `find` returns only messages that this process has committed. Whatever it does not
remember, or another process has committed, the ledger finds.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Sequence, Set

import msgspec

from sqs2pg.message import Message

KEYS_MAX = 200_000
"""Keys that are remembered, the latest ones: 17 MB of text, and up to 28 MB of sets instead where
somebody asks about all of them."""
_SEARCHES = 8
"""One search in so many lines costs as much as to make their set."""


class _Commit(msgspec.Struct, eq=False):
    """The ledger's lines of one batch, as they were sent: sorted."""

    count: int
    text: bytes
    first: bytes
    """Key and MessageId of the first line, with the tab between them."""
    last: bytes
    """Of the last line."""
    width: int
    """The bytes of each line, its newline included; 0 where they differ."""
    entries: set[bytes] | None = None
    """Of all lines, in place of the text."""
    searches: int = 0

    @classmethod
    def of(cls, count: int, text: bytes) -> _Commit:
        last, width = text.rfind(b"\n", 0, -1) + 1, text.index(b"\n") + 1
        alike = len(text) == width * count and text[width - 1 :: width] == b"\n" * count
        return cls(count, text, _entry_of(text, 0), _entry_of(text, last), width if alike else 0)

    def has(self, entry: bytes) -> bool:
        """Whether it has a line that begins so: with key, tab and MessageId."""
        if self.entries is None:
            self.searches += 1
            if self.width and self.searches <= self.count // _SEARCHES:
                return self._find(entry + b"\t")
            self.entries = {_entry_of(line, 0) for line in self.text.splitlines()}
            self.text = b""
        return entry in self.entries

    def _find(self, begin: bytes) -> bool:
        text, width, size = self.text, self.width, len(begin)
        low, high = 0, self.count
        while low < high:
            middle = (low + high) // 2
            there = text[middle * width : middle * width + size]
            if there == begin:
                return True
            if there < begin:
                low = middle + 1
            else:
                high = middle
        return False


class RecentKeys:
    """The latest commits of one process."""

    def __init__(self, keys_max: int = KEYS_MAX) -> None:
        self._keys_max = keys_max
        # Most are never looked at: nothing is delivered twice.
        self._commits: deque[_Commit] = deque()
        self._keys = 0

    def add(self, count: int, ledger: bytes) -> None:
        """Remember the ledger's lines of a batch that is committed."""
        if not count:
            return
        self._commits.append(_Commit.of(count, ledger))
        self._keys += count
        while self._keys > self._keys_max:
            self._keys -= self._commits.popleft().count

    def find(
        self, messages: Sequence[Message], keys: Callable[[Sequence[Message]], list[str]]
    ) -> set[int]:
        """Return the indexes of messages that are known to be committed.

        Asked are those that SQS says to have delivered before. `keys` makes their ledger keys.
        """
        receives = [message.attributes.approximate_receive_count for message in messages]
        if max(receives, default=1) == 1 or not self._commits:
            return set()
        asked = [index for index, count in enumerate(receives) if count > 1]
        units = [messages[index] for index in asked]
        wanted = {
            f"{key}\t{unit.message_id}".encode(): index
            for key, unit, index in zip(keys(units), units, asked, strict=True)
        }
        entries = sorted(wanted)
        found: set[int] = set()
        for commit in self._commits:
            # Keys begin with the time: few batches have some before and some after it.
            begin = bisect_left(entries, commit.first)
            for entry in entries[begin : bisect_right(entries, commit.last, begin)]:
                if commit.has(entry):
                    found.add(wanted[entry])
        return found


def _entry_of(text: bytes, begin: int) -> bytes:
    """Return key and MessageId of the line that begins there."""
    return text[begin : text.index(b"\t", begin + 37)]


def known_among(known: Set[int], taken: int) -> set[int]:
    """Return the indexes of known messages that stand before the last of `taken` other ones."""
    among: set[int] = set()
    for index in sorted(known):
        if index - len(among) < taken:
            among.add(index)
    return among
