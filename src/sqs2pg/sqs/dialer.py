"""Opens connections to the endpoint: names, addresses, proxies, TLS.

Place in the flow: the pool asks for a connection, and this module takes every step until it can
carry a request. It resolves the name for each connection, so that it follows an endpoint that
moves.

Promises: certificates are always verified; every step ends within the connect timeout.
Must never fall back to plain HTTP, or bypass a proxy that refuses.
"""

from __future__ import annotations

import asyncio
import errno
import re
import socket
import ssl
from collections.abc import Callable
from itertools import chain, zip_longest
from typing import Any

from sqs2pg.errors import FatalFault, Stage, TransientFault
from sqs2pg.sqs.connection import HttpConnection
from sqs2pg.sqs.endpoint import Endpoint, Proxy
from sqs2pg.sqs.outbox import Outbox

ADDRESSES_MAX = 4
"""How many addresses of a name are tried, IPv6 and IPv4 in turn."""
_TUNNEL_HEAD_BYTES_MAX = 16 * 1024
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r]")
_PROXY_AUTHENTICATION_REQUIRED = 407


def make_tls(ca_bundle: str) -> ssl.SSLContext:
    """Return a verifying TLS context (1.2 or newer) that trusts the roots in one PEM file.

    Raises OSError if the file cannot be read (ssl.SSLError if it holds no certificate).
    """
    context = ssl.create_default_context(cafile=ca_bundle)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


class Dialer:
    """Opens connections to one endpoint, directly or through one proxy.

    `connect_timeout_s` bounds each step by itself: resolving the name, trying an address, the
    tunnel, the TLS handshake. `tls` is None for a plain HTTP endpoint, and only for that.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        tls: ssl.SSLContext | None,
        proxy: Proxy | None = None,
        connect_timeout_s: float = 5.0,
    ) -> None:
        if endpoint.secure != (tls is not None):
            raise ValueError("an https endpoint needs a TLS context, an http one none")
        self._endpoint = endpoint
        self._tls = tls
        self._proxy = proxy
        self._timeout_s = connect_timeout_s
        self._outbox = Outbox()

    async def dial(self, on_close: Callable[[HttpConnection], None]) -> HttpConnection:
        """Return a connection, ready for its first exchange; `on_close` as in HttpConnection.

        Raises TransientFault (`aws_dns`, `aws_unreachable`, `aws_tls`, `aws_proxy`); no request was
        sent then. Raises FatalFault for an untrusted certificate or a proxy that wants other
        credentials.
        """
        loop, where, proxy = asyncio.get_running_loop(), self._endpoint.authority, self._proxy
        where += f" through the proxy {proxy.host}:{proxy.port}" if proxy else ""
        try:
            sock = await self._connect(loop)
            if self._proxy is not None and self._tls is not None:
                await self._tunnel(loop, sock)
            async with asyncio.timeout(self._timeout_s):
                _, connection = await loop.create_connection(
                    lambda: HttpConnection(on_close, self._outbox),
                    sock=sock,
                    ssl=self._tls,
                    server_hostname=self._endpoint.host if self._tls else None,
                )
        except TimeoutError:
            raise _fault(
                "aws_unreachable", f"no connection within {self._timeout_s:g} seconds", where
            ) from None
        except ssl.SSLCertVerificationError:
            raise FatalFault(
                f"the TLS certificate of {where} is not trusted",
                code="aws_tls_untrusted",
                hint="name the file of its root certificates in AWS_CA_BUNDLE",
            ) from None
        except ssl.SSLError as error:
            reason = re.sub(r"\W", "_", error.reason or "unknown")
            raise _fault("aws_tls", f"the TLS handshake failed ({reason})", where) from None
        except OSError as error:
            raise _fault(
                "aws_unreachable", f"no connection ({_name_error(error)})", where
            ) from None
        return connection

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> socket.socket:
        """Return a TCP connection to the proxy or the endpoint: the first address that answers."""
        to = self._proxy or self._endpoint
        last: Exception = OSError(errno.EHOSTUNREACH, "")
        for family, kind, protocol, _, address in await self._resolve(loop, to.host, to.port):
            sock = socket.socket(family, kind, protocol)
            try:
                sock.setblocking(False)
                async with asyncio.timeout(self._timeout_s):
                    await loop.sock_connect(sock, address)
            except OSError as error:  # TimeoutError is one
                sock.close()
                last = error
            except BaseException:
                sock.close()
                raise
            else:
                return sock
        raise last

    async def _resolve(self, loop: asyncio.AbstractEventLoop, host: str, port: int) -> list[Any]:
        """Return up to ADDRESSES_MAX results of getaddrinfo, the families in turn (RFC 8305, 4)."""
        try:
            async with asyncio.timeout(self._timeout_s):
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError):  # UnicodeError: a label over 63 bytes
            raise TransientFault(
                f"the name {host} does not resolve",
                code="aws_dns",
                stage=Stage.RECEIVE,
                hint="check the region's spelling, AWS_ENDPOINT_URL and the name server",
            ) from None
        first = [entry for entry in found if entry[0] == found[0][0]]
        second = [entry for entry in found if entry[0] != found[0][0]]
        turns = chain.from_iterable(zip_longest(first, second))
        return [entry for entry in turns if entry is not None][:ADDRESSES_MAX]

    async def _tunnel(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        """Ask the proxy for a tunnel to the endpoint (CONNECT; RFC 9110, section 9.3.6)."""
        assert self._proxy is not None
        authority = self._endpoint.authority
        request = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n"
        if self._proxy.authorization:
            request += f"Proxy-Authorization: {self._proxy.authorization}\r\n"
        try:
            async with asyncio.timeout(self._timeout_s):
                await loop.sock_sendall(sock, f"{request}\r\n".encode("latin-1"))
                head = b""
                while b"\r\n\r\n" not in head and len(head) < _TUNNEL_HEAD_BYTES_MAX:
                    if not (data := await loop.sock_recv(sock, 4096)):
                        break
                    head += data
            _check_tunnel(head, f"{self._proxy.host}:{self._proxy.port}")
        except BaseException:
            sock.close()
            raise


def _check_tunnel(head: bytes, proxy: str) -> None:
    """Raise unless the proxy opened the tunnel (any 2xx) and nothing has come through it yet."""
    line = _STATUS_LINE.match(head)
    status = int(line[1]) if line else 0
    if status == _PROXY_AUTHENTICATION_REQUIRED:
        raise FatalFault(
            f"the proxy {proxy} wants other credentials (HTTP 407)",
            code="aws_proxy_refused",
            hint="write them into HTTPS_PROXY as http://user:password@host:port",
        )
    if not 200 <= status <= 299 or not head.endswith(b"\r\n\r\n"):
        raise _fault("aws_proxy", f"the proxy {proxy} opened no tunnel (HTTP {status})")


def _name_error(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, type(error).__name__)


def _fault(code: str, what: str, where: str = "") -> TransientFault:
    return TransientFault(
        f"SQS endpoint{where and ' '}{where}: {what}",
        code=code,
        stage=Stage.RECEIVE,
        hint="check the network, AWS_REGION, and AWS_ENDPOINT_URL or AWS_ENDPOINT_URL_SQS",
    )
