"""One HTTP/1.1 keep-alive connection, one request in flight at a time.

Place in the flow: below the client; the pool lends a connection for one exchange, or for a
conversation of several, and takes it back. HTTP framing (RFC 9112) is read by httptools, which
is llhttp; the usual reply, whole in one piece, by the native extension where there is one.

Promises: a reply belongs to the request that asked for it, or it is a fault. A connection that
lost its place in the stream (a cancelled exchange, a timeout, bytes nobody asked for, a reply
cut short) is aborted and never lent again. Headers and bodies are bounded.
Must never put a byte of a reply into a fault.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any, cast

import httptools
import msgspec

from sqs2pg.errors import Sqs2pgError, Stage, TransientFault
from sqs2pg.native import extension

HEAD_BYTES_MAX = 64 * 1024
"""Far above SQS's own headers (about 400 bytes)."""
BODY_BYTES_MAX = 64 * 1024 * 1024
"""SQS answers with at most 1 MiB of messages in all; JSON escapes can make a byte six
(`\\u0000`), and emulators do not hold to the total for ten messages."""
_INTERIM_MAX = 199
"""1xx answers are interim: the one that counts follows (RFC 9110, section 15.2)."""


class Reply(msgspec.Struct, gc=False):
    """One HTTP answer.

    `head` is what arrived up to the end of the headers (body bytes may follow in it), read only
    when something is wrong; `interims` counts the 1xx answers at its beginning.
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
        """The first value of a header, by its name in any case; empty when absent."""
        blocks = self.head.split(b"\r\n\r\n", self.interims + 1)
        block = blocks[min(self.interims, len(blocks) - 1)].decode("latin-1")
        for line in block.split("\r\n")[1:]:
            key, colon, value = line.partition(":")
            if colon and key.strip().lower() == name.lower():
                return value.strip()
        return ""


ReadPlain = Callable[[bytes], bytes | None]
"""Gives the body of a reply that is whole and that nothing is odd about."""
Proceed = Callable[[bytes], bytes | None]
"""Takes a successful reply's body as soon as it is whole: the next request if it has dealt with it,
else None."""


class HttpConnection(asyncio.Protocol):
    """The protocol object of one connection; `exchange` is its one verb.

    `on_close` is called once, when the connection is gone for any reason.
    """

    def __init__(self, on_close: Callable[[HttpConnection], None]) -> None:
        self._on_close = on_close
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        native = extension()
        self._read_plain: ReadPlain | None = native.read_plain if native else None
        self._waiter: asyncio.Future[Reply] | None = None
        self._proceed: Proceed | None = None
        self._head: list[bytes] = []
        self._head_size = 0
        self._body: list[bytes] = []
        self._body_size = 0
        self._interims = 0
        self._silence_s = math.inf
        self._status = 0
        self._begun = False
        self._headed = False
        self._complete = False
        self._keep_alive = True
        self.closed = self._loop.create_future()
        """Done when the transport is gone."""
        self.usable = False
        """Whether the next exchange may begin."""
        self.went_stale = False
        """Whether it closed under an exchange that was not its first, before any answer."""
        self._exchanges = 0
        self._reply_started = False
        self.deadline = math.inf
        """Loop time when the current exchange has been silent for too long."""
        self._idle_since = self._loop.time()

    async def exchange(
        self, request: bytes, silence_s: float, proceed: Proceed | None = None
    ) -> Reply:
        """Send one whole request and return its reply, read to the end.

        `proceed`: shown the body of each reply of status 200 first, from within the event loop's
        callback, and where it gives the next request that one is sent at once, without a task or a
        future in between.
        What is returned, or raised, is then the last request's. It must not raise.
        `silence_s`: seconds without a byte before it is given up, once someone calls `expire`.
        Cancelling aborts the connection: its reply may be on the way, and must not be taken for
        the next one's. Raises TransientFault (`aws_connection`, `aws_timeout`,
        `aws_garbled_reply`); whether the request was acted on is then unknown.
        """
        if not self.usable or self._transport is None:
            raise _fault("aws_connection", "a closed connection cannot carry a request")
        waiter: asyncio.Future[Reply] = self._loop.create_future()
        self._waiter = waiter
        self._proceed = proceed
        self._silence_s = silence_s
        self._send(self._transport, request)
        try:
            return await waiter
        except BaseException:
            self._waiter = None
            self.abort()
            raise
        finally:
            self._proceed = None

    def _send(self, transport: asyncio.Transport, request: bytes) -> None:
        self.usable = self._begun = self._headed = self._complete = self._reply_started = False
        self.deadline = self._loop.time() + self._silence_s
        transport.write(request)

    def expire(self, now: float) -> None:
        """End the exchange with `aws_timeout` if it has been silent past its deadline."""
        if now >= self.deadline:
            self._fail(_fault("aws_timeout", f"no answer from SQS for {self._silence_s:g} seconds"))

    def idle_for(self) -> float:
        """Seconds since the last reply ended, or since the connection was made."""
        return self._loop.time() - self._idle_since

    def close(self) -> None:
        """Close in order (TLS says goodbye); what is in flight is lost."""
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
        """The connection, TLS included, is up."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self.usable = True

    def data_received(self, data: bytes) -> None:
        """Feed the parser; end the exchange when the reply is whole."""
        if self._waiter is None:
            self.abort()  # nobody asked; an answer to a lost question must not meet the next
            return
        if self._read_plain and not self._reply_started and (body := self._read_plain(data)):
            if self._proceed is None or not self._go_on(body, self._proceed):
                self._reply_started = self._keep_alive = True
                self._finish(Reply(200, data, body))
            return
        self._reply_started = True
        if not self._headed:
            self._head.append(data)
            self._head_size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            self._fail(cause if isinstance(cause, Sqs2pgError) else _garbled())
            return
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(_garbled())
            return
        if self._complete:
            reply = self._parsed()
            wanted = self._proceed if reply.status == 200 and self._keep_alive else None
            if wanted is None or not self._go_on(reply.body, wanted):
                self._finish(reply)
        elif not self._headed and self._head_size > HEAD_BYTES_MAX:
            self._fail(_oversize("headers", HEAD_BYTES_MAX))
        else:
            self.deadline = self._loop.time() + self._silence_s

    def eof_received(self) -> None:
        """The peer will send no more: a reply without a length ends here (RFC 9112, 6.3)."""
        if self._waiter is not None and self._headed and not self._complete:
            reply = Reply(self._status, b"".join(self._head), b"", self._interims)
            if not reply.header("content-length") and not reply.header("transfer-encoding"):
                self._keep_alive = False
                self._finish(self._parsed())

    def connection_lost(self, _exc: Exception | None) -> None:
        """The transport is gone; an exchange in flight fails."""
        self.usable = False
        self.went_stale = bool(self._waiter and self._exchanges) and not self._reply_started
        self._fail(_fault("aws_connection", "the connection to SQS closed before its answer"))
        if not self.closed.done():
            self.closed.set_result(None)
            self._on_close(self)

    # Called by the parser.

    def on_message_begin(self) -> None:
        """A second reply to one request poisons the connection."""
        if self._begun:
            raise _garbled()
        self._begun = True

    def on_headers_complete(self) -> None:
        """The status is known; the rest is body."""
        self._status = self._parser.get_status_code()
        self._headed = self._status > _INTERIM_MAX

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body, within the bound."""
        self._body.append(body)
        self._body_size += len(body)
        if self._body_size > BODY_BYTES_MAX:
            raise _oversize("body bytes", BODY_BYTES_MAX)

    def on_message_complete(self) -> None:
        """The reply is whole, or it was an interim one."""
        if self._headed:
            self._complete = True
            self._keep_alive = self._parser.should_keep_alive()
        else:
            self._begun = False
            self._interims += 1

    def _parsed(self) -> Reply:
        head, body = self._head, self._body
        reply = Reply(
            self._status,
            head[0] if len(head) == 1 else b"".join(head),
            body[0] if len(body) == 1 else b"".join(body),
            self._interims,
        )
        self._head = []
        self._body = []
        self._head_size = self._body_size = self._interims = 0
        return reply

    def _go_on(self, body: bytes, proceed: Proceed) -> bool:
        """Whether the reply needs no more: another request is on its way, or the caller failed."""
        waiter, transport = self._waiter, self._transport
        if waiter is None or waiter.done() or transport is None or transport.is_closing():
            return False
        try:
            request = proceed(body)
        except Exception as error:  # noqa: BLE001  the caller's to raise; the loop would log it
            self._fail(error)
            return True
        if request is None:
            return False
        self._exchanges += 1
        self._send(transport, request)
        return True

    def _finish(self, reply: Reply) -> None:
        self._exchanges += 1
        waiter, self._waiter = self._waiter, None
        self._idle_since = self._loop.time()
        self.deadline = math.inf
        transport = self._transport
        self.usable = self._keep_alive and transport is not None and not transport.is_closing()
        if not self._keep_alive:
            self.close()
        if waiter is not None and not waiter.done():
            waiter.set_result(reply)

    def _fail(self, fault: Exception) -> None:
        waiter, self._waiter = self._waiter, None
        self.deadline = math.inf
        self.abort()
        if waiter is not None and not waiter.done():
            waiter.set_exception(fault)


def _fault(code: str, what: str) -> TransientFault:
    return TransientFault(what, code=code, stage=Stage.RECEIVE)


def _garbled() -> TransientFault:
    return _fault("aws_garbled_reply", "the answer is not the HTTP that was asked for")


def _oversize(part: str, bytes_max: int) -> TransientFault:
    return _fault("aws_oversize_reply", f"the answer's {part} are longer than {bytes_max:,} bytes")
