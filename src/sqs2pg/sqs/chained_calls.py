"""Calls of one operation that follow each other on one connection while nothing is odd.

The common path of a busy pipeline: a successful answer is dealt with, and the next request
written, from within the event loop's callback, with no task, future or coroutine in between.
Whatever is not plain (another status, a fault, an entry that failed, credentials to renew) ends
the conversation, and its last answer or fault goes the same way as that of a single call, so that
what is done about it is decided in one place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from sqs2pg.errors import TransientFault
from sqs2pg.message import Message
from sqs2pg.native import extension
from sqs2pg.sqs import wire

_PLAIN_BYTES_MAX = 64 * 1024
"""A larger answer ends the conversation: beside reading it, a task costs nothing, and the budget
of bytes must be asked before the next."""

ReadMessages = Callable[[bytes], list[Message]]
WriteDelete = Callable[[bytes, list[str]], bytes | None]
"""Writes the usual request after the JSON up to its entries."""


class Conversation(Protocol):
    """What the client asks before each request and after each answer."""

    def body(self) -> bytes:
        """The request body of the present call; asked for again where that is tried again."""

    def go_on(self, answer: bytes) -> bool:
        """Whether a successful answer was dealt with, and `body` is now that of another call.

        Where not, nothing was done with it, and the client returns it.
        """


class Polls:
    """The same receive again and again, until `take` leaves what came."""

    def __init__(
        self, body: bytes, take: Callable[[list[Message]], bool], read: ReadMessages
    ) -> None:
        self._body = body
        self._take = take
        self._read = read

    def body(self) -> bytes:
        """The request, which does not change."""
        return self._body

    def go_on(self, answer: bytes) -> bool:
        """Whether `take` took the messages."""
        if len(answer) > _PLAIN_BYTES_MAX:
            return False
        try:
            messages = self._read(answer)
        except TransientFault:
            return False  # found again, and raised, where it can be
        return bool(messages) and self._take(messages)


class Batches(Protocol):
    """Messages to delete, up to ten at a time."""

    queue_url: str
    handles: list[str]
    """The receipt handles of the present batch."""

    def advance(self) -> bool:
        """The present batch is deleted: let it go and make the next one present.

        False where there is none; the present one stays then.
        """


class Deletes:
    """Batch after batch, as long as every entry is deleted and there is another batch."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        native = extension()
        self._write: WriteDelete | None = native.write_delete if native else None
        self._head = wire.delete_head(batches.queue_url)

    def body(self) -> bytes:
        """The request for the present batch."""
        handles = self._batches.handles
        written = self._write(self._head, handles) if self._write else None
        return written or wire.write_delete(self._batches.queue_url, handles)

    def go_on(self, answer: bytes) -> bool:
        """Whether all were deleted, and another batch is present."""
        return wire.are_all_done(answer, len(self._batches.handles)) and self._batches.advance()
