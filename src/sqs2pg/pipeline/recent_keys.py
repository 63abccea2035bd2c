"""Keys just committed: they tell a second delivery of a message before it is encoded.

A standard queue may deliver a message twice. The ledger knows it, but asking it costs the whole
batch its COPY path. This process remembers what it has committed itself, and answers for that.

Promises: `find` returns only messages that this process has committed. Whatever it does not
remember, or another process has committed, the ledger finds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence, Set

from sqs2pg.message import Message

KEYS_MAX = 200_000
"""Keys that are remembered, the latest half of them in any case: about 15 MB of text, and as much
again once somebody asks."""


class RecentKeys:
    """The latest commits of one process."""

    def __init__(self, keys_max: int = KEYS_MAX) -> None:
        self._keys_max = keys_max
        # Lines of the ledger as they were sent. Most are never looked at: nothing is delivered
        # twice. A look-up turns them into two sets, and the older set is dropped as a whole.
        self._unread: deque[tuple[int, bytes]] = deque()
        self._unread_keys = 0
        self._entries: set[bytes] = set()
        self._older: set[bytes] = set()

    def add(self, count: int, ledger: bytes) -> None:
        """Remember the ledger's lines of a batch that is committed."""
        self._unread.append((count, ledger))
        self._unread_keys += count
        while self._unread_keys > self._keys_max:
            self._unread_keys -= self._unread.popleft()[0]

    def find(
        self, messages: Sequence[Message], keys: Callable[[Sequence[Message]], list[str]]
    ) -> set[int]:
        """Return the indexes of messages that are known to be committed.

        Asked are those that SQS says to have delivered before. `keys` makes their ledger keys.
        """
        receives = [message.attributes.approximate_receive_count for message in messages]
        if max(receives, default=1) == 1:
            return set()
        self._read()
        if not self._entries and not self._older:
            return set()
        asked = [index for index, count in enumerate(receives) if count > 1]
        units = [messages[index] for index in asked]
        wanted = {
            f"{key}\t{unit.message_id}".encode(): index
            for key, unit, index in zip(keys(units), units, asked, strict=True)
        }
        known = [one for one in wanted if one in self._entries or one in self._older]
        return {wanted[one] for one in known}

    def _read(self) -> None:
        while self._unread:
            _, ledger = self._unread.popleft()
            # Key and id, with the tab between them, of each line.
            self._entries.update([line[: line.index(b"\t", 37)] for line in ledger.splitlines()])
            if len(self._entries) >= self._keys_max // 2:
                self._older, self._entries = self._entries, set()
        self._unread_keys = 0


def known_among(known: Set[int], taken: int) -> set[int]:
    """Return the indexes of known messages that stand before the last of `taken` other ones."""
    among: set[int] = set()
    for index in sorted(known):
        if index - len(among) < taken:
            among.add(index)
    return among
