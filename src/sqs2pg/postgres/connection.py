"""The PostgreSQL connection: connect, execute, COPY, and what an error means.

One `Session` is one connection with autocommit, so that every BEGIN and COMMIT is a statement of
ours and is counted. Nothing is kept in the session between transactions: a pooler in transaction
mode (PgBouncer) may hand each one to another server process.

Must never do: let a driver's message out. It may quote the row. Only SQLSTATE and the names of
schema, table, column and constraint leave this module.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from enum import Enum
from typing import Any, Self

import msgspec
import psycopg
from psycopg.conninfo import conninfo_to_dict

from sqs2pg.errors import FatalFault, SettingsError, Sqs2pgError, TransientFault


class Verdict(Enum):
    """What a PostgreSQL error means for the messages of the batch."""

    DUPLICATE = "duplicate"
    """The ledger has a key of the batch already: take the slow path."""
    NO_PARTITION = "no_partition"
    """The ledger lacks a day: attach it and try again."""
    BAD_ROW = "bad_row"
    """The target rejects a row: take the slow path and find it."""
    TRANSIENT = "transient"
    """Nothing is wrong with the messages: refresh, back off, try again."""


# PostgreSQL documentation, appendix A. These classes speak of a row's data or of what a trigger
# or constraint thinks of it. Everything else (08, 25, 40, 42, 53, 55, 57, 58, XX, …) speaks of
# the world, and must never send a message to quarantine.
_ROW_CLASSES = frozenset({"20", "21", "22", "23", "27", "2F", "38", "39", "44", "P0"})
# Of class 54 this one alone: a value too large for its index or its type. 54001, 54011 and 54023
# speak of the server and of the statement.
_ROW_TOO_LARGE = "54000"
# Classes a trigger may raise of its own: appendix A leaves I-Z and 5-9 to implementations, less
# the ones PostgreSQL itself has taken.
_TAKEN = frozenset({"53", "54", "55", "57", "58", "72", "F0", "HV", "P0", "XX"})

_COPY_LINE = re.compile(r"^COPY [^\n]*?, line (\d+)(?:, column ([^:\n]+):)?", re.MULTILINE)


class DatabaseFault(msgspec.Struct, frozen=True):
    """An error of the server, without its message: safe to log and to keep."""

    verdict: Verdict
    sqlstate: str
    place: str = ""
    """Constraint, column or table name, never a value."""
    line: int | None = None
    """The line of the COPY it speaks of, from 1."""

    @property
    def reason(self) -> str:
        """The quarantine reason for a row that the database rejects."""
        return "rejected_by_database"

    @property
    def detail(self) -> str:
        """SQLSTATE and the constraint or column, for the quarantine row."""
        return f"{self.sqlstate} {self.place}".strip()


def diagnose(error: psycopg.Error) -> DatabaseFault:
    """Return what the error means, from its SQLSTATE and the names it gives."""
    diag = error.diag
    state = error.sqlstate or "08006"  # no SQLSTATE: the connection broke below the protocol
    # The context quotes the row after line and column: take number and name alone.
    match = _COPY_LINE.search(diag.context or "")
    line = int(match[1]) if match else None
    column = match[2] if match else None
    place = diag.constraint_name or diag.column_name or column or diag.table_name or ""
    if diag.schema_name in ("sqs2pg", "pii"):
        if state == "23505" and (diag.table_name or "").startswith("delivery"):
            return DatabaseFault(Verdict.DUPLICATE, state, place)
        if state == "23514" and not diag.constraint_name:
            return DatabaseFault(Verdict.NO_PARTITION, state, place)
        return DatabaseFault(Verdict.TRANSIENT, state, place)
    if is_row_state(state):
        return DatabaseFault(Verdict.BAD_ROW, state, place, line)
    return DatabaseFault(Verdict.TRANSIENT, state, place)


def is_row_state(sqlstate: str) -> bool:
    """Whether an SQLSTATE, raised while writing to the target, speaks of the row."""
    family = sqlstate[:2]
    return (
        family in _ROW_CLASSES
        or sqlstate == _ROW_TOO_LARGE
        or (family not in _TAKEN and family[0] in "56789IJKLMNOPQRSTUVWYZ")
    )


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


def words(dsn: str) -> dict[str, str]:
    """Return the parts of a connection string by name, secrets included; none where it is wrong."""
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


class Session:
    """One connection. `statements` counts what was sent, for tests and metrics."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection
        self.statements = 0

    @classmethod
    async def connect(
        cls,
        dsn: str,
        *,
        timeout_s: int = 10,
        application_name: str = "sqs2pg",
        password: str | None = None,
    ) -> Self:
        """Connect. `password` wins over the string's own.

        Raises TransientFault, or FatalFault where trying again will not help.
        """
        where = describe(dsn)
        try:
            connection = await psycopg.AsyncConnection.connect(
                dsn,
                autocommit=True,
                prepare_threshold=None,
                connect_timeout=timeout_s,
                application_name=application_name,
                client_encoding="UTF8",
                keepalives_idle=30,
                keepalives_interval=10,
                keepalives_count=3,
                tcp_user_timeout=60_000,
                password=password,  # None: the string's own
            )
        except psycopg.Error as error:
            raise _connect_fault(error, where) from None
        except OSError:
            raise _away(where, "08001") from None
        return cls(connection)

    @property
    def broken(self) -> bool:
        """Whether the connection is gone and must be replaced."""
        return self._connection.closed or self._connection.broken

    async def execute(
        self, statement: str, parameters: Sequence[Any] | None = None
    ) -> list[tuple[Any, ...]]:
        """Run a statement, or several joined by `;` when there are no parameters.

        Returns the rows of the last statement that gives rows. Raises psycopg.Error.
        """
        self.statements += _count(statement)
        async with self._checked(), self._connection.cursor() as cursor:
            # The statements are the package's own text; no value is ever formatted in.
            await cursor.execute(statement, parameters)
            rows: list[tuple[Any, ...]] = []
            while True:
                if cursor.description is not None:
                    rows = await cursor.fetchall()
                if not cursor.nextset():
                    return rows

    async def copy(self, statement: str, text: str | bytes) -> int:
        """COPY `text` in; return the rows the server counted. Raises psycopg.Error."""
        self.statements += 1
        async with self._checked(), self._connection.cursor() as cursor:
            async with cursor.copy(statement) as copy:
                await copy.write(text)
            return cursor.rowcount

    @asynccontextmanager
    async def _checked(self) -> AsyncIterator[None]:
        """Make one kind of fault of every way in which a connection can end.

        A server that ends COPY and session in one go (it met the end of our stream) makes psycopg
        raise ValueError, which would pass for a fault of ours.
        """
        try:
            yield
        except psycopg.Error:
            raise
        except Exception as error:
            if not self.broken:
                raise
            raise psycopg.OperationalError(type(error).__name__) from None

    async def rollback(self) -> None:
        """Leave a failed transaction; a broken connection has left it already."""
        if not self.broken:
            try:
                await self.execute("ROLLBACK")
            except psycopg.Error:
                await self.close()

    async def close(self) -> None:
        """Close the connection; the server rolls back what was open."""
        await self._connection.close()


def _count(statement: str) -> int:
    return statement.count(";") + (not statement.rstrip().endswith(";"))


def _away(where: str, state: str) -> TransientFault:
    return TransientFault(
        f"PostgreSQL at {where} is not reachable",
        code=f"postgres_{state}",
        hint="check that it runs, and host, port and network (sink.dsn, DATABASE_URL or PG*)",
    )


_REFUSED = ("authentication failed", "no password supplied", "FATAL:  role ")
# A certificate that is missing, unreadable, not trusted or another host's; and no common mind
# about encryption. A TLS connection that is cut ("SSL SYSCALL error") is none of these.
_TLS_FAILED = ("certificate", "private key file", "does not support SSL", "SSL required")


# Refused for now, by a server that is there: in libpq's and the server's English.
_REFUSED_FOR_NOW = {
    "57P03": ("is starting up", "is shutting down", "recovery"),
    "53300": ("too many connections", "too many clients", "connection slots are reserved"),
}


def _connect_fault(error: psycopg.Error, where: str) -> Sqs2pgError:
    # libpq gives no SQLSTATE for most failures before the session stands; its text is in the
    # server's language. The few words looked for are protocol codes, or the English of libpq and
    # PgBouncer. The order matters: a path or a name in the text may hold the words of a later one.
    state = error.sqlstate or ""
    text = str(error)
    if state.startswith("28") or any(words in text for words in _REFUSED):
        return FatalFault(
            f"PostgreSQL at {where} refused the login",
            code="postgres_28000",
            hint="check user and password (sink.dsn, DATABASE_URL, PGPASSWORD, ~/.pgpass)",
        )
    if "pg_hba.conf" in text:
        return FatalFault(
            f"pg_hba.conf of {where} does not admit this user, database, address and encryption",
            code="postgres_28000",
            hint="set sslmode=require where the server wants TLS, or add an entry to pg_hba.conf",
        )
    if any(words in text for words in _TLS_FAILED):
        return FatalFault(
            f"TLS with PostgreSQL at {where} failed",
            code="postgres_tls",
            hint="check sslmode and sslrootcert of the connection string",
        )
    if state == "3D000" or ("database" in text and "does not exist" in text):
        return FatalFault(
            f"the database of {where} does not exist",
            code="postgres_3D000",
            hint="create it (createdb), or correct the name in sink.dsn or DATABASE_URL",
        )
    for code, words in _REFUSED_FOR_NOW.items():
        if state == code or any(word in text for word in words):
            return TransientFault(
                f"PostgreSQL at {where} takes no connection now (SQLSTATE {code})",
                code=f"postgres_{code}",
                hint="57P03: it starts or stops; 53300: raise max_connections, or use fewer",
            )
    return _away(where, state or "08001")


async def wait_closed(sessions: Iterable[Session]) -> None:
    """Close what is open, all at once."""
    await asyncio.gather(*(session.close() for session in sessions), return_exceptions=True)
