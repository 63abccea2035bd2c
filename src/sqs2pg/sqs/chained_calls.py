"""Calls of one operation that follow each other on one connection.

This is the common path of a busy pipeline. The event loop's callback handles a successful answer
and writes the next request, with no task, future or coroutine in between. Anything unusual (another
status, a fault, a failed entry, credentials to renew) ends the chain. Its last answer or fault is
then handled like that of a single call, so that one place decides what to do about it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from sqs2pg.errors import TransientFault
from sqs2pg.message import Message
from sqs2pg.sqs import wire

_CHAINED_BYTES_MAX = 64 * 1024
"""A larger answer ends the chain. Reading it takes so long that a task more does not matter, and
the byte budget must be checked before the next call."""


class CallChain(Protocol):
    """What the client asks before each request and after each answer."""

    def body(self) -> bytes:
        """Return the request body of the present call; asked for again if the call is repeated."""

    def advance(self, answer: bytes) -> bytes | None:
        """Handle a successful answer; return the body of another call, now the present one.

        If it returns None it has done nothing, and the client returns the answer.
        """


class ReceiveChain:
    """The same receive again and again, until `take` leaves a reply."""

    def __init__(self, body: bytes, take: Callable[[list[Message]], bool]) -> None:
        self._body = body
        self._take = take

    def body(self) -> bytes:
        """Return the request, which does not change."""
        return self._body

    def advance(self, answer: bytes) -> bytes | None:
        """Return the request again if `take` took the messages."""
        if len(answer) > _CHAINED_BYTES_MAX:
            return None
        try:
            messages = wire.read_messages(answer)
        except TransientFault:
            return None  # the caller reads the answer again, and raises the fault
        return self._body if messages and self._take(messages) else None


class DeleteBatches(Protocol):
    """Messages to delete, up to ten at a time."""

    queue_url: str
    handles: list[str]
    """The receipt handles of the present batch."""

    def advance(self) -> bool:
        """The present batch is deleted: make the next one present.

        Returns False if there is no other; the present one then stays.
        """


class DeleteChain:
    """Batch after batch, as long as every entry is deleted and there is another batch."""

    def __init__(self, batches: DeleteBatches, answers: wire.DeleteAnswers) -> None:
        self._batches = batches
        self._answers = answers

    def body(self) -> bytes:
        """Return the request for the present batch."""
        return wire.write_delete(self._batches.queue_url, self._batches.handles)

    def advance(self, answer: bytes) -> bytes | None:
        """Return the request for the next batch if all entries were deleted and there is one."""
        batches = self._batches
        if self._answers.are_all_done(answer, len(batches.handles)) and batches.advance():
            return wire.write_delete(batches.queue_url, batches.handles)
        return None
