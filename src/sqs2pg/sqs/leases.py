"""Held messages: which lease each is under, and how many bytes they count for. No I/O.

A message is held from the reply that brought it until it is deleted, released or given up. The
messages of one reply share a lease. On the hot path, each reply is walked twice: to hold its
messages and to release them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import msgspec

from sqs2pg.message import Message


class Lease(msgspec.Struct, eq=False, gc=False):
    """What the messages of one reply share while they are held."""

    messages: list[Message]
    received: float
    """time.monotonic() before the receive was sent: the lease began no earlier."""
    expires: float
    """time.monotonic() at which the visibility timeout ends, at the earliest."""
    share: int = 0
    """Bytes that each message counts for in the budget: the mean body size, an upper bound."""
    left: int = 0
    """How many of its messages are still held."""
    extending: bool = False
    """Whether a request to extend it is under way."""


class Leases:
    """The held messages and their leases. Only its own methods may change it."""

    def __init__(self) -> None:
        self.by_id: dict[str, Lease] = {}
        """The lease of each message, by MessageId."""
        self.by_expiry: dict[Lease, None] = {}
        """The leases that can be extended and hold messages, soonest to expire first."""
        self.bytes = 0
        """What the held messages count for in the budget."""
        self.largest = 0
        """The largest body of the last reply: UTF-8 bytes, an upper bound."""

    def messages(self) -> list[Message]:
        """Return all held messages."""
        leases = dict.fromkeys(self.by_id.values())
        return [message for lease in leases for message in self.under(lease)]

    def under(self, lease: Lease) -> list[Message]:
        """Return the messages that are held under this lease."""
        return [m for m in lease.messages if self.by_id.get(m.message_id) is lease]

    def hold(self, messages: list[Message], received: float, expires: float) -> list[Message]:
        """Hold a reply's messages; return those that were not held before.

        If none was held before, the result is the list that was given.
        """
        held, lease = self.by_id, Lease(messages, received, expires)
        count, before, put = len(messages), len(held), held.setdefault
        total = largest = 0
        for message in messages:  # one loop: a pass of its own for each would take twice as long
            put(message.message_id, lease)
            body = message.body
            size = len(body) if body.isascii() else 4 * len(body)
            total += size
            if size > largest:
                largest = size
        self.largest = largest
        lease.share = -(-total // count)
        new = len(held) - before
        if new < count:
            messages = lease.messages = _each_once(messages)
            if new < len(messages):
                return self._hold_again(lease)
        lease.left = new
        self.by_expiry[lease] = None
        self.bytes += lease.share * new
        return messages

    def _hold_again(self, lease: Lease) -> list[Message]:
        """Hold a reply that brings a held message again, because its old lease ran out."""
        fresh: list[Message] = []
        together: list[Message] = []
        for message in lease.messages:
            known, kept = self.by_id[message.message_id], message
            if known is lease:
                fresh.append(message)
            else:
                self.release([message])
                kept = next(m for m in known.messages if m.message_id == message.message_id)
                kept.receipt_handle = message.receipt_handle
            together.append(kept)
            self._put(kept, lease)
        lease.messages = together
        return fresh

    def _put(self, message: Message, lease: Lease) -> None:
        self.by_id[message.message_id] = lease
        self.by_expiry[lease] = None
        self.bytes += lease.share
        lease.left += 1

    def move(self, message: Message, lease: Lease) -> None:
        """Put a held message under another lease."""
        self.release([message])
        lease.messages.append(message)
        self._put(message, lease)

    def release(self, messages: list[Message]) -> None:
        """Hold these messages no longer. Messages that are not held are ignored."""
        pop = self.by_id.pop
        leases = [pop(message.message_id, None) for message in messages]
        for lease, count in _counted(leases):
            if lease is None:
                continue
            self.bytes -= lease.share * count
            lease.left -= count
            if not lease.left:
                self.by_expiry.pop(lease, None)

    def due(self, at: float) -> Iterator[Lease]:
        """Yield the leases that expire by `at` and are not being extended, soonest first."""
        for lease in list(self.by_expiry):
            if lease.expires > at:
                break
            if not lease.extending:
                yield lease

    def stop_extending(self, lease: Lease) -> None:
        """Never yield this lease from `due` again: it cannot be extended."""
        del self.by_expiry[lease]

    def move_last(self, lease: Lease) -> None:
        """Put a lease that now expires after all others at the end."""
        del self.by_expiry[lease]
        self.by_expiry[lease] = None

    def move_first(self, lease: Lease) -> None:
        """Put a lease that is now due before all others at the start."""
        self.by_expiry = {lease: None} | self.by_expiry


def _each_once(messages: list[Message]) -> list[Message]:
    """Return a reply's messages without those that came in it before, whose handles are older."""
    firsts: dict[str, Message] = {}
    for message in messages:
        firsts.setdefault(message.message_id, message).receipt_handle = message.receipt_handle
    return list(firsts.values())


def _counted(leases: list[Lease | None]) -> Iterable[tuple[Lease | None, int]]:
    """Return each lease with how often it is there: most are one reply's, or two replies'."""
    if not leases:
        return ()
    first, last = leases[0], leases[-1]
    of_first = leases.count(first)
    if of_first == len(leases):
        return ((first, of_first),)
    of_last = leases.count(last)
    if first is not last and of_first + of_last == len(leases):
        return ((first, of_first), (last, of_last))
    return Counter(leases).items()
