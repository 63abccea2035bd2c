"""Where requests go: the parts of the endpoint's URL, and the proxy in front of it, if any.

Place in the flow: read once at start, for the dialer and the signer. No I/O.
Must never show a proxy's password.
"""

from __future__ import annotations

import base64
import os
import re
import sys
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from sqs2pg.errors import SettingsError
from sqs2pg.keys import loopback

_PORTS = {"http": 80, "https": 443}
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9._~/-]*")
"""Paths that SigV4's canonical form does not change, with or without double encoding."""


class Endpoint(msgspec.Struct, frozen=True):
    """One SQS endpoint. `host` is in lower case, and an IPv6 address without its brackets."""

    scheme: str
    host: str
    port: int
    path: str = "/"

    @property
    def secure(self) -> bool:
        """Whether it is reached over TLS."""
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        """`host:port`, as CONNECT names it."""
        return f"{_bracketed(self.host)}:{self.port}"

    @property
    def host_header(self) -> str:
        """The Host header: with the port only if it is not the scheme's own."""
        return _bracketed(self.host) if self.port == _PORTS[self.scheme] else self.authority


class Proxy(msgspec.Struct, frozen=True):
    """One HTTP proxy. `authorization` is the Proxy-Authorization header's value, or empty."""

    host: str
    port: int
    authorization: str = ""

    def __repr__(self) -> str:
        return f"Proxy({self.host}:{self.port})"

    def __rich_repr__(self) -> Any:
        yield f"{self.host}:{self.port}"


def parse_endpoint(url: str) -> Endpoint:
    """Return the parts of a URL. Raises SettingsError if it is not `http(s)://host[:port]`."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    path = parts.path or "/"
    if (
        parts.scheme not in _PORTS
        or not parts.hostname
        or parts.query
        or parts.fragment
        or parts.username is not None
        or not _PLAIN_PATH.fullmatch(path)
    ):
        raise SettingsError(
            "the SQS endpoint is not a URL like https://host or http://host:port",
            hint="correct AWS_ENDPOINT_URL_SQS or AWS_ENDPOINT_URL, or unset both for AWS itself",
        )
    host = parts.hostname.lower()
    return Endpoint(parts.scheme, host, port or _PORTS[parts.scheme], path)


def find_proxy(endpoint: Endpoint) -> Proxy | None:
    """Return the proxy that the environment names (HTTPS_PROXY, HTTP_PROXY, NO_PROXY), or None.

    By the standard library's rules, as in botocore. Unlike botocore, requests to this machine's own
    addresses never go through a proxy, which could not reach them. Raises SettingsError for a
    proxy that is not an http:// URL.
    """
    if sys.platform == "linux" and not any(n.lower().endswith("_proxy") for n in os.environ):
        return None  # what is looked up below; most processes need not load it
    import urllib.request

    url = urllib.request.getproxies().get(endpoint.scheme, "")
    if not url or is_loopback(endpoint.host):
        return None
    if urllib.request.proxy_bypass(endpoint.authority):
        return None
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme != "http" or not parts.hostname:
        raise SettingsError(
            f"the proxy for {endpoint.scheme} is not a URL like http://host:port",
            hint=f"correct {endpoint.scheme.upper()}_PROXY, or list the endpoint in NO_PROXY",
        )
    authorization = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(pair.encode()).decode()
    return Proxy(parts.hostname, port or 80, authorization)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine, by a name of RFC 6761 (`sqs.localhost`) too."""
    return host.endswith(".localhost") or loopback.is_loopback(host)
