"""The PostgreSQL connection: connect, execute, COPY, and transactions.

One `Session` is one connection with autocommit, so that every BEGIN and COMMIT is a statement of
ours and is counted. Nothing is kept in the session between transactions: a pooler in transaction
mode (PgBouncer) may hand each one to another server process.

Raises the driver's errors as they are, for `sqlstate` to read. Their messages may quote a row.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

import psycopg

from sqs2pg.postgres.binary_arrays import register_dumpers
from sqs2pg.postgres.dsn import describe, dsn_options
from sqs2pg.postgres.sqlstate import connect_fault, unreachable

CONNECT_TIMEOUT_S = 10
"""For each address, unless the connection string has its own connect_timeout."""
APPLICATION_NAME = "sqs2pg"
"""What the server shows of our sessions, unless the connection string names them."""
# What libpq takes for granted, or leaves to the operating system. A dead server is noticed within a
# minute. Only where the connection string does not say otherwise.
_DEFAULTS: dict[str, str | int] = {
    "fallback_application_name": APPLICATION_NAME,
    "connect_timeout": CONNECT_TIMEOUT_S,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
# psycopg keeps to connect_timeout, and does not read libpq's service file.
_UNLESS_SERVICE = ("keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout")
CANCEL_S = 0.5
"""How long a server may take for a request to cancel a statement before it is left."""
READ_COMMITTED = "ISOLATION LEVEL READ COMMITTED"
"""For `transaction`: each statement sees what was committed before it, whatever the role's default
is."""

DURABLE = """set_config('synchronous_commit',
           CASE current_setting('synchronous_commit')
               WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true)"""
"""For a SELECT at the start of a transaction: it survives a crash of the server once it has
committed, whatever the role's default. For this transaction alone, since a pooler may give the
session to somebody else."""


class _Connection(psycopg.AsyncConnection[Any]):
    """A connection that leaves a server that does not answer."""

    async def cancel_safe(self, *, timeout: float = CANCEL_S) -> None:  # noqa: ASYNC109  the driver's
        """Ask the server to cancel the statement under way; close the connection if it hangs.

        The driver asks where a coroutine is cancelled, and by itself waits up to ten seconds.
        """
        try:
            await super().cancel_safe(timeout=min(timeout, CANCEL_S))
        except psycopg.errors.CancellationTimeout as error:
            _forget_frames(error)
            await self.close()
            raise


class Session:
    """One connection. `statements` counts what was sent, for tests and metrics."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection
        self.statements = 0

    @classmethod
    async def connect(cls, dsn: str, *, password: str | None = None) -> Self:
        """Connect. `password` wins over the string's own; in all else the string wins over us.

        But for `client_encoding`, which is UTF8: the statements and rows that we send are UTF-8.

        Raises SettingsError where the string cannot be right, TransientFault, or FatalFault where
        trying again will not help.
        """
        where = describe(dsn)
        try:
            connection = await _Connection.connect(
                dsn,
                autocommit=True,
                prepare_threshold=None,
                **_defaults(dsn),
                client_encoding="UTF8",
                password=password,  # None: the string's own
            )
        except psycopg.Error as error:
            _forget_frames(error)
            raise connect_fault(error, where) from None
        except OSError:
            raise unreachable(where, "08001") from None
        except asyncio.CancelledError as cancelled:
            _forget_frames(cancelled)
            raise
        register_dumpers(connection.adapters)
        return cls(connection)

    @property
    def broken(self) -> bool:
        """Whether the connection is gone and must be replaced."""
        return self._connection.closed or self._connection.broken

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, a failed one included. Costs no round trip."""
        return bool(self._connection.pgconn.transaction_status)

    async def execute(
        self, statement: str, parameters: Sequence[Any] | None = None, *, binary: bool = False
    ) -> list[tuple[Any, ...]]:
        """Run a statement, or several joined by `;` when there are no parameters.

        Returns the rows of the last statement that gives rows. `binary`: have the server send them
        in its binary format, for one statement with large byte strings. Raises psycopg.Error.
        """
        self.statements += _count(statement)
        async with self._checked(), self._connection.cursor() as cursor:
            # The package's own text; `identifiers` has quoted every name and text in it.
            await cursor.execute(statement, parameters, binary=binary)
            rows: list[tuple[Any, ...]] = []
            while True:
                if cursor.description is not None:
                    rows = await cursor.fetchall()
                if not cursor.nextset():
                    return rows

    async def count(self, statement: str) -> int:
        """Run one statement; return how many rows its command tag counts. Raises psycopg.Error."""
        self.statements += 1
        async with self._checked(), self._connection.cursor() as cursor:
            await cursor.execute(statement)
            return cursor.rowcount

    async def copy(self, statement: str, text: str | bytes) -> int:
        """COPY `text` in; return how many rows the server counted. Raises psycopg.Error."""
        self.statements += 1
        async with self._checked(), self._connection.cursor() as cursor:
            async with cursor.copy(statement) as copy:
                # The driver sends a large text in parts. Parts of a view are no copies.
                await copy.write(memoryview(text) if isinstance(text, bytes) else text)
            return cursor.rowcount

    @asynccontextmanager
    async def transaction(self, *first: str, mode: str = "") -> AsyncIterator[Transaction]:
        """Run the body in one transaction: COMMIT at its end, ROLLBACK where it raises.

        `first` are statements that are sent together with BEGIN. `mode` is what BEGIN takes:
        isolation level, READ ONLY. Where the body is cancelled the connection is closed, because
        it is unknown what the server is doing. Raises psycopg.Error.
        """
        transaction = Transaction(self)
        try:
            begin = f"BEGIN {mode}".rstrip()
            transaction.opened = await self.execute(";\n".join((begin, *first)))
            yield transaction
            await transaction.commit()
        except Exception:
            await transaction.rollback()
            raise
        except BaseException:
            await self.close()
            raise

    @asynccontextmanager
    async def _checked(self) -> AsyncIterator[None]:
        """Raise psycopg.Error for every way in which a connection can end.

        Where the server ends COPY and session at once (it met the end of our stream) psycopg raises
        ValueError, which would look like a fault of this package.
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

    def abandon(self) -> None:
        """Close the connection at once, where nobody can wait."""
        self._connection.pgconn.finish()


class NoSession(Session):
    """Stands where no session is held: whoever needs one connects first."""

    def __init__(self) -> None:
        self.statements = 0

    @property
    def broken(self) -> bool:
        """True: it must be replaced before it is used."""
        return True

    @property
    def in_transaction(self) -> bool:
        """False."""
        return False

    async def close(self) -> None:
        """Do nothing."""

    def abandon(self) -> None:
        """Do nothing."""


class Transaction:
    """The transaction that a session is in, for as long as the body of `transaction` runs."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._ended = False
        self.opened: list[tuple[Any, ...]] = []
        """The rows that the last of its first statements returned."""

    async def commit(self, *last: str) -> None:
        """Commit now. `last` are statements that are sent together with COMMIT.

        Does nothing where the transaction has ended. Raises psycopg.Error.
        """
        if not self._ended:
            await self._session.execute(";\n".join((*last, "COMMIT")))
            self._ended = True

    async def rollback(self) -> None:
        """Undo everything; the rest of the body runs outside a transaction."""
        if not self._ended:
            self._ended = True
            await self._session.rollback()


def _defaults(dsn: str) -> dict[str, Any]:
    """Return our options of a connection, without those that string or environment give."""
    given = dsn_options(dsn)
    kept = _UNLESS_SERVICE if "service" in given else ()
    return {name: v for name, v in _DEFAULTS.items() if name not in given and name not in kept}


def _count(statement: str) -> int:
    return statement.count(";") + (not statement.rstrip().endswith(";"))


def _forget_frames(error: BaseException) -> None:
    """Drop the local variables of the finished frames that raised an error, and of those before it.

    The frames of a connection that failed to open hold its socket, and the error that they hold
    holds them. The cyclic collector runs rarely here: each attempt at a server that hangs would
    leave an open socket, which becomes an idle session there once the server goes on.
    """
    seen: BaseException | None = error
    while seen is not None:
        before = seen.__context__
        traceback.clear_frames(seen.__traceback__)
        seen = before


async def wait_closed(sessions: Iterable[Session]) -> None:
    """Close what is open, all at once."""
    await asyncio.gather(*(session.close() for session in sessions), return_exceptions=True)
