"""The connection string: where it points to, and its parts.

A string is never quoted in an error: it may hold a password. A character that is not
percent-encoded moves a piece of the password to where host, port or database stand (PostgreSQL
documentation, 34.1.1.2 "Connection URIs": user and password end at the first `@`, and before the
first `/`). So each part is checked for its form before anything prints it or connects to it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from sqs2pg.errors import SettingsError

_SCHEME = re.compile(r"postgres(?:ql)?://", re.IGNORECASE)
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")

# A name or an IPv4 address; an IPv6 address with its zone; the folder of a Unix socket; the name
# of an abstract one.
_HOST = re.compile(
    r"[\w.-]{0,253}|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%[\w.-]+)?|/[^\s@]*|@[\w./-]+", re.ASCII
)
_PORT = re.compile(r"[0-9]{0,5}", re.ASCII)
_PLAIN_NAME = re.compile(r"[\w $.+-]{1,63}")

_FROM_ENVIRONMENT = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "dbname": "PGDATABASE",
    "user": "PGUSER",
    "service": "PGSERVICE",
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "application_name": "PGAPPNAME",
}
_SECRETS = ("password", "sslpassword", "oauth_client_secret")
_DEFAULT_PORT = 5432

_ENCODED = {"@": "%40", "/": "%2F", "%": "%25"}
_FORM = (
    "postgresql://user:password@host:5432/dbname; in user, password and dbname write @ as %40, / "
    "as %2F, : as %3A, ? as %3F, # as %23, % as %25"
)


class Server(NamedTuple):
    """One server that a connection string names."""

    host: str
    """A name, an address, or the path of a local socket; empty for the default socket."""
    hostaddr: str
    """The address to connect to instead of the host's own; mostly empty."""
    port: int

    @property
    def address(self) -> str:
        """What is connected to."""
        return self.hostaddr or self.host

    @property
    def is_socket(self) -> bool:
        """Whether it is a local socket."""
        return not self.address or self.address.startswith(("/", "@"))


def resolve_dsn(dsn: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return the connection string: the setting, else DATABASE_URL, else "" for libpq's PG*."""
    return dsn or environ.get("DATABASE_URL", "")


def describe(dsn: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return `host:port/dbname` of a connection string: fit to print, no user, no password.

    Raises SettingsError where it cannot be parsed, or a part cannot be what it stands for.
    """
    options = _options(dsn, environ)
    port = options.get("port") or _DEFAULT_PORT
    name = options.get("dbname") or "(default database)"
    # A name that is allowed, but that may also be a piece of something else.
    shown = name if name == "(default database)" or _PLAIN_NAME.fullmatch(name) else "(database)"
    if _only_service_knows(options):
        service = options["service"]
        return f"service {service if _PLAIN_NAME.fullmatch(service) else '(hidden)'}"
    host = options.get("host") or options.get("hostaddr") or "local socket"
    return f"{host}:{port}/{shown}"


def hosts(dsn: str, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the hosts a connection string leads to; "" or a path means a local socket.

    "(service)" where only libpq's service file says. Raises SettingsError as `describe`.
    """
    options = _options(dsn, environ)
    if _only_service_knows(options):
        return ["(service)"]
    return [server.address for server in _servers(options)]


def dsn_options(dsn: str, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the keywords and values that string and environment give, secrets included.

    Of the environment those that name server, database, user, service, application and the
    connection's timeout. Raises SettingsError as `describe`.
    """
    return _options(dsn, environ)


def secret_parts(dsn: str) -> Iterator[str]:
    """Yield every text of a connection string that may be, or be a piece of, a secret.

    Of a string that cannot be right, all pieces of what stands before its last `@`.
    """
    scheme = _SCHEME.match(dsn)
    rest = dsn[scheme.end() :] if scheme else dsn
    try:
        options = _options(dsn, {})
    except SettingsError:
        login = rest.rpartition("@")[0] or ("" if "=" in dsn else rest)
        password = login.partition(":")[2]
        yield from (password, *re.split(r"[@:/?#]", password))
        try:
            options = {name: str(value) for name, value in conninfo_to_dict(dsn).items()}
        except (psycopg.ProgrammingError, UnicodeDecodeError):
            return
    yield from (options[name] for name in _SECRETS if options.get(name))
    if scheme:  # as it is written, too
        yield rest.partition("@")[0].partition("/")[0].partition(":")[2]


def network_address(dsn: str, environ: Mapping[str, str] = os.environ) -> tuple[str, int] | None:
    """Return the first host and port of a connection string; None for a local socket.

    None also where only libpq's service file says. Raises SettingsError as `describe`.
    """
    options = _options(dsn, environ)
    first = _servers(options)[0]
    return None if first.is_socket else (first.address, first.port)


class Login(NamedTuple):
    """A server, and the connection string that leads to it alone."""

    host: str
    port: int
    user: str
    dsn: str


def logins_of(dsn: str, environ: Mapping[str, str] = os.environ) -> list[Login]:
    """Return host, port and user of each server of a connection string, as libpq finds them.

    Raises SettingsError where a host or the user is missing.
    """
    options = _options(dsn, environ)
    user = options.get("user", "")
    servers = _servers(options)
    # The token is made for a name: an address alone, or a socket, does not do.
    if not user or not all(one.host and not one.host.startswith(("/", "@")) for one in servers):
        raise SettingsError(
            "sink.iam_auth needs a host and a user",
            hint="name both in the connection string (sink.dsn, DATABASE_URL) or PGHOST, PGUSER",
        )
    return [
        Login(
            one.host,
            one.port,
            user,
            make_conninfo(dsn, host=one.host, hostaddr=one.hostaddr, port=one.port),
        )
        for one in servers
    ]


def _only_service_knows(options: Mapping[str, str]) -> bool:
    return bool(options.get("service")) and not (options.get("host") or options.get("hostaddr"))


def _servers(options: Mapping[str, str]) -> list[Server]:
    """Return the servers, as libpq pairs hosts, addresses and ports."""
    names, addresses, ports = (
        options.get(name, "").split(",") for name in ("host", "hostaddr", "port")
    )
    count = len(addresses) if options.get("hostaddr") else len(names)
    for given in (names, addresses, ports):
        if len(given) not in (1, count):
            raise SettingsError(
                "the database connection string does not give one port per host",
                hint="give one port for all hosts, or as many as hosts; likewise for hostaddr",
            )
    names, addresses, ports = (
        given if len(given) == count else given * count for given in (names, addresses, ports)
    )
    return [
        Server(name, address, int(port or _DEFAULT_PORT))
        for name, address, port in zip(names, addresses, ports, strict=True)
    ]


def _options(dsn: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return what string and environment give. Raises SettingsError where it cannot be right."""
    _check_encoding(dsn)
    options = {name: str(value) for name, value in _parse(dsn).items() if value is not None}
    for part, form in (("host", _HOST), ("hostaddr", _HOST), ("port", _PORT)):
        _check_form(options.get(part, ""), part, form, "sink.dsn or DATABASE_URL")
    for name, variable in _FROM_ENVIRONMENT.items():
        if value := environ.get(variable, ""):
            options.setdefault(name, value)
            if name in ("host", "hostaddr", "port"):
                _check_form(value, name, _PORT if name == "port" else _HOST, variable)
    return options


def _check_encoding(dsn: str) -> None:
    """Raise SettingsError where a URI has a character that ends user and password too early."""
    scheme = _SCHEME.match(dsn)
    if scheme is None:
        return
    rest = dsn[scheme.end() :]
    wrong = ""
    login, at, place = rest.partition("@")
    if _BAD_PERCENT.search(rest):
        wrong = "%"
    elif at and "/" in login:
        # A query may have an @: `/dbname?user=me@realm`.
        path, mark, query = login.partition("?")
        wrong = "" if mark and "/" in path and "=" in query else "/"
    elif "@" in place.partition("?")[0]:
        wrong = "@"
    if wrong:
        raise _unescaped(wrong)


def _unescaped(character: str) -> SettingsError:
    return SettingsError(
        f"the database connection string (sink.dsn or DATABASE_URL) has an unescaped {character} "
        "in its user, password or database",
        hint=f"write {character} as {_ENCODED[character]}; nothing was connected to",
    )


def _check_form(value: str, part: str, form: re.Pattern[str], origin: str) -> None:
    for one in value.split(","):
        if not form.fullmatch(one) or (form is _PORT and one and not 0 < int(one) < 65_536):
            raise SettingsError(
                f"the {part} of the database ({origin}) cannot be a {part}: "
                "it may be a piece of the password",
                hint=f"correct it, or percent-encode what stands before it: {_FORM}",
            )


def _parse(dsn: str) -> dict[str, Any]:
    try:
        return dict(conninfo_to_dict(dsn))
    except UnicodeDecodeError:  # such as 100%cash: %ca is no UTF-8
        raise _unescaped("%") from None
    except psycopg.ProgrammingError:
        # libpq's message quotes the string, password included.
        raise SettingsError(
            "the database connection string (sink.dsn or DATABASE_URL) cannot be parsed",
            hint=_FORM,
        ) from None
