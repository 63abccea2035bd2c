"""The workers of a pipeline by their heartbeats, and what the status shows of the database.

Place in the flow: beside it. The status asks every few seconds, on a connection of its own. No
message depends on it. Must never read a body.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
import time
import uuid
from datetime import UTC, datetime
from typing import Any

import msgspec

from sqs2pg import __version__
from sqs2pg.errors import Stage
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.pauses import READ, Pause
from sqs2pg.postgres.sqlstate import retryable

STALE_S = 60.0
"""A worker whose last heartbeat is older than this is not counted."""
FORGET_S = 3600.0
"""The row of a worker whose last heartbeat is older than this is removed: when a worker starts, and
as often by each one."""
ROOM_FRESH_S = 5.0
"""For so long the pipelines of a process use what one of them has read of the server, seconds."""
WORKERS_MAX = 200
REASONS_MAX = 50
QUARANTINE_MAX = 100_000
"""The latest quarantined messages that are counted: a queue full of bad messages must not make this
slow."""

_BEAT = """INSERT INTO sqs2pg.worker AS w (id, pipeline, host, pid, version, started_at, state,
    received, written, duplicate, quarantined, in_flight, per_second, last_fault, batch_s_max)
VALUES (%s, %s, %s, %s, %s, to_timestamp(%s), %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (id) DO UPDATE SET heartbeat_at = now(), state = excluded.state,
    received = excluded.received, written = excluded.written, duplicate = excluded.duplicate,
    quarantined = excluded.quarantined, in_flight = excluded.in_flight,
    per_second = excluded.per_second, last_fault = excluded.last_fault,
    batch_s_max = excluded.batch_s_max"""
_FORGET = """DELETE FROM sqs2pg.worker
WHERE pipeline = %s AND heartbeat_at < now() - make_interval(secs => %s)"""
_WORKERS = """SELECT id::text, host, pid, version, extract(epoch FROM started_at)::float8,
    extract(epoch FROM now() - heartbeat_at)::float8, state, received, written, duplicate,
    quarantined, in_flight, per_second::float8, last_fault
FROM sqs2pg.worker WHERE pipeline = %s AND heartbeat_at > now() - make_interval(secs => %s)
ORDER BY host, pid LIMIT %s"""
_QUARANTINE = """SELECT reason, count(*), extract(epoch FROM max(received_at))::float8
FROM (SELECT reason, received_at FROM sqs2pg.quarantine
      WHERE pipeline = %s AND replayed_at IS NULL ORDER BY id DESC LIMIT %s) AS latest
GROUP BY reason ORDER BY count(*) DESC, reason LIMIT %s"""
_HEAD_ROOM = """SELECT (SELECT sum(numbackends) FROM pg_catalog.pg_stat_database)::int,
    current_setting('max_connections')::int
        - current_setting('superuser_reserved_connections')::int,
    pg_catalog.pg_database_size(current_database()),
    (SELECT max(version) FROM sqs2pg.key WHERE series = 'pseudonym' AND active),
    (SELECT count(*) FROM sqs2pg.migration)::int"""


class Worker(msgspec.Struct):
    """One worker process as of its last heartbeat. Counts are messages since it started."""

    id: str
    host: str
    pid: int
    version: str
    started_at: float
    """Seconds since the epoch."""
    heartbeat_s: float
    """Seconds since its last heartbeat, by the database's clock."""
    state: str
    received: int
    written: int
    duplicate: int
    quarantined: int
    in_flight: int
    per_second: float
    last_fault: str


class Reason(msgspec.Struct):
    """How many quarantined messages have one reason and were not replayed."""

    reason: str
    messages: int
    latest_at: float
    """When the latest one was quarantined, seconds since the epoch."""


class HeadRoom(msgspec.Struct):
    """What the database server uses and allows."""

    connections: int
    connections_max: int
    """Connections of the server, without those reserved for superusers."""
    size_bytes: int
    key_version: int | None
    """The active version of the pseudonym root."""
    migrations: int
    """How many migrations the database has had."""


class Heartbeat(msgspec.Struct):
    """What a worker reports with a heartbeat."""

    state: str
    received: int
    written: int
    duplicate: int
    quarantined: int
    in_flight: int
    per_second: float
    last_fault: str
    batch_s_max: float
    """Its longest batch so far, from its start to its COMMIT, in seconds."""


class WorkerRegistry:
    """The workers of one pipeline, and this process's row among them."""

    def __init__(self, pipeline: int, started_at: float) -> None:
        self._pipeline = pipeline
        self._started_at = started_at
        self.id = str(uuid.uuid4())
        self._host = socket.gethostname()
        self._forget_at = 0.0  # time.monotonic()

    async def beat(self, session: Session, heartbeat: Heartbeat) -> None:
        """Renew our row, and remove the rows of workers long gone. Raises TransientFault."""
        row = [self.id, self._pipeline, self._host, os.getpid(), __version__, self._started_at]
        await _run(session, _BEAT, [*row, *msgspec.structs.astuple(heartbeat)])
        now = time.monotonic()
        if now >= self._forget_at:
            await _run(session, _FORGET, [self._pipeline, FORGET_S])
            self._forget_at = now + FORGET_S

    async def leave(self, session: Session) -> None:
        """Remove our row, because this worker ends normally. Raises TransientFault."""
        await _run(session, "DELETE FROM sqs2pg.worker WHERE id = %s", [self.id])

    async def workers(self, session: Session) -> list[Worker]:
        """Return the workers with a recent heartbeat, including this one."""
        rows = await _run(session, _WORKERS, [self._pipeline, STALE_S, WORKERS_MAX])
        return [Worker(*row) for row in rows]

    async def pause(self, session: Session) -> Pause | None:
        """Return the pipeline's pause; None where it is not paused. Raises TransientFault."""
        return Pause.of(await _run(session, READ, [self._pipeline]))

    async def quarantine(self, session: Session) -> list[Reason]:
        """Return how many messages are in quarantine per reason, the most frequent reason first."""
        rows = await _run(session, _QUARANTINE, [self._pipeline, QUARANTINE_MAX, REASONS_MAX])
        return [Reason(*row) for row in rows]


class SharedHeadRoom:
    """What the server of one database uses and allows, read once for all pipelines of a process.

    It takes the server longer than anything else that the status asks.
    """

    def __init__(self) -> None:
        self._room: HeadRoom | None = None
        self._read_at = 0.0

    async def read(self, session: Session) -> HeadRoom:
        """Return what was read at most ROOM_FRESH_S ago. Raises TransientFault."""
        now = time.monotonic()
        if self._room is None or now - self._read_at > ROOM_FRESH_S:
            self._room, self._read_at = await head_room(session), now
        return self._room


async def head_room(session: Session) -> HeadRoom:
    """Return what the server uses and allows, and the active key version."""
    [row] = await _run(session, _HEAD_ROOM, None)
    return HeadRoom(*row)


async def _run(session: Session, statement: str, values: list[Any] | None) -> list[tuple[Any, ...]]:
    with retryable("the database could not be read for the status", stage=Stage.STATUS):
        return await session.execute(statement, values)


async def certificate_expiry(host: str, port: int, timeout_s: float = 5.0) -> float | None:
    """Return when a PostgreSQL server's certificate expires, seconds since the epoch.

    None where the server does not speak TLS (SSLRequest of the protocol's message flow, section
    54.2.11) or does not answer. The certificate is read without being trusted: the pipeline's own
    connection verifies it, as sslmode says.
    """
    try:
        return await asyncio.wait_for(
            asyncio.to_thread(_read_expiry, host, port, timeout_s), 2 * timeout_s
        )
    except (OSError, ValueError):
        return None


def _read_expiry(host: str, port: int, timeout_s: float) -> float | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection((host, port), timeout_s) as plain:
        plain.sendall(struct.pack("!II", 8, 80877103))
        if plain.recv(1) != b"S":
            return None
        with context.wrap_socket(plain, server_hostname=host) as secure:
            certificate = secure.getpeercert(binary_form=True)
    if not certificate:
        return None
    from cryptography import x509  # many modules, and most connections need none

    expiry: datetime = x509.load_der_x509_certificate(certificate).not_valid_after_utc
    return expiry.astimezone(UTC).timestamp()
