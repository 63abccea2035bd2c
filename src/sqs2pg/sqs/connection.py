"""One HTTP/1.1 keep-alive connection, with one request in flight at a time.

Place in the flow: below the client. The pool lends a connection for one exchange, or for a chain of
them, and takes it back. httptools (llhttp) reads the HTTP framing (RFC 9112).

Promises: a reply belongs to the request that asked for it, or it is a fault. A connection that lost
its place in the stream (a cancelled exchange, a timeout, bytes that nobody asked for, a reply cut
short) is aborted and never lent again. Headers and bodies are bounded.
Must never put a byte of a reply into a fault.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import httptools
import msgspec

from sqs2pg.errors import Stage, TransientFault
from sqs2pg.sqs.outbox import Outbox

HEAD_BYTES_MAX = 64 * 1024
"""Far more than SQS's own headers, about 400 bytes."""
BODY_BYTES_MAX = 64 * 1024 * 1024
"""SQS answers with at most 1 MiB of messages in all. A JSON escape can turn one byte into six
(`\\u0000`), and emulators do not keep to the limit for ten messages together."""
REPLY_S_MAX = 60.0
"""How long a reply may take once it may be sent, however its bytes drip in: 17 KiB/s for a MiB.
Messages are hidden meanwhile, and nobody extends their leases."""
_INTERIM_MAX = 199
"""1xx answers are interim: the final answer follows (RFC 9110, section 15.2)."""


class Reply(msgspec.Struct, gc=False):
    """One HTTP answer.

    `head` is what arrived up to the end of the headers, possibly with body bytes after it. It is
    read only if something is wrong. `interims` counts the 1xx answers at its start.
    """

    status: int
    head: bytes
    body: bytes
    interims: int = 0

    def __repr__(self) -> str:
        return f"Reply({self.status})"

    def __rich_repr__(self) -> Any:
        yield self.status

    def header(self, name: str) -> str:
        """Return the first value of a header, by its name in any case; "" if it is absent."""
        blocks = self.head.split(b"\r\n\r\n", self.interims + 1)
        block = blocks[min(self.interims, len(blocks) - 1)].decode("latin-1")
        for line in block.split("\r\n")[1:]:
            key, colon, value = line.partition(":")
            if colon and key.strip().lower() == name.lower():
                return value.strip()
        return ""


NextRequest = Callable[[bytes], bytes | None]
"""Called with the body of a successful reply. Returns the next request if it has handled the reply,
else None."""


class HttpConnection(asyncio.Protocol):
    """The protocol object of one connection; callers use `exchange`.

    `on_close` is called once, when the connection is gone for any reason. `outbox` is shared with
    other connections, so that their requests go out together.
    """

    def __init__(
        self, on_close: Callable[[HttpConnection], None], outbox: Outbox | None = None
    ) -> None:
        self._on_close = on_close
        self._outbox = outbox or Outbox()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        # The parser calls these three for every reply, so they are no functions of ours.
        self._body: list[bytes] = []
        self._begun: list[None] = []
        self._heads_read: list[None] = []
        self.on_body = self._body.append
        self.on_message_begin = partial(self._begun.append, None)
        self.on_headers_complete = partial(self._heads_read.append, None)
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[Reply] | None = None
        self._next_request: NextRequest | None = None
        self._head: list[bytes] = []
        self._pieces = self._body_size = 0  # of the body: those that are counted
        self._interims = 0
        self._silence_s = math.inf
        self._status = 0
        self._complete = False
        self._keep_alive = True
        self.closed = self._loop.create_future()
        """Done when the transport is gone."""
        self.usable = False
        """Whether the next exchange may start."""
        self.went_stale = False
        """Whether it closed during an exchange, not its first, before any byte of the answer."""
        self._exchanges = 0
        self.deadline = math.inf
        """Loop time at which the present exchange is given up."""
        self._whole_by = math.inf
        self._idle_since = self._loop.time()

    async def exchange(
        self, request: bytes, silence_s: float, next_request: NextRequest | None = None
    ) -> Reply:
        """Send one whole request and return its reply, read to the end.

        `silence_s`: the exchange is given up after this many seconds without a byte, and a reply
        that is not whole `REPLY_S_MAX` after that, at the next call of `expire`.
        `next_request` is called with the body of each reply of status 200, from the event loop's
        callback. If it returns a request, that is sent at once, without a task or a future in
        between; the result, or the fault, is then that of the last request. It must not raise.
        Cancelling aborts the connection: a reply may be on its way, and must not be taken for that
        of the next request. Raises TransientFault (`aws_connection`, `aws_timeout`,
        `aws_garbled_reply`); it is then unknown whether SQS acted on the request.
        """
        if not self.usable or self._transport is None:
            raise _fault("aws_connection", "a closed connection cannot carry a request")
        waiter: asyncio.Future[Reply] = self._loop.create_future()
        self._waiter = waiter
        self._next_request = next_request
        self._silence_s = silence_s
        self._send(self._transport, request)
        try:
            return await waiter
        except BaseException:
            self._waiter = None
            self.abort()
            raise
        finally:
            self._next_request = None
            # Else a fault would hold this frame, and so itself, until the cyclic collector runs.
            del waiter

    def _send(self, transport: asyncio.Transport, request: bytes) -> None:
        self.usable = self._complete = False
        self.deadline = deadline = self._loop.time() + self._silence_s
        self._whole_by = deadline + REPLY_S_MAX
        self._outbox.put(self._loop, transport, request)

    def expire(self, now: float) -> None:
        """End the exchange with `aws_timeout` if its deadline is over."""
        if now >= self._whole_by:
            self._fail(_fault("aws_timeout", "SQS sent a part of its answer, and never all of it"))
        elif now >= self.deadline:
            self._fail(_fault("aws_timeout", f"no answer from SQS for {self._silence_s:g} seconds"))

    def idle_for(self) -> float:
        """Return the seconds since the last reply ended, or since the connection was made."""
        return self._loop.time() - self._idle_since

    def close(self) -> None:
        """Close in order (with TLS's close_notify); an exchange in flight is lost."""
        self.usable = False
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once, without waiting for the peer."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note that the connection is up, TLS included."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's does not inherit from it
        self.usable = True

    def data_received(self, data: bytes) -> None:
        """Parse the data; end the exchange when the reply is whole."""
        if self._waiter is None:
            self.abort()  # a late answer must not be taken for that of the next request
            return
        if len(self._heads_read) == self._interims:
            self._head.append(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(_garbled())
            return
        if len(self._begun) > self._interims + 1:
            self._fail(_garbled())  # a second reply to one request
        elif len(self._body) != 1 and self._is_too_long():
            self._fail(_oversize("body bytes", BODY_BYTES_MAX))
        elif self._complete:
            if self._status != 200 or not self._keep_alive or not self._send_next():
                self._finish(self._parsed())
        elif not self._is_headed() and sum(map(len, self._head)) > HEAD_BYTES_MAX:
            self._fail(_oversize("headers", HEAD_BYTES_MAX))
        else:
            self.deadline = min(self._loop.time() + self._silence_s, self._whole_by)

    def eof_received(self) -> None:
        """The peer sends no more: a reply without a length ends here (RFC 9112, section 6.3)."""
        if self._waiter is not None and self._is_headed() and not self._complete:
            self._status = self._parser.get_status_code()
            reply = Reply(self._status, b"".join(self._head), b"", self._interims)
            if not reply.header("content-length") and not reply.header("transfer-encoding"):
                self._keep_alive = False
                self._finish(self._parsed())

    def connection_lost(self, _exc: Exception | None) -> None:
        """Note that the transport is gone; an exchange in flight fails."""
        self.usable = False
        self.went_stale = bool(self._waiter and self._exchanges) and not self._head
        self._fail(_fault("aws_connection", "the connection to SQS closed before its answer"))
        # Parser and transport hold this object: nothing of it is to wait for the cyclic collector.
        self._transport = None
        del self._parser
        if not self.closed.done():
            self.closed.set_result(None)
            self._on_close(self)

    # Called by the parser.

    def on_message_complete(self) -> None:
        """Note that the reply is whole, or was an interim one."""
        self._status = self._parser.get_status_code()
        if self._status > _INTERIM_MAX:
            self._complete = True
            self._keep_alive = self._parser.should_keep_alive()
        else:
            self._interims += 1

    def _is_headed(self) -> bool:
        """Whether the final reply's headers were read."""
        return len(self._heads_read) > self._interims

    def _is_too_long(self) -> bool:
        pieces = self._body
        while self._pieces < len(pieces):
            self._body_size += len(pieces[self._pieces])
            self._pieces += 1
        return self._body_size > BODY_BYTES_MAX

    def _parsed(self) -> Reply:
        reply = Reply(self._status, b"".join(self._head), b"".join(self._body), self._interims)
        self._forget_reply()
        return reply

    def _forget_reply(self) -> None:
        self._head.clear()
        self._body.clear()
        self._begun.clear()
        self._heads_read.clear()
        if self._pieces or self._interims:  # few replies have any
            self._pieces = self._body_size = self._interims = 0

    def _send_next(self) -> bool:
        """Send the next request, if any; return whether the reply is done with.

        It is done with if another request is under way, or if `next_request` raised.
        """
        next_request, waiter, transport = self._next_request, self._waiter, self._transport
        if next_request is None or waiter is None or waiter.done():
            return False
        if transport is None or transport.is_closing():
            return False
        try:
            request = next_request(b"".join(self._body))
        except Exception as error:  # noqa: BLE001  the caller must see it; the loop would only log it
            self._fail(error)
            return True
        if request is None:
            return False
        self._exchanges += 1
        self._forget_reply()
        self._send(transport, request)
        return True

    def _finish(self, reply: Reply) -> None:
        self._exchanges += 1
        waiter, self._waiter = self._waiter, None
        self._idle_since = self._loop.time()
        self.deadline = self._whole_by = math.inf
        transport = self._transport
        self.usable = self._keep_alive and transport is not None and not transport.is_closing()
        if not self._keep_alive:
            self.close()
        if waiter is not None and not waiter.done():
            waiter.set_result(reply)

    def _fail(self, fault: Exception) -> None:
        waiter, self._waiter = self._waiter, None
        self.deadline = self._whole_by = math.inf
        self.abort()
        if waiter is not None and not waiter.done():
            waiter.set_exception(fault)


def _fault(code: str, what: str) -> TransientFault:
    return TransientFault(what, code=code, stage=Stage.RECEIVE)


def _garbled() -> TransientFault:
    return _fault("aws_garbled_reply", "the answer is not the HTTP that was asked for")


def _oversize(part: str, bytes_max: int) -> TransientFault:
    return _fault("aws_oversize_reply", f"the answer's {part} are longer than {bytes_max:,} bytes")
