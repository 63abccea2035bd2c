"""Who may read what from the status server.

On loopback without a token, every user of the machine may read everything. A web page that is open
in a browser may not: the Host header must name this address (against DNS rebinding), and the Origin
must be ours. Off loopback, or with a token, everything except `/livez` and `/readyz` needs the
token. Those two tell only ages and codes, and a supervisor has no token.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from sqs2pg.errors import SettingsError
from sqs2pg.keys.loopback import is_loopback
from sqs2pg.settings import StatusSettings

COOKIE = "sqs2pg_status"
OPEN = frozenset({"/livez", "/readyz"})
_NO_HOST = re.compile(r"[\s,/?#\\]")  # of a URL's other parts, or of a header that came twice
TOKEN_MIN = 16
"""Minimum length of a token, characters."""


class Refusal(NamedTuple):
    """Why a request is refused."""

    status: int
    what: str


class Access:
    """The rules for one address."""

    def __init__(self, token: str = "", *, loopback: bool = True, hosts: str = "") -> None:
        self.token = token
        self._loopback = loopback
        self._names = {"localhost", *(name.strip().lower() for name in hosts.split(",") if name)}

    @classmethod
    def from_settings(cls, settings: StatusSettings) -> Access:
        """Return the rules of `[status]`. Raises SettingsError if the token cannot be read."""
        host = settings.address.rpartition(":")[0].strip("[]")
        token = read_token(settings)
        if settings.tap and not token:
            raise SettingsError(
                "status.tap is on, and no token is set",
                code="tap_token",
                hint="set status.token_file, or SQS2PG_STATUS__TOKEN: its holders see the rows",
            )
        # Without a host it listens on all addresses.
        return cls(token, loopback=bool(host) and is_loopback(host), hosts=settings.hosts)

    @property
    def closed(self) -> bool:
        """Whether only the probes are served: a token is needed, and none is set."""
        return not self._loopback and not self.token

    def refuse(self, path: str, headers: Mapping[str, str]) -> Refusal | None:
        """Return why a request is refused; None if it is not."""
        if path in OPEN:
            return None
        if self.token and self._bearer(headers.get("Authorization") or ""):
            return None  # no browser sends this header by itself
        host = headers.get("Host") or ""
        try:
            if host and not self._is_ours(host):
                return Refusal(403, "this Host is not a name of this address: see status.hosts")
            origin = headers.get("Origin")
            if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
                return Refusal(403, "cross-origin requests are refused")
        except ValueError:  # of urlsplit, which may quote the header
            return Refusal(400, "the Host or Origin header is malformed")
        site, mode = headers.get("Sec-Fetch-Site"), headers.get("Sec-Fetch-Mode")
        if site == "cross-site" and mode != "navigate":
            return Refusal(403, "cross-site requests are refused")
        if self.closed:
            return Refusal(401, "off loopback a token is needed, and none is set: see status.token")
        if self.token:
            known = self._cookie(headers.get("Cookie") or "")
            if known is None:
                return Refusal(400, "the Cookie header is malformed")
            if not known:
                return Refusal(401, "the token is needed: Authorization: Bearer …")
        return None

    def matches(self, token: str) -> bool:
        """Return whether this is the token."""
        return bool(self.token) and hmac.compare_digest(token.encode(), self.token.encode())

    def cookie(self) -> str:
        """Return the Set-Cookie header for a client that gave the token."""
        return f"{COOKIE}={self._cookie_value()}; HttpOnly; SameSite=Strict; Path=/"

    def _cookie_value(self) -> str:
        return hmac.new(self.token.encode(), b"sqs2pg/1/status-cookie", hashlib.sha256).hexdigest()

    def _cookie(self, header: str) -> bool | None:
        """Return whether the cookie is ours; None if the header is malformed."""
        from http.cookies import CookieError, SimpleCookie  # only a browser sends one

        try:
            morsel = SimpleCookie(header).get(COOKIE)
        except CookieError:
            return None
        if morsel is None:
            return False
        # An escape may stand for a character that no cookie has (RFC 6265, section 4.1.1).
        ours = self._cookie_value()
        return hmac.compare_digest(morsel.value, ours) if morsel.value.isascii() else None

    def _bearer(self, header: str) -> bool:
        kind, _, token = header.partition(" ")
        return kind.lower() == "bearer" and self.matches(token.strip())

    def _is_ours(self, host: str) -> bool:
        """Return whether a Host is a name of this address. Raises ValueError if it is malformed."""
        parts = urlsplit(f"//{host}")
        if _NO_HOST.search(host) or (parts.port or 0) < 0:  # `port` raises for what is no number
            raise ValueError("malformed Host")
        name = (parts.hostname or "").rstrip(".")
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self._names or name.endswith(".localhost")
        return True  # an address cannot be rebound


def read_token(settings: StatusSettings) -> str:
    """Return the token, "" if none is set. Raises SettingsError."""
    token = settings.token
    if settings.token_file:
        try:
            token = Path(settings.token_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise SettingsError(
                f"status.token_file {settings.token_file} cannot be read",
                hint="check the path and its permissions",
            ) from None
    if token and (len(token) < TOKEN_MIN or not token.isascii() or not token.isprintable()):
        raise SettingsError(
            f"status.token is not {TOKEN_MIN} or more printable ASCII characters",
            hint="make one: openssl rand -hex 32",
        )
    return token
