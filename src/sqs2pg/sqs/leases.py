"""The messages in hand: which lease each is under, and the bytes they stand for. No I/O.

A message is in hand from the reply that brought it until it is deleted, released or given up. The
messages of one reply share a lease. The hot path's two passes over a reply are done by the native
extension where there is one, by their twins here where not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from sqs2pg.message import Message
from sqs2pg.native import extension


class Lease(msgspec.Struct, eq=False, gc=False):
    """What the messages of one reply have in common while they are in hand."""

    messages: list[Message]
    received: float
    """time.monotonic() before the receive was sent: the lease began no earlier."""
    expires: float
    """time.monotonic() at which the visibility timeout ends, at the earliest."""
    share: int = 0
    """Bytes that each message counts for in the budget: the bodies' mean, as UTF-8 at the most."""
    left: int = 0
    """Messages of it that are still in hand."""
    extending: bool = False
    """A request to extend it is under way."""


class Hand:
    """The messages in hand and their leases; to be changed by its methods alone."""

    def __init__(self) -> None:
        self.by_id: dict[str, Lease] = {}
        """The lease of each message, by MessageId."""
        self.leases: dict[Lease, None] = {}
        """Those with messages in hand that can be extended, soonest to expire first."""
        self.bytes = 0
        """What the messages in hand stand for."""
        self.largest = 0
        """Bytes of the largest body of the last reply, as UTF-8 at the most."""
        native = extension()
        self._hold_messages: _HoldMessages = native.hold_messages if native else hold_messages
        self._release_messages: _ReleaseMessages = (
            native.release_messages if native else release_messages
        )

    def messages(self) -> list[Message]:
        """Return all of them."""
        leases = dict.fromkeys(self.by_id.values())
        return [message for lease in leases for message in self.under(lease)]

    def under(self, lease: Lease) -> list[Message]:
        """Return those under one lease."""
        return [m for m in lease.messages if self.by_id.get(m.message_id) is lease]

    def take(self, messages: list[Message], received: float, expires: float) -> list[Message]:
        """Take a reply in hand; return the messages that were not in hand before: the very list
        where none was.
        """
        lease = Lease(messages, received, expires)
        fresh, size, self.largest = self._hold_messages(self.by_id, messages, lease)
        count = len(messages)
        lease.share = -(-size // count)
        if not fresh:
            return self._take_again(lease)
        lease.left = count
        self.leases[lease] = None
        self.bytes += lease.share * count
        return messages

    def _take_again(self, lease: Lease) -> list[Message]:
        """Take a reply in hand some of whose messages are in hand already: their lease ran out."""
        fresh: list[Message] = []
        together: list[Message] = []
        for message in lease.messages:
            known = self.by_id.get(message.message_id)
            if known is None:
                fresh.append(message)
                kept = message
            else:
                self.drop([message])
                old = together if known is lease else known.messages
                kept = next(m for m in old if m.message_id == message.message_id)
                kept.receipt_handle = message.receipt_handle
            if known is not lease:
                together.append(kept)
            self._put(kept, lease)
        lease.messages = together
        return fresh

    def _put(self, message: Message, lease: Lease) -> None:
        self.by_id[message.message_id] = lease
        self.leases[lease] = None
        self.bytes += lease.share
        lease.left += 1

    def move(self, message: Message, lease: Lease) -> None:
        """Put a message that is in hand under another lease."""
        self.drop([message])
        lease.messages.append(message)
        self._put(message, lease)

    def drop(self, messages: list[Message]) -> None:
        """Let messages go; those that are not in hand are left alone."""
        for lease, count in self._release_messages(self.by_id, messages):
            self.bytes -= lease.share * count
            lease.left -= count
            if not lease.left:
                self.leases.pop(lease, None)

    def due(self, at: float) -> Iterator[Lease]:
        """Yield the leases that expire by then and are not being extended, soonest first."""
        for lease in list(self.leases):
            if lease.expires > at:
                break
            if not lease.extending:
                yield lease

    def leave_out(self, lease: Lease) -> None:
        """The lease is never due: nobody can extend it."""
        del self.leases[lease]

    def put_last(self, lease: Lease) -> None:
        """The lease expires after all others now."""
        del self.leases[lease]
        self.leases[lease] = None

    def put_first(self, lease: Lease) -> None:
        """The lease is due before all others."""
        self.leases = {lease: None} | self.leases


_HoldMessages = Callable[[dict[str, Lease], list[Message], Lease], tuple[bool, int, int]]
_ReleaseMessages = Callable[[dict[str, Lease], list[Message]], list[tuple[Lease, int]]]


def hold_messages(
    held: dict[str, Lease], messages: list[Message], lease: Lease
) -> tuple[bool, int, int]:
    """Put every message under the lease, or none where one of them is held already or comes twice.

    Returns whether they were put, the bytes of all bodies, and of the largest, as UTF-8 at the
    most.
    """
    sizes = [len(m.body) * (1 if m.body.isascii() else 4) for m in messages]
    fresh = dict.fromkeys([message.message_id for message in messages], lease)
    taken = len(fresh) == len(messages) and held.keys().isdisjoint(fresh)
    if taken:
        held.update(fresh)
    return taken, sum(sizes), max(sizes, default=0)


def release_messages(held: dict[str, Lease], messages: list[Message]) -> list[tuple[Lease, int]]:
    """Take messages out; return their leases, and how many in a row were under each."""
    runs: list[tuple[Lease, int]] = []
    for message in messages:
        lease = held.pop(message.message_id, None)
        if lease is None:
            continue
        if runs and runs[-1][0] is lease:
            runs[-1] = (lease, runs[-1][1] + 1)
        else:
            runs.append((lease, 1))
    return runs
