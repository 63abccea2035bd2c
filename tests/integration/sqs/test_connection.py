"""One connection against a server of crafted bytes: a reply is complete and ours, or a fault."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from sqs2pg.errors import TransientFault
from sqs2pg.sqs import connection as module
from sqs2pg.sqs.connection import HttpConnection, Reply

from .loopback import Handler, Listen, answer, read_request

REQUEST = b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n"
SECRET = b"424cdd21-secret-value"


class Watched(HttpConnection):
    """Counts the pieces that arrive, so that a server can wait until one has been read."""

    pieces = 0

    def __init__(self, on_close: Callable[[HttpConnection], None]) -> None:
        super().__init__(on_close)
        self.arrived = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.pieces += 1
        self.arrived.set()
        super().data_received(data)


async def connect(port: int) -> tuple[Watched, list[HttpConnection]]:
    gone: list[HttpConnection] = []
    loop = asyncio.get_running_loop()
    _, made = await loop.create_connection(lambda: Watched(gone.append), "127.0.0.1", port)
    return made, gone


class Server:
    """Sends the given pieces, each once the one before has been read, to every request."""

    def __init__(self, *pieces: bytes, then_close: bool = False) -> None:
        self.pieces = pieces
        self.then_close = then_close
        self.client: Watched | None = None
        self.requests = 0
        self.asked = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            self.requests += 1
            self.asked.set()
            for index, piece in enumerate(self.pieces):
                if index:
                    assert self.client is not None
                    await self.client.arrived.wait()
                assert self.client is not None
                self.client.arrived.clear()
                writer.write(piece)
                await writer.drain()
            if self.then_close:
                writer.close()
                await writer.wait_closed()
                return


async def exchange(listen: Listen, *pieces: bytes, then_close: bool = False) -> Reply:
    server = Server(*pieces, then_close=then_close)
    server.client, _ = await connect(await listen(server))
    try:
        return await server.client.exchange(REQUEST, 30)
    finally:
        server.client.close()
        await server.client.closed


async def fault_of(listen: Listen, *pieces: bytes, then_close: bool = False) -> TransientFault:
    with pytest.raises(TransientFault) as caught:
        await exchange(listen, *pieces, then_close=then_close)
    fault = caught.value
    assert SECRET.decode() not in f"{fault} {fault!r} {fault.hint}"
    assert fault.__cause__ is None
    return fault


WHOLE = answer(b'{"a":"' + "é".encode() + b'"}', x_amzn_RequestId="r-1")
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Amzn-RequestId: r-1\r\n\r\n"
    b'4\r\n{"a"\r\n5;ext=1\r\n:"\xc3\xa9"\r\n1\r\n}\r\n0\r\nTrailer: t\r\n\r\n'
)
INTERIM = b"HTTP/1.1 100 Continue\r\nx-amzn-requestid: no\r\n\r\n" + WHOLE


@pytest.mark.parametrize("stream", [WHOLE, CHUNKED, INTERIM], ids=["length", "chunked", "interim"])
async def test_a_reply_may_be_split_at_every_byte(listen: Listen, stream: bytes) -> None:
    server = Server()
    server.client, gone = await connect(await listen(server))
    for at in range(1, len(stream)):
        server.pieces = (stream[:at], stream[at:])
        before = server.client.pieces
        reply = await server.client.exchange(REQUEST, 30)
        assert reply.status == 200
        assert reply.body == '{"a":"é"}'.encode()
        assert reply.header("x-amzn-requestid") == "r-1"
        assert reply.header("absent") == ""
        assert server.client.pieces == before + 2
        assert server.client.usable
    assert server.requests == len(stream) - 1
    server.client.close()
    await server.client.closed
    assert gone == [server.client]


async def test_a_reply_may_arrive_byte_by_byte(listen: Listen) -> None:
    pieces = [WHOLE[at : at + 1] for at in range(len(WHOLE))]
    assert (await exchange(listen, *pieces)).body == '{"a":"é"}'.encode()


async def test_an_empty_body_is_read(listen: Listen) -> None:
    assert (await exchange(listen, answer(b""))).body == b""


async def test_a_body_without_a_length_ends_with_the_connection(listen: Listen) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: x\r\n\r\n"
    reply = await exchange(listen, head + b"one ", b"two", then_close=True)
    assert (reply.status, reply.body) == (200, b"one two")


@pytest.mark.parametrize("header", ["Connection: close", "connection: CLOSE"])
async def test_connection_close_ends_the_connection(listen: Listen, header: str) -> None:
    server = Server(b"HTTP/1.1 200 OK\r\n%b\r\nContent-Length: 2\r\n\r\n{}" % header.encode())
    server.client, gone = await connect(await listen(server))
    assert (await server.client.exchange(REQUEST, 30)).body == b"{}"
    assert not server.client.usable
    await server.client.closed
    assert gone == [server.client]
    with pytest.raises(TransientFault, match="closed connection"):
        await server.client.exchange(REQUEST, 30)
    assert server.requests == 1


async def test_old_http_is_closed(listen: Listen) -> None:
    server = Server(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    server.client, _ = await connect(await listen(server))
    assert (await server.client.exchange(REQUEST, 30)).body == b"{}"
    assert not server.client.usable
    await server.client.closed


@pytest.mark.parametrize("at", range(len(WHOLE) + 1))
async def test_a_close_at_any_byte_is_a_fault(listen: Listen, at: int) -> None:
    if at == len(WHOLE):
        assert (await exchange(listen, WHOLE, then_close=True)).status == 200
        return
    pieces = (WHOLE[:at],) if at else ()
    fault = await fault_of(listen, *pieces, then_close=True)
    assert fault.code == "aws_connection"


@pytest.mark.parametrize("at", range(0, len(CHUNKED), 7))
async def test_a_close_within_chunks_is_a_fault(listen: Listen, at: int) -> None:
    pieces = (CHUNKED[:at],) if at else ()
    fault = await fault_of(listen, *pieces, then_close=True)
    assert fault.code == "aws_connection"


@pytest.mark.parametrize(
    "garbage",
    [
        SECRET + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + SECRET,
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        answer() + answer(SECRET),
        answer() + b"HTTP/1.1 2",
        answer() + SECRET,
    ],
)
async def test_a_reply_that_is_not_http_is_a_fault(listen: Listen, garbage: bytes) -> None:
    assert (await fault_of(listen, garbage)).code == "aws_garbled_reply"


async def test_a_reply_nobody_asked_for_ends_the_connection(listen: Listen) -> None:
    pushed = asyncio.Event()

    async def push(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer(b"first"))
        await pushed.wait()
        writer.write(answer(b"second"))
        await reader.read()

    client, gone = await connect(await listen(push))
    assert (await client.exchange(REQUEST, 30)).body == b"first"
    assert client.usable
    pushed.set()
    await client.closed
    assert not client.usable
    assert gone == [client]


async def test_cancelling_closes_the_connection(listen: Listen) -> None:
    server = Server()
    server.client, gone = await connect(await listen(server))
    task = asyncio.create_task(server.client.exchange(REQUEST, 30))
    await server.asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not server.client.usable
    await server.client.closed
    assert gone == [server.client]


async def test_cancelling_as_the_reply_arrives_closes_the_connection(listen: Listen) -> None:
    server = Server(answer(b"late"))
    server.client, _ = await connect(await listen(server))
    client = server.client

    def cancel(_: bytes) -> None:
        task.cancel()  # between the bytes and the task that waits for them

    task = asyncio.create_task(client.exchange(REQUEST, 30, cancel))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not client.usable
    await client.closed


async def test_silence_is_a_timeout_only_past_the_deadline(listen: Listen) -> None:
    server = Server()
    server.client, _ = await connect(await listen(server))
    client = server.client
    task = asyncio.create_task(client.exchange(REQUEST, 30))
    await server.asked.wait()
    now = asyncio.get_running_loop().time()
    client.expire(now + 29)
    assert not task.done()
    client.expire(now + 31)
    with pytest.raises(TransientFault) as caught:
        await task
    assert caught.value.code == "aws_timeout"
    await client.closed


async def test_each_piece_moves_the_deadline(listen: Listen) -> None:
    asked, go = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        asked.set()
        await go.wait()
        writer.write(WHOLE[:20])
        await reader.read()

    client, _ = await connect(await listen(serve))
    task = asyncio.create_task(client.exchange(REQUEST, 30))
    await asked.wait()
    client.deadline = 0.0
    go.set()
    await client.arrived.wait()
    assert client.deadline > asyncio.get_running_loop().time() + 29
    client.expire(client.deadline)
    with pytest.raises(TransientFault):
        await task
    await client.closed


async def test_a_reply_that_drips_in_has_one_deadline(
    listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REPLY_S_MAX", 0.0)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    server = Server(head, *[b"x"] * 100)
    server.client, _ = await connect(await listen(server))
    client = server.client
    task = asyncio.create_task(client.exchange(REQUEST, 30))
    await server.asked.wait()
    deadline = client.deadline
    while client.pieces <= 100:
        await asyncio.sleep(0)
    assert client.deadline == deadline, "no byte moves it"
    client.expire(deadline)
    with pytest.raises(TransientFault, match="never all of it") as caught:
        await task
    assert caught.value.code == "aws_timeout"
    await client.closed


async def assert_oversize(listen: Listen, handler: Handler) -> None:
    """The handler's reply is too long, and its connection is closed."""
    client, _ = await connect(await listen(handler))
    with pytest.raises(TransientFault) as caught:
        await client.exchange(REQUEST, 30)
    assert caught.value.code == "aws_oversize_reply"
    await client.closed


async def test_headers_over_their_limit_are_a_fault(listen: Listen) -> None:
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"X-More: " + SECRET * 40 + b"\r\n")
            await writer.drain()

    await assert_oversize(listen, flood)


async def test_a_body_over_its_limit_is_a_fault(
    listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BODY_BYTES_MAX", 100_000)

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
            await writer.drain()

    await assert_oversize(listen, flood)


async def test_ten_messages_of_a_mebibyte_all_escaped(listen: Listen) -> None:
    body = b"\\u0000" * (10 * 1024 * 1024)  # 60 MiB: more than SQS can send, and within the bound
    assert (await exchange(listen, answer(body))).body == body


async def test_a_large_request_is_sent_whole(listen: Listen) -> None:
    sizes: list[int] = []

    async def measure(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, _, body = await read_request(reader)
        sizes.append(len(body))
        writer.write(answer())
        await reader.read()

    client, _ = await connect(await listen(measure))
    body = b"x" * 3_000_000
    head = b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % len(body)
    assert (await client.exchange(head + body, 30)).status == 200
    assert sizes == [len(body)]
    client.close()
    await client.closed


async def test_a_connection_is_stale_only_if_it_closed_before_any_byte_of_a_later_answer(
    listen: Listen,
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer())
        await read_request(reader)

    client, _ = await connect(await listen(serve))
    await client.exchange(REQUEST, 30)
    assert not client.went_stale
    with pytest.raises(TransientFault) as caught:
        await client.exchange(REQUEST, 30)
    assert caught.value.code == "aws_connection"
    assert client.went_stale


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 "])
async def test_not_stale_on_the_first_exchange_or_after_a_byte(listen: Listen, said: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        if said:
            writer.write(answer())
            await read_request(reader)
            writer.write(said)
            await writer.drain()
            await client.arrived.wait()

    client, _ = await connect(await listen(serve))
    if said:
        await client.exchange(REQUEST, 30)
        client.arrived.clear()
    with pytest.raises(TransientFault):
        await client.exchange(REQUEST, 30)
    assert not client.went_stale


def test_a_reply_hides_its_content() -> None:
    shown: list[Any] = [repr(Reply(200, SECRET, SECRET)), *Reply(200, SECRET, b"").__rich_repr__()]
    assert shown == ["Reply(200)", 200]
