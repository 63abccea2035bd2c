"""Keys just committed: they tell a second delivery of a message before it is encoded.

A standard queue may deliver a message twice. The ledger knows it, but asking it costs the whole
batch its COPY path. This process remembers what it has committed itself, and answers for that.

Promises: `find` returns only messages that this process has committed. Whatever it does not
remember, or another process has committed, the ledger finds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from sqs2pg.message import Message

KEYS_MAX = 200_000
"""Keys that are remembered: about 15 MB of text, and as much again once somebody asks."""


class RecentKeys:
    """The latest commits of one process."""

    def __init__(self, keys_max: int = KEYS_MAX) -> None:
        self._keys_max = keys_max
        self._count = 0
        # Lines of the ledger as they were sent, or what `_entries` makes of them. Most are never
        # asked for: nothing is delivered twice.
        self._commits: deque[tuple[int, bytes | frozenset[bytes]]] = deque()

    def add(self, count: int, ledger: bytes) -> None:
        """Remember the ledger's lines of a batch that is committed."""
        self._commits.append((count, ledger))
        self._count += count
        while self._count > self._keys_max:
            self._count -= self._commits.popleft()[0]

    def find(
        self, messages: Sequence[Message], keys: Callable[[Sequence[Message]], list[str]]
    ) -> set[int]:
        """Return the indexes of messages that are known to be committed.

        Asked are those that SQS says to have delivered before. `keys` makes their ledger keys.
        """
        receives = [message.attributes.approximate_receive_count for message in messages]
        if not self._commits or max(receives, default=1) == 1:
            return set()
        asked = [index for index, count in enumerate(receives) if count > 1]
        units = [messages[index] for index in asked]
        wanted = {
            f"{key}\t{unit.message_id}".encode(): index
            for key, unit, index in zip(keys(units), units, asked, strict=True)
        }
        found: set[int] = set()
        for place, (count, commit) in enumerate(self._commits):
            entries = _entries(commit) if isinstance(commit, bytes) else commit
            self._commits[place] = (count, entries)
            found.update(wanted[entry] for entry in entries & wanted.keys())
        return found


def _entries(ledger: bytes) -> frozenset[bytes]:
    """Return key and id, with the tab between them, of each line."""
    return frozenset(line[: line.index(b"\t", 37)] for line in ledger.splitlines())
