"""SQLSTATE: what an error of PostgreSQL means, and the fault that we raise instead of it.

The only place that reads a driver's error. It decides what the error is about: a row (the message
goes to quarantine), the ledger's own key (a duplicate), or the server and the network (try again).

Must never do: let a driver's message out. It may quote the row. Only SQLSTATE and the names of
schema, table, column and constraint leave this module.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import NamedTuple

import msgspec
import psycopg

from sqs2pg.errors import (
    FatalFault,
    PermanentFault,
    SettingsError,
    Sqs2pgError,
    Stage,
    TransientFault,
)
from sqs2pg.postgres.sqlstate_hints import STATEMENT_MODE_HINT, hint_of

# PostgreSQL documentation, appendix A. These classes are about a row's data, or a trigger or a
# constraint raises them. Everything else (08, 25, 40, 42, 53, 55, 57, 58, XX, …) is about the
# server, and must never send a message to quarantine.
_ROW_CLASSES = frozenset({"20", "21", "22", "23", "27", "2F", "38", "39", "44", "P0"})
# The only one of class 54: a value too large for its index or its type. 54001, 54011 and 54023
# are about the server and the statement.
_ROW_TOO_LARGE = "54000"
# A trigger may raise classes of its own: appendix A leaves those that begin with I to Z or 5 to 9
# to implementations, except for the ones that PostgreSQL itself has taken.
_TAKEN = frozenset({"53", "54", "55", "57", "58", "72", "F0", "HV", "P0", "XX"})

COLUMN_STATES = frozenset({"22001", "22003", "22P02", "22007", "22008", "23502"})
"""A column does not take the value: too long, out of range, not of its type, NULL. The table may
have changed since the rows were made for it."""
MOVED_MEANWHILE = (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected)
"""A statement met a row that somebody else was moving to another partition, or changing in another
order. It has done nothing."""
STORED_MEANWHILE = (psycopg.errors.UniqueViolation, psycopg.errors.DeadlockDetected)
"""A statement met a row that somebody else had stored since it looked. It has done nothing."""
LOCKED_MEANWHILE = (psycopg.errors.LockNotAvailable,)
"""A table was locked by somebody else for longer than the statement would wait."""
DEADLOCK_DETECTED = "40P01"
INSUFFICIENT_PRIVILEGE = "42501"
# Policies of row-level security refuse a row with the SQLSTATE of a missing privilege. Only the
# function that raises it tells them apart, in every language and through poolers.
_OF_POLICIES = "ExecWithCheckOptions"
# The server is going away, or has become a standby.
_GOING_AWAY = ("08", "25", "57")

# What a command meets that may end by itself: the connection broke, the server stops, starts or
# lacks something for now, or somebody held a lock. PgBouncer has one SQLSTATE, 08P01, for all that
# it says of a server that is away.
_PASSING = ("08", "40", "53", "55P03", "57")

_COPY_LINE = re.compile(r"^COPY [^\n]*?, line (\d+)(?:, column ([^:\n]+):)?", re.MULTILINE)

# "Partition key of the failing row contains (column) = (value).", in the server's language. It
# quotes the row: nothing but the day of a date or timestamp, which is the whole key, is taken.
_KEY_DAY = re.compile(r"\) = \((\d{4,}-\d\d-\d\d)(?: \d\d:\d\d:\d\d[0-9.:+-]*)?\)[.。]?\Z")

STATEMENT_MODE = "statement pooling mode"
"""PgBouncer's words where a transaction begins in that mode; the place of such a fault."""

# A server's answer, whatever its language: "SEVERITY:  message", with two spaces. libpq's own
# texts have no such thing.
_ANSWERED = ":  "


class _Refusal(NamedTuple):
    """One way in which a connection does not come about."""

    words: tuple[str, ...]
    """Patterns, one of which is in the text: words of PostgreSQL, PgBouncer or pgpool-II."""
    fault: Callable[[str], Sqs2pgError]
    """Makes the fault, given the server's name."""
    state: str = ""
    """What an SQLSTATE begins with that says the same."""
    answered: bool = False
    """Only where the text is a server's answer."""


_REFUSALS = (
    _Refusal(
        # libpq's own, before or instead of connecting.
        words=(
            *(r'invalid "?\w+"? value: ', "invalid integer value", "bad value for "),
            "definition of service",
        ),
        fault=lambda where: SettingsError(
            f"an option of the connection string to {where} has a value that libpq does not know",
            hint="look at sslmode, target_session_attrs, channel_binding, connect_timeout, service "
            "and the like, in sink.dsn, DATABASE_URL and PG*",
        ),
    ),
    _Refusal(
        words=("hot standby mode", r"session is (not )?read-only"),
        fault=lambda where: TransientFault(
            f"PostgreSQL at {where} is not the server that target_session_attrs asks for",
            code="postgres_08004",
            hint="wait for the failover, name the other server too, or change target_session_attrs",
        ),
    ),
    _Refusal(
        # "SASL authentication failed" is PgBouncer's.
        words=(
            *("authentication failed", "no password supplied", "FATAL:  role ", "no such user"),
            "login rejected",
        ),
        state="28",
        fault=lambda where: FatalFault(
            f"PostgreSQL at {where} refused the login",
            code="postgres_28000",
            hint=hint_of("28000"),
        ),
    ),
    _Refusal(
        words=(r"pg_hba\.conf",),
        fault=lambda where: FatalFault(
            f"pg_hba.conf of {where} does not admit this user, database, address and encryption",
            code="postgres_28000",
            hint="set sslmode=require where the server wants TLS, or add an entry to pg_hba.conf",
        ),
    ),
    _Refusal(
        # A certificate is missing, unreadable, not trusted or another host's; or one side insists
        # on encryption and the other does not offer it. A TLS connection that is cut ("SSL SYSCALL
        # error") is none of these.
        words=("certificate", "private key file", "does not support SSL", "SSL required"),
        fault=lambda where: FatalFault(
            f"TLS with PostgreSQL at {where} failed",
            code="postgres_tls",
            hint="check sslmode and sslrootcert of the connection string",
        ),
    ),
    _Refusal(
        words=("channel binding", "authentication method requirement", "GSSAPI"),
        fault=lambda where: FatalFault(
            f"PostgreSQL at {where} does not log in the way that the connection string demands",
            code="postgres_28000",
            hint="check channel_binding, require_auth and gssencmode of the connection string",
        ),
    ),
    _Refusal(
        words=(r"database(?s:.)*does not exist", "no such database"),
        state="3D000",
        fault=lambda where: FatalFault(
            f"the database of {where} does not exist",
            code="postgres_3D000",
            hint="create it (createdb), or correct the name in sink.dsn or DATABASE_URL; a pooler "
            "lists the databases that it knows in its own settings",
        ),
    ),
    _Refusal(
        words=("is starting up", "is shutting down", "recovery", "not currently accepting"),
        state="57P03",
        fault=lambda where: TransientFault(
            f"PostgreSQL at {where} takes no connection now (SQLSTATE 57P03)",
            code="postgres_57P03",
            hint="it starts, stops or is closed for maintenance: wait, or see its log",
        ),
    ),
    _Refusal(
        words=(
            *("too many connections", "too many clients", "connection slots are reserved"),
            "no more connections allowed",
        ),
        state="53300",
        fault=lambda where: TransientFault(
            f"PostgreSQL at {where} takes no connection now (SQLSTATE 53300)",
            code="postgres_53300",
            hint="raise max_connections, or the limit of the role or the pooler, or use fewer",
        ),
    ),
    _Refusal(
        words=("permission denied for database",),
        answered=True,
        fault=lambda where: FatalFault(
            f"this login may not connect to the database of {where} (SQLSTATE 42501)",
            code="postgres_42501",
            hint="ask the owner of the database to GRANT CONNECT ON DATABASE to it",
        ),
    ),
    _Refusal(
        words=(
            *("startup parameter", "unrecognized configuration parameter"),
            "invalid value for parameter",
        ),
        answered=True,
        fault=lambda where: FatalFault(
            f"PostgreSQL, or a pooler, at {where} refuses a parameter of the connection string",
            code="postgres_08P01",
            hint="take it out of the string's `options` or of PGOPTIONS; PgBouncer accepts those "
            "that its ignore_startup_parameters lists",
        ),
    ),
    _Refusal(
        words=("",),
        answered=True,
        fault=lambda where: TransientFault(
            f"PostgreSQL, or a pooler, at {where} answers and refuses the connection",
            code="postgres_08004",
            hint="its log says why: a limit, a setting, or a server behind a pooler that is away",
        ),
    ),
)
"""Their order matters: a path or a name in the text may hold the words of a later one."""


class Verdict(Enum):
    """What a PostgreSQL error means for the messages of the batch."""

    DUPLICATE = "duplicate"
    """The ledger has a key of the batch already: take the slow path."""
    NO_PARTITION = "no_partition"
    """The ledger lacks a day: attach it and try again."""
    NO_TARGET_PARTITION = "no_target_partition"
    """The target has no partition for a row: its owner makes one, and the row is good."""
    BAD_ROW = "bad_row"
    """The target rejects a row: take the slow path and find it."""
    TRANSIENT = "transient"
    """Nothing is wrong with the messages: refresh, back off, try again."""


class DatabaseFault(msgspec.Struct, frozen=True):
    """An error of the server, without its message: safe to log and to keep."""

    verdict: Verdict
    sqlstate: str
    place: str = ""
    """Constraint, column or table name, never a value. Or STATEMENT_MODE."""
    line: int | None = None
    """The line of the COPY that the error names, from 1."""
    table: str = ""
    """`schema.table` where the error names one."""
    day: str = ""
    """The day, as an ISO date, that the table has no partition for, where it is partitioned by one
    column of days or times. No other value of a row is ever taken from an error."""

    @property
    def reason(self) -> str:
        """The quarantine reason for a row that the database rejects."""
        return "rejected_by_database"

    @property
    def detail(self) -> str:
        """SQLSTATE and the constraint or column, for the quarantine row."""
        return f"{self.sqlstate} {self.place}".strip()

    def permanent(self, table: str) -> PermanentFault:
        """Return the fault that quarantines the row, which was for this table."""
        return PermanentFault(self.reason, self.detail, stage=Stage.WRITE, table=table)

    @property
    def closes_session(self) -> bool:
        """Whether the next try needs a new connection."""
        return self.sqlstate.startswith(_GOING_AWAY)


def diagnose(error: psycopg.Error) -> DatabaseFault:
    """Return what the error means, from its SQLSTATE and the names it gives."""
    diag = error.diag
    state = error.sqlstate or "08006"  # no SQLSTATE: the connection broke below the protocol
    # The context quotes the row after line and column: take number and name alone.
    match = _COPY_LINE.search(diag.context or "")
    line = int(match[1]) if match else None
    column = match[2] if match else None
    place = diag.constraint_name or diag.column_name or column or diag.table_name or ""
    if STATEMENT_MODE in str(error):
        place = STATEMENT_MODE
    table = f"{diag.schema_name}.{diag.table_name}" if diag.table_name else ""
    if diag.schema_name in ("sqs2pg", "pii"):
        if state == "23505" and (diag.table_name or "").startswith("delivery"):
            return DatabaseFault(Verdict.DUPLICATE, state, place)
        if state == "23514" and not diag.constraint_name:
            return DatabaseFault(Verdict.NO_PARTITION, state, place)
        return DatabaseFault(Verdict.TRANSIENT, state, place, table=table)
    if state == "23514" and diag.table_name and not (diag.constraint_name or diag.datatype_name):
        # No CHECK of a table or a domain, nor a RAISE, which names neither: no partition.
        found = _KEY_DAY.search(diag.message_detail or "")
        day = found[1] if found else ""
        return DatabaseFault(Verdict.NO_TARGET_PARTITION, state, place, None, table, day)
    if state == INSUFFICIENT_PRIVILEGE and diag.source_function == _OF_POLICIES:
        return DatabaseFault(Verdict.BAD_ROW, state, "row_security", line, table)
    if is_row_state(state):
        return DatabaseFault(Verdict.BAD_ROW, state, place, line, table)
    return DatabaseFault(Verdict.TRANSIENT, state, place, table=table)


def is_row_state(sqlstate: str) -> bool:
    """Whether an SQLSTATE, raised while writing to the target, is about the row."""
    family = sqlstate[:2]
    return (
        family in _ROW_CLASSES
        or sqlstate == _ROW_TOO_LARGE
        or (family not in _TAKEN and family[0] in "56789IJKLMNOPQRSTUVWYZ")
    )


def explain(error: psycopg.Error) -> FatalFault:
    """Return an error for people from a database error, by its SQLSTATE alone."""
    fault = diagnose(error)
    if fault.place == STATEMENT_MODE:
        return FatalFault(
            "a pooler in statement pooling mode is in between: it allows no transactions "
            f"(SQLSTATE {fault.sqlstate})",
            code=f"postgres_{fault.sqlstate}",
            hint=STATEMENT_MODE_HINT,
        )
    about = f" on {fault.table}" if fault.table and fault.place not in fault.table else ""
    told = FatalFault(
        f"PostgreSQL refused (SQLSTATE {fault.detail}{about})",
        code=f"postgres_{fault.sqlstate}",
        hint=hint_of(fault.sqlstate),
    )
    told.passes = fault.sqlstate.startswith(_PASSING)
    return told


@contextmanager
def explained() -> Iterator[None]:
    """Raise the FatalFault of `explain` instead of a database error, for commands."""
    try:
        yield
    except psycopg.Error as error:
        raise explain(error) from None


def transient(
    fault: DatabaseFault,
    what: str,
    *,
    hint: str = "",
    stage: Stage = Stage.WRITE,
    table: str = "",
) -> TransientFault:
    """Return the fault of work that failed and may be tried again. `what` failed, in words.

    `table`: the one that was being written, for errors that name none.
    """
    return TransientFault(
        f"{what} (SQLSTATE {fault.detail})",
        code=f"postgres_{fault.sqlstate}",
        hint=hint,
        stage=stage,
        table=fault.table or table,
        day=fault.day,
    )


@contextmanager
def retryable(what: str, *, hint: str = "", stage: Stage = Stage.WRITE) -> Iterator[None]:
    """Raise the TransientFault of `transient` instead of a database error."""
    try:
        yield
    except psycopg.Error as error:
        raise transient(diagnose(error), what, hint=hint, stage=stage) from None


def connect_fault(error: psycopg.Error, where: str) -> Sqs2pgError:
    """Return why no connection came about. `where` is the server, fit to print.

    libpq gives no SQLSTATE for most failures before a session exists, and its text is in the
    server's language. The few words looked for are protocol codes, or the English of libpq and
    of poolers.
    """
    state, text = error.sqlstate or "", str(error)
    for one in _REFUSALS:
        if one.answered and _ANSWERED not in text:
            continue
        if (one.state and state.startswith(one.state)) or any(
            re.search(words, text) for words in one.words
        ):
            return one.fault(where)
    return unreachable(where, state or "08001")


def unreachable(where: str, sqlstate: str) -> TransientFault:
    """Return the fault of a server that does not answer."""
    return TransientFault(
        f"PostgreSQL at {where} is not reachable",
        code=f"postgres_{sqlstate}",
        hint="check that it runs, and host, port and network (sink.dsn, DATABASE_URL or PG*)",
    )
