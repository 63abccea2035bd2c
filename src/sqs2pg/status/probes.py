"""What the watch reads for one pipeline: its queue, its dead letters, its database, its fleet.

Each reading sets gauges and notes in `Seen` what the status page and `/readyz` tell. The database
is read on a connection that is made for it and closed again, so that a fleet holds none for this.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from sqs2pg.errors import FatalFault, Sqs2pgError, TransientFault
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.workers import Beat, Reason, Roster, Worker, certificate_expiry
from sqs2pg.sqs.backlog import DeadLetterQueue, OldestMessage, has_cloudwatch
from sqs2pg.sqs.client import SqsClient
from sqs2pg.sqs.queue import QueueSource
from sqs2pg.telemetry.batch_log import Journal
from sqs2pg.telemetry.liveness import Check, Pulse
from sqs2pg.telemetry.log import flush_repeats
from sqs2pg.telemetry.metrics import Metrics
from sqs2pg.telemetry.periodic import Reading

CLOUDWATCH_EVERY_S = 60.0
"""SQS reports to CloudWatch once a minute."""
CERTIFICATE_EVERY_S = 3600.0


class Counts(Protocol):
    """What a consumer counts; messages."""

    received: int
    written: int
    duplicate: int
    quarantined: int


class Seen(msgspec.Struct):
    """What was read last. Written by the watch, read by the status thread."""

    workers: list[Worker] = []
    quarantine: list[Reason] = []
    database: Check = Check(ok=False, detail="not read yet")
    schema: Check = Check(ok=False, detail="not read yet")
    keys: Check = Check(ok=False, detail="not read yet")
    cloudwatch_age_s: float | None = None
    cloudwatch_at: float = -math.inf


class Readings:
    """The readings of one process."""

    def __init__(
        self,
        source: QueueSource,
        client: SqsClient,
        metrics: Metrics,
        pulse: Pulse,
        journal: Journal,
        roster: Roster,
        counts: Counts,
        *,
        connect: Callable[[], Awaitable[Session]],
        key_version: Callable[[], int],
        migrations: int,
        database_host: tuple[str, int] | None,
        every_s: float,
        cloudwatch: bool,
    ) -> None:
        """`database_host` is where to look for a certificate: None for a local socket."""
        self._source = source
        self._client = client
        self._metrics = metrics
        self._pulse = pulse
        self._journal = journal
        self._roster = roster
        self._counts = counts
        self._connect = connect
        self._key_version = key_version
        self._migrations = migrations
        self._database_host = database_host
        self._every_s = every_s
        self._dead_letters = DeadLetterQueue(client, source.queue_url)
        ask = cloudwatch and has_cloudwatch(client.endpoint_host)
        self._oldest = OldestMessage(source.queue_url, client.region) if ask else None
        self._empty_at = metrics.started_at
        self._settled_before = 0
        self._beat_before = time.monotonic()
        self.seen = Seen()
        metrics.receiving_paused.set_function(lambda: float(pulse.paused))

    def all(self) -> list[Reading]:
        """Return the readings, and how often each is due."""
        every_s = self._every_s
        readings = [
            Reading("queue", every_s, self.read_queue),
            Reading("dead_letters", every_s, self.read_dead_letters),
            Reading("database", every_s, self.read_database),
            Reading("credentials", every_s, self.read_credentials),
        ]
        if self._oldest:
            readings.append(Reading("cloudwatch", CLOUDWATCH_EVERY_S, self.read_cloudwatch))
        if self._database_host:
            readings.append(Reading("certificate", CERTIFICATE_EVERY_S, self.read_certificate))
        return readings

    async def read_queue(self) -> None:
        """Read the queue's depth and, with what is known, the age of its oldest message."""
        asked = time.time()
        visible, in_flight, delayed = await self._source.depth()
        metrics = self._metrics
        metrics.queue_visible.set(visible)
        metrics.queue_in_flight.set(in_flight)
        metrics.queue_delayed.set(delayed)
        if not visible + in_flight:
            self._empty_at = asked
        metrics.queue_oldest_age.set(self._oldest_age_s(waiting=bool(visible + in_flight)))

    def _oldest_age_s(self, *, waiting: bool) -> float:
        """CloudWatch's number while it is fresh; else since the oldest SentTimestamp of the last
        batch, or since the queue was last seen empty, whichever is later.
        """
        seen, now = self.seen, time.time()
        if seen.cloudwatch_age_s is not None and now - seen.cloudwatch_at < 3 * CLOUDWATCH_EVERY_S:
            return seen.cloudwatch_age_s
        if not waiting:
            return 0.0
        return max(0.0, now - max(self._empty_at, self._metrics.oldest_sent_ms / 1000))

    async def read_cloudwatch(self) -> None:
        """Read CloudWatch's age of the oldest message."""
        assert self._oldest is not None
        self.seen.cloudwatch_age_s = await self._oldest.age_s()
        self.seen.cloudwatch_at = time.time()

    async def read_dead_letters(self) -> None:
        """Read the dead-letter queue's depth."""
        visible = await self._dead_letters.visible()
        self._metrics.dlq_visible.set(math.nan if visible is None else visible)

    async def read_credentials(self) -> None:
        """Note when the AWS credentials expire, and tell what the log kept back."""
        expiry = self._client.credential_expiry()
        self._metrics.credential_expiry.set(math.inf if expiry is None else expiry)
        self._journal.flush()
        flush_repeats()

    async def read_certificate(self) -> None:
        """Look at the database server's certificate."""
        assert self._database_host is not None
        expiry = await certificate_expiry(*self._database_host)
        self._metrics.certificate_expiry.set(math.nan if expiry is None else expiry)

    async def read_database(self) -> None:
        """Give a heartbeat; read the fleet, the quarantine, head-room, schema and keys."""
        metrics, seen, roster = self._metrics, self.seen, self._roster
        try:
            session = await self._connect()
            try:
                await roster.beat(session, self._beat())
                seen.workers = await roster.workers(session)
                seen.quarantine = await roster.quarantine(session)
                room = await roster.head_room(session)
            finally:
                await session.close()
        except (TransientFault, FatalFault) as fault:
            metrics.database_up.set(0)
            seen.database = Check(ok=False, detail=fault.code)
            raise
        metrics.database_up.set(1)
        metrics.database_connections.set(room.connections)
        metrics.database_connections_max.set(room.connections_max)
        metrics.database_bytes.set(room.size_bytes)
        metrics.fleet_workers.set(len(seen.workers))
        metrics.quarantine_open.clear()
        for reason in seen.quarantine:
            metrics.quarantine_open.labels(reason.reason).set(reason.messages)
        seen.database = Check(ok=True)
        migrated = room.migrations >= self._migrations
        seen.schema = Check(migrated, "" if migrated else "the database lacks a migration")
        current = room.key_version == self._key_version()
        seen.keys = Check(current, "" if current else "another key version is active")

    async def leave(self) -> None:
        """Take this worker's row back at an orderly end; one that cannot be is stale soon."""
        try:
            session = await self._connect()
            try:
                await self._roster.leave(session)
            finally:
                await session.close()
        except Sqs2pgError:
            pass

    def ready(self) -> tuple[bool, bytes]:
        """Return whether messages can be written now, and each check's result, as JSON."""
        seen = self.seen
        database = seen.database
        if database.ok and self._pulse.paused:
            database = Check(ok=False, detail="writes fail; messages are held")
        checks = {"keys": seen.keys, "schema": seen.schema, "database": database}
        ok = all(check.ok for check in checks.values())
        return ok, msgspec.json.encode({"ok": ok, **checks})

    def _beat(self) -> Beat:
        counts, now = self._counts, time.monotonic()
        settled = counts.written + counts.duplicate + counts.quarantined
        elapsed_s = max(0.001, now - self._beat_before)
        per_second = (settled - self._settled_before) / elapsed_s
        self._settled_before, self._beat_before = settled, now
        recent = self._journal.recent
        return Beat(
            state="paused" if self._pulse.paused else "running",
            received=counts.received,
            written=counts.written,
            duplicate=counts.duplicate,
            quarantined=counts.quarantined,
            in_flight=self._source.held_count,
            per_second=round(per_second, 1),
            last_fault=recent[-1].code if recent else "",
            batch_s_max=round(self._metrics.batch_s_max, 3),
        )
