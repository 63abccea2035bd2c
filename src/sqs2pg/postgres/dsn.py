"""The connection string: where it points to, and its parts.

A string is never quoted in an error: it may hold a password.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from sqs2pg.errors import SettingsError


def resolve_dsn(dsn: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return the connection string: the setting, else DATABASE_URL, else "" for libpq's PG*."""
    return dsn or environ.get("DATABASE_URL", "")


def describe(dsn: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return `host:port/dbname` of a connection string: fit to print, no user, no password."""
    parts = _parts(dsn)
    host = parts.get("host") or parts.get("hostaddr") or environ.get("PGHOST") or "local socket"
    port = parts.get("port") or environ.get("PGPORT") or "5432"
    name = parts.get("dbname") or environ.get("PGDATABASE") or "(default database)"
    return f"{host}:{port}/{name}"


def hosts(dsn: str, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the hosts a connection string names; "" or a path means a local socket."""
    parts = _parts(dsn)
    value = parts.get("hostaddr") or parts.get("host") or environ.get("PGHOST") or ""
    return str(value).split(",")


def dsn_keywords(dsn: str) -> dict[str, str]:
    """Return the keywords and values of a connection string, secrets included.

    Empty where it cannot be parsed.
    """
    try:
        return {name: str(value) for name, value in _parts(dsn).items()}
    except SettingsError:
        return {}


def network_address(dsn: str, environ: Mapping[str, str] = os.environ) -> tuple[str, int] | None:
    """Return the first host and port of a connection string; None for a local socket."""
    host = hosts(dsn, environ)[0]
    port = str(_parts(dsn).get("port") or environ.get("PGPORT") or "5432").split(",")[0]
    if not host or host.startswith(("/", "@")) or not port.isdigit():
        return None
    return host, int(port)


def login_of(dsn: str, environ: Mapping[str, str] = os.environ) -> tuple[str, int, str]:
    """Return host, port and user of a connection string, as libpq would find them.

    Raises SettingsError where host or user is missing.
    """
    parts = _parts(dsn)
    host = parts.get("host") or environ.get("PGHOST") or ""
    user = parts.get("user") or environ.get("PGUSER") or ""
    if not host or not user:
        raise SettingsError(
            "sink.iam_auth needs a host and a user",
            hint="name both in the connection string (sink.dsn, DATABASE_URL) or PGHOST, PGUSER",
        )
    return str(host), int(parts.get("port") or environ.get("PGPORT") or 5432), str(user)


def _parts(dsn: str) -> dict[str, Any]:
    try:
        return dict(conninfo_to_dict(dsn))
    except psycopg.ProgrammingError:
        # libpq's message quotes the string, password included.
        raise SettingsError(
            "the database connection string (sink.dsn or DATABASE_URL) cannot be parsed",
            hint="postgresql://user:password@host:5432/dbname, special characters percent-encoded",
        ) from None
