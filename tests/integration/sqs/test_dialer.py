"""Dialling: TLS is verified, proxies are obeyed, addresses are tried in turn, steps are bounded."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from sqs2pg.errors import FatalFault, TransientFault
from sqs2pg.sqs.connection import HttpConnection
from sqs2pg.sqs.dialer import ADDRESSES_MAX, Dialer, make_tls
from sqs2pg.sqs.endpoint import Endpoint, Proxy

from .loopback import Handler, Listen, answer, read_request

REQUEST = b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n"


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await read_request(reader)
        writer.write(answer(b"hello"))


class Caller:
    """Dials and exchanges once, and closes whatever was made."""

    def __init__(self) -> None:
        self.made: list[HttpConnection] = []

    async def __call__(self, dialer: Dialer) -> bytes:
        connection = await dialer.dial(lambda _: None)
        self.made.append(connection)
        return (await connection.exchange(REQUEST, 30)).body


@pytest.fixture
async def call() -> AsyncIterator[Caller]:
    caller = Caller()
    yield caller
    for connection in caller.made:
        connection.abort()
        await connection.closed


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def bundle(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "roots.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


def server_tls(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


async def test_plain_http_reaches_the_server(listen: Listen, call: Caller) -> None:
    endpoint = Endpoint("http", "127.0.0.1", await listen(serve))
    assert await call(Dialer(endpoint, tls=None)) == b"hello"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_tls_reaches_a_server_with_a_trusted_certificate(
    listen: Listen, call: Caller, authority: trustme.CA, bundle: str, host: str
) -> None:
    versions: list[str] = []

    async def note_version(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        versions.append(writer.get_extra_info("ssl_object").version())
        await serve(reader, writer)

    port = await listen(note_version, tls=server_tls(authority, host))
    endpoint = Endpoint("https", host, port)
    assert await call(Dialer(endpoint, tls=make_tls(bundle))) == b"hello"
    assert versions in (["TLSv1.2"], ["TLSv1.3"])


async def test_tls_closes_in_order(
    listen: Listen, call: Caller, authority: trustme.CA, bundle: str
) -> None:
    ended: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def to_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer())
        ended.set_result(await reader.read())

    port = await listen(to_the_end, tls=server_tls(authority, "127.0.0.1"))
    await call(Dialer(Endpoint("https", "127.0.0.1", port), tls=make_tls(bundle)))
    call.made[0].close()
    assert await ended == b""  # a close without its alert would have raised there
    await call.made[0].closed


@pytest.mark.parametrize("wrong", ["unknown authority", "another name"])
async def test_a_certificate_that_cannot_be_trusted_is_refused(
    listen: Listen, authority: trustme.CA, bundle: str, wrong: str
) -> None:
    signer, name = {
        "unknown authority": (trustme.CA(), "127.0.0.1"),
        "another name": (authority, "sqs.example"),
    }[wrong]
    port = await listen(serve, tls=server_tls(signer, name))
    with pytest.raises(FatalFault) as caught:
        await Dialer(Endpoint("https", "127.0.0.1", port), tls=make_tls(bundle)).dial(print)
    assert caught.value.code == "aws_tls_untrusted"
    assert "AWS_CA_BUNDLE" in caught.value.hint


async def test_a_server_without_tls_is_a_tls_fault(listen: Listen, bundle: str) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()

    port = await listen(plain)
    with pytest.raises(TransientFault) as caught:
        await Dialer(Endpoint("https", "127.0.0.1", port), tls=make_tls(bundle)).dial(print)
    assert caught.value.code == "aws_tls"


async def test_a_close_during_the_handshake_is_a_fault(listen: Listen, bundle: str) -> None:
    async def slam(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)

    port = await listen(slam)
    with pytest.raises(TransientFault) as caught:
        await Dialer(Endpoint("https", "127.0.0.1", port), tls=make_tls(bundle)).dial(print)
    assert caught.value.code in ("aws_unreachable", "aws_tls")


async def test_a_silent_handshake_times_out(listen: Listen, bundle: str) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            pass

    endpoint = Endpoint("https", "127.0.0.1", await listen(silent))
    dialer = Dialer(endpoint, tls=make_tls(bundle), connect_timeout_s=0.05)
    with pytest.raises(TransientFault, match=r"within 0\.05 seconds") as caught:
        await dialer.dial(print)
    assert caught.value.code == "aws_unreachable"


def test_tls_and_the_scheme_must_agree(bundle: str) -> None:
    for endpoint, tls in (
        (Endpoint("https", "h", 443), None),
        (Endpoint("http", "h", 80), make_tls(bundle)),
    ):
        with pytest.raises(ValueError, match="TLS"):
            Dialer(endpoint, tls=tls)
    context = make_tls(bundle)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


async def test_a_refused_connection_is_a_transient_fault(unused_port: int) -> None:
    with pytest.raises(TransientFault, match="ECONNREFUSED") as caught:
        await Dialer(Endpoint("http", "127.0.0.1", unused_port), tls=None).dial(print)
    assert caught.value.code == "aws_unreachable"


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port that the fixture holds, so that nobody can listen on it."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


async def test_a_host_that_does_not_resolve_is_named_in_the_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def resolve(*_: object, **__: object) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    with pytest.raises(TransientFault, match=r"sqs\.nowhere-1\.amazonaws\.com") as caught:
        await Dialer(Endpoint("http", "sqs.nowhere-1.amazonaws.com", 80), tls=None).dial(print)
    assert caught.value.code == "aws_dns"
    assert caught.value.hint


async def test_an_impossible_host_name_is_a_transient_fault() -> None:
    with pytest.raises(TransientFault) as caught:
        await Dialer(Endpoint("http", "x" * 64 + ".example", 80), tls=None).dial(print)
    assert caught.value.code == "aws_dns"


def addresses(*pairs: tuple[int, str, int]) -> list[Any]:
    return [
        (family, socket.SOCK_STREAM, 0, "", (host, port, 0, 0)[: 4 if ":" in host else 2])
        for family, host, port in pairs
    ]


async def test_addresses_are_tried_in_turn(
    listen: Listen, call: Caller, unused_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = await listen(serve)
    asked = []
    loop = asyncio.get_running_loop()
    getaddrinfo = loop.getaddrinfo

    async def resolve(host: str, port_: int, **options: Any) -> list[Any]:
        if host != "two.example":  # uvloop takes addresses through here too
            return await getaddrinfo(host, port_, **options)
        asked.append(host)
        bad = (socket.AF_INET6, "::1", unused_port)
        return addresses(bad, bad, bad, (socket.AF_INET, "127.0.0.1", port))

    dialer = Dialer(Endpoint("http", "two.example", port), tls=None)
    monkeypatch.setattr(loop, "getaddrinfo", resolve)
    assert await call(dialer) == b"hello"
    assert await call(dialer) == b"hello"
    assert asked == ["two.example"] * 2  # each connection resolves the name again


async def test_the_last_address_says_why(unused_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    loop = asyncio.get_running_loop()

    async def resolve(*_: object, **__: object) -> list[Any]:
        return addresses(*[(socket.AF_INET, "127.0.0.1", unused_port)] * 9)

    connect = loop.sock_connect

    async def count(sock: socket.socket, address: Any) -> None:
        tried.append(address)
        await connect(sock, address)

    monkeypatch.setattr(loop, "getaddrinfo", resolve)
    monkeypatch.setattr(loop, "sock_connect", count)
    with pytest.raises(TransientFault, match="ECONNREFUSED"):
        await Dialer(Endpoint("http", "many.example", unused_port), tls=None).dial(print)
    assert len(tried) == ADDRESSES_MAX


async def test_ipv6_addresses_are_reached(listen: Listen, call: Caller) -> None:
    try:
        port = await listen(serve, host="::1")
    except OSError:  # without IPv6 on the machine, the fault says so
        with pytest.raises(TransientFault):
            await call(Dialer(Endpoint("http", "::1", 9), tls=None))
        return
    assert await call(Dialer(Endpoint("http", "::1", port), tls=None)) == b"hello"


class Tunneller:
    """An HTTP proxy that answers CONNECT with `head` and, where it says 200, carries bytes."""

    def __init__(
        self, port: int, head: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n"
    ) -> None:
        self.port = port
        self.head = head
        self.asked: list[tuple[str, dict[str, str]]] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line, headers, _ = await read_request(reader)
        self.asked.append((line, headers))
        writer.write(self.head)
        await writer.drain()
        if b" 200 " not in self.head:
            return
        back_reader, back = await asyncio.open_connection("127.0.0.1", self.port)

        async def carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                sink.write(data)

        tasks = [
            asyncio.create_task(carry(reader, back)),
            asyncio.create_task(carry(back_reader, writer)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            back.transport.abort()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


async def test_tls_goes_through_the_tunnel_of_a_proxy(
    listen: Listen, call: Caller, authority: trustme.CA, bundle: str
) -> None:
    port = await listen(serve, tls=server_tls(authority, "sqs.example"))
    tunneller = Tunneller(port)
    proxy = Proxy("127.0.0.1", await listen(tunneller), "Basic dTpw")
    # The name does not resolve here: only the proxy needs to know it.
    dialer = Dialer(Endpoint("https", "sqs.example", 443), tls=make_tls(bundle), proxy=proxy)
    assert await call(dialer) == b"hello"
    line, headers = tunneller.asked[0]
    assert line == "CONNECT sqs.example:443 HTTP/1.1"
    assert headers["host"] == "sqs.example:443"
    assert base64.b64decode(headers["proxy-authorization"].removeprefix("Basic ")) == b"u:p"


@pytest.mark.parametrize(
    ("head", "code"),
    [
        (b"HTTP/1.1 503 Unavailable\r\n\r\n", "aws_proxy"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nnope", "aws_proxy"),
        (b"HTTP/1.1 200 OK\r\n\r\nearly bytes", "aws_proxy"),
        (b"gibberish\r\n\r\n", "aws_proxy"),
        (b"HTTP/1.1 200", "aws_proxy"),
        (b"", "aws_proxy"),
        (b"x" * 100_000, "aws_proxy"),
        (b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 1\r\n\r\nx", "refused"),
    ],
)
async def test_a_proxy_that_does_not_tunnel(
    listen: Listen, bundle: str, head: bytes, code: str
) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(head)
        await writer.drain()
        writer.write_eof()
        await reader.read()

    handler: Handler = refuse
    proxy = Proxy("127.0.0.1", await listen(handler))
    dialer = Dialer(Endpoint("https", "sqs.example", 443), tls=make_tls(bundle), proxy=proxy)
    expected: type[Exception] = FatalFault if code == "refused" else TransientFault
    with pytest.raises(expected) as caught:
        await dialer.dial(print)
    assert caught.value.code.startswith("aws_proxy")  # type: ignore[attr-defined]
    assert "nope" not in str(caught.value)


async def test_plain_http_goes_to_the_proxy_as_it_is(listen: Listen, call: Caller) -> None:
    proxy = Proxy("127.0.0.1", await listen(serve))
    dialer = Dialer(Endpoint("http", "sqs.example", 80), tls=None, proxy=proxy)
    assert await call(dialer) == b"hello"


async def test_cancelling_leaves_no_socket_behind(listen: Listen, bundle: str) -> None:
    begun = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        begun.set()
        await reader.read()

    port = await listen(silent)
    for dialer in (
        Dialer(Endpoint("https", "127.0.0.1", port), tls=make_tls(bundle)),
        Dialer(
            Endpoint("https", "sqs.example", 443),
            tls=make_tls(bundle),
            proxy=Proxy("127.0.0.1", port),
        ),
    ):
        begun.clear()
        task = asyncio.create_task(dialer.dial(print))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task  # a socket left open is a ResourceWarning, and so an error
