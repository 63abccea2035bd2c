"""Which replies a chain of calls goes on after: those that llhttp reads as one whole 200."""

from __future__ import annotations

import asyncio

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqs2pg.sqs.connection import HttpConnection


class Sent(asyncio.Transport):
    """Keeps what is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[object] = []
        self._closing = False

    def write(self, data: object) -> None:
        self.requests.append(data)

    def is_closing(self) -> bool:
        return self._closing

    def abort(self) -> None:
        self._closing = True

    close = abort


async def taken(reply: bytes) -> bytes | None:
    """Return the body for which the connection asked for the next request, if it did."""
    bodies: list[bytes] = []

    def next_request(body: bytes) -> bytes:
        bodies.append(body)
        return b"next"

    connection, sent = HttpConnection(lambda _: None), Sent()
    connection.connection_made(sent)
    exchange = asyncio.create_task(connection.exchange(b"first", 30.0, next_request))
    await asyncio.sleep(0)  # until it is asked for
    await asyncio.sleep(0)  # until it is sent
    connection.data_received(reply)
    await asyncio.sleep(0)  # requests go out at the end of the turn
    assert sent.requests == [b"first", b"next"][: 1 + len(bodies)]
    exchange.cancel()
    await asyncio.wait([exchange])
    if not exchange.cancelled():
        exchange.exception()
    return bodies[0] if bodies else None


def by_llhttp(reply: bytes) -> bytes | None:
    """Return the body as httptools reads it; None of what is not one whole reply of status 200."""
    bodies: list[bytes] = []
    ended: list[bool] = []

    class Heard:
        def on_body(self, body: bytes) -> None:
            bodies.append(body)

        def on_message_complete(self) -> None:
            ended.append(parser.should_keep_alive())

    parser = httptools.HttpResponseParser(Heard())
    try:
        parser.feed_data(reply)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return None
    return b"".join(bodies) if ended == [True] and parser.get_status_code() == 200 else None


STATUSES = (b"HTTP/1.1 200 OK", b"HTTP/1.1 200 ", b"HTTP/1.1 503 no", b"HTTP/1.0 200 OK")
HEADERS = (
    b"Content-Type: application/x-amz-json-1.0",
    b"x-amzn-RequestId: 0dfaf1e2-87a4-4a5c-9f0c-5d9a1b2c3d4e",
    b"Connection: keep-alive",
    b"Connection: close",
    b"CONTENT-LENGTH:2",
    b"Transfer-Encoding: chunked",
    b"Trailer: x",
    b"Date : Wed",
    b" folded: y",
    b"bare\nline: z",
    b"x_y:\t z \t",
)


@given(
    status=st.sampled_from(STATUSES),
    headers=st.lists(st.sampled_from(HEADERS), max_size=4),
    body=st.binary(max_size=12),
    length=st.sampled_from(["exact", "exact", "exact", "less", "more", "none"]),
)
def test_a_reply_in_one_piece_is_read_as_llhttp_reads_it(
    status: bytes, headers: list[bytes], body: bytes, length: str
) -> None:
    size = {"exact": len(body), "less": len(body) - 1, "more": len(body) + 1}.get(length, -1)
    counted = [b"content-length: %d" % size] if size >= 0 else []
    reply = b"\r\n".join([status, *headers, *counted, b"", body])
    assert asyncio.run(taken(reply)) == by_llhttp(reply)


@pytest.mark.parametrize(
    ("reply", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", b"{}"),
        (b"HTTP/1.1 200 OK\r\nContent-Length:  2 \r\nConnection: Keep-Alive\r\n\r\n{}", b"{}"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}{", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n{}", None),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\n\n{}", None),
        (b"HTTP/1.1 200 OK\r\n\r\n", None),
        (b"HTTP/1.1 503 no\r\nContent-Length: 2\r\n\r\n{}", None),
        (b"HTTP/1.1 20", None),
        (b"", None),
    ],
)
async def test_only_a_whole_plain_reply_is_followed_by_the_next_request(
    reply: bytes, body: bytes | None
) -> None:
    assert await taken(reply) == body
