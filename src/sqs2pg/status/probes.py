"""The probes of one pipeline: periodic readings of its queue, dead letters, database and workers.

Place in the flow: beside it. Each reading sets gauges and keeps in `ProbeResults` what the status
page and `/readyz` show. The database is read on a connection that is lent for the reading, or
opened for it and closed after it, so that a large fleet does not hold connections for this.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Protocol

import msgspec

from sqs2pg.errors import FatalFault, Sqs2pgError, TransientFault
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.pauses import Pause
from sqs2pg.postgres.unknown_fields import UnknownField, UnknownFieldRegistry
from sqs2pg.postgres.workers import (
    HeadRoom,
    Heartbeat,
    Reason,
    Worker,
    WorkerRegistry,
    certificate_expiry,
    head_room,
)
from sqs2pg.sqs.backlog import DeadLetterQueue, OldestMessage, has_cloudwatch
from sqs2pg.sqs.client import SqsClient
from sqs2pg.sqs.queue import QueueSource
from sqs2pg.telemetry.batch_log import BatchLog
from sqs2pg.telemetry.liveness import Liveness, ReadinessCheck
from sqs2pg.telemetry.log import flush_repeats
from sqs2pg.telemetry.metrics import Metrics
from sqs2pg.telemetry.periodic import PeriodicReading

CLOUDWATCH_EVERY_S = 60.0
"""SQS reports to CloudWatch once a minute."""
CERTIFICATE_EVERY_S = 3600.0
WRITE_WAITS_S = 3.0
"""A write that waits longer for the database is reason to ask at once whether it answers."""
ANSWER_S = 3.0
"""A database that has not answered a reading for longer is not ready, seconds. With the bound
above, `/readyz` turns within 10 s of a hang under load; else within `status.poll_s` and this."""
LEAVE_S = 3.0
"""How long it may take to remove this worker's row at the end."""


class ConsumerCounts(Protocol):
    """What a consumer counts, in messages."""

    received: int
    written: int
    duplicate: int
    quarantined: int


class Pauses(Protocol):
    """What this process knows of the pipeline's pause (`pipeline/pause_watch.py`)."""

    @property
    def pause(self) -> Pause | None:
        """The pause in force."""

    def note(self, found: Pause | None) -> None:
        """Take what the heartbeat read."""

    def is_late(self) -> bool:
        """Whether it was not read for a while."""

    def is_news(self) -> bool:
        """Whether a pause has begun or ended since the heartbeat; asked once."""


class ProbeResults(msgspec.Struct):
    """What was read last. The event loop writes it; the status thread reads it."""

    workers: list[Worker] = []
    workers_at: float = -math.inf
    """time.monotonic() when the workers were read."""
    quarantine: list[Reason] = []
    unknown: list[UnknownField] = []
    database: ReadinessCheck = ReadinessCheck(ok=False, detail="not read yet")
    database_asked_at: float = math.inf
    """time.monotonic() when the reading of the database that is under way was begun."""
    schema: ReadinessCheck = ReadinessCheck(ok=False, detail="not read yet")
    keys: ReadinessCheck = ReadinessCheck(ok=False, detail="not read yet")
    cloudwatch_age_s: float | None = None
    cloudwatch_at: float = -math.inf

    def fleet(self) -> list[Worker]:
        """Return the workers with the present age of their heartbeats."""
        age_s = time.monotonic() - self.workers_at
        return [
            msgspec.structs.replace(worker, heartbeat_s=round(worker.heartbeat_s + age_s, 3))
            for worker in self.workers
        ]

    def checks(self, *, paused: bool) -> dict[str, ReadinessCheck]:
        """Return the checks of /readyz; `paused`: receiving is paused because writes fail."""
        database = self.database
        if database.ok and time.monotonic() - self.database_asked_at > ANSWER_S:
            database = ReadinessCheck(ok=False, detail="it does not answer")
        elif database.ok and paused:
            database = ReadinessCheck(ok=False, detail="writes fail; messages are held")
        return {"keys": self.keys, "schema": self.schema, "database": database}


class Probes:
    """The periodic readings of one pipeline."""

    def __init__(
        self,
        source: QueueSource,
        client: SqsClient,
        metrics: Metrics,
        liveness: Liveness,
        batch_log: BatchLog,
        workers: WorkerRegistry,
        counts: ConsumerCounts,
        unknown: UnknownFieldRegistry,
        *,
        pauses: Pauses,
        lend: Callable[[], AbstractAsyncContextManager[Session]],
        key_version: Callable[[], int],
        migrations: int,
        database_host: tuple[str, int] | None,
        every_s: float,
        cloudwatch: bool,
        head_room: Callable[[Session], Awaitable[HeadRoom]] = head_room,
    ) -> None:
        """`lend` yields a session for a reading, `head_room` reads what the server allows and uses.
        `database_host` is the server whose certificate is read; None for a local socket.
        """
        self._source = source
        self._client = client
        self._metrics = metrics
        self._liveness = liveness
        self._batch_log = batch_log
        self._workers = workers
        self._counts = counts
        self._unknown = unknown
        self._pauses = pauses
        self._lend = lend
        self._head_room = head_room
        self._key_version = key_version
        self._migrations = migrations
        self._database_host = database_host
        self._every_s = every_s
        self._dead_letters = DeadLetterQueue(client, source.queue_url)
        ask = cloudwatch and has_cloudwatch(client.endpoint_host)
        self._oldest = OldestMessage(source.queue_url, client.region) if ask else None
        self._empty_at = time.time()
        self._is_empty = False
        self._received_before = -1  # messages, at the last reading of the queue
        self._settled_before = 0
        self._beat_before = time.monotonic()
        self.results = ProbeResults()
        metrics.receiving_paused.set_function(lambda: float(liveness.paused))

    def all(self) -> list[PeriodicReading]:
        """Return the readings, with how often each is due."""
        every_s = self._every_s
        readings = [
            PeriodicReading("queue", every_s, self.read_queue, at_rest=self._is_at_rest),
            PeriodicReading(
                "dead_letters", every_s, self.read_dead_letters, at_rest=self._is_at_rest
            ),
            PeriodicReading(
                "database", every_s, self.read_database, wanted_early=self._is_wanted_early
            ),
            PeriodicReading("credentials", every_s, self.read_credentials),
        ]
        if self._oldest:
            readings.append(PeriodicReading("cloudwatch", CLOUDWATCH_EVERY_S, self.read_cloudwatch))
        if self._database_host:
            readings.append(
                PeriodicReading("certificate", CERTIFICATE_EVERY_S, self.read_certificate)
            )
        return readings

    async def read_queue(self) -> None:
        """Read the queue's depth, and set or estimate the age of its oldest message."""
        asked, received = time.time(), self._counts.received
        visible, in_flight, delayed = await self._source.depth()
        self._is_empty, self._received_before = not visible + in_flight + delayed, received
        metrics = self._metrics
        metrics.queue_visible.set(visible)
        metrics.queue_in_flight.set(in_flight)
        metrics.queue_delayed.set(delayed)
        if not visible + in_flight:
            self._empty_at = asked
        metrics.queue_oldest_age.set(self._oldest_age_s(waiting=bool(visible + in_flight)))

    def _is_at_rest(self) -> bool:
        """Whether the queue was empty at the last reading, and polls have come back empty since.

        Where nothing is polled the readings alone tell of messages.
        """
        liveness = self._liveness
        return (
            self._is_empty
            and self._received_before == self._counts.received
            and not (liveness.paused or liveness.pipeline_paused)
        )

    def _oldest_age_s(self, *, waiting: bool) -> float:
        """Return the age of the queue's oldest message, seconds.

        That is CloudWatch's number while it is fresh. Else it is the time since the oldest
        SentTimestamp of the last batch, or since the queue was last seen empty, if that is later.
        """
        results, now = self.results, time.time()
        if (
            results.cloudwatch_age_s is not None
            and now - results.cloudwatch_at < 3 * CLOUDWATCH_EVERY_S
        ):
            return results.cloudwatch_age_s
        if not waiting:
            return 0.0
        return max(0.0, now - max(self._empty_at, self._metrics.oldest_sent_ms / 1000))

    async def read_cloudwatch(self) -> None:
        """Read CloudWatch's age of the oldest message."""
        assert self._oldest is not None
        self.results.cloudwatch_age_s = await self._oldest.age_s()
        self.results.cloudwatch_at = time.time()

    async def read_dead_letters(self) -> None:
        """Read the dead-letter queue's depth."""
        visible = await self._dead_letters.visible()
        self._metrics.dlq_visible.set(math.nan if visible is None else visible)

    async def read_credentials(self) -> None:
        """Read when the AWS credentials expire, and log what the log has held back."""
        expiry = self._client.credential_expiry()
        self._metrics.credential_expiry.set(math.inf if expiry is None else expiry)
        self._batch_log.flush()
        flush_repeats()

    async def read_certificate(self) -> None:
        """Read when the database server's certificate expires."""
        assert self._database_host is not None
        expiry = await certificate_expiry(*self._database_host)
        self._metrics.certificate_expiry.set(math.nan if expiry is None else expiry)

    def _is_wanted_early(self) -> bool:
        if not self.results.database.ok:
            return False
        pauses = self._pauses
        waits = self._liveness.waiting_s() > WRITE_WAITS_S
        return waits or pauses.is_late() or pauses.is_news()

    async def read_database(self) -> None:
        """Send a heartbeat; read the fleet, the quarantine, head-room, schema and keys."""
        self.results.database_asked_at = time.monotonic()
        try:
            await self._read_database()
        except asyncio.CancelledError:
            self._metrics.database_up.set(0)
            self.results.database = ReadinessCheck(ok=False, detail="it does not answer")
            raise
        finally:
            self.results.database_asked_at = math.inf

    async def _read_database(self) -> None:
        metrics, results, workers = self._metrics, self.results, self._workers
        try:
            async with self._lend() as session:
                self._pauses.note(await workers.pause(session))
                await workers.beat(session, self._beat())
                results.workers = await workers.workers(session)
                results.workers_at = time.monotonic()
                results.quarantine = await workers.quarantine(session)
                await self._record_unknown(session)
                results.unknown = await self._unknown.read(session)
                room = await self._head_room(session)
        except (TransientFault, FatalFault) as fault:
            metrics.database_up.set(0)
            results.database = ReadinessCheck(ok=False, detail=fault.code)
            raise
        metrics.database_up.set(1)
        metrics.database_connections.set(room.connections)
        metrics.database_connections_max.set(room.connections_max)
        metrics.database_bytes.set(room.size_bytes)
        metrics.fleet_workers.set(len(results.workers))
        metrics.quarantine_open.clear()
        for reason in results.quarantine:
            metrics.quarantine_open.labels(reason.reason).set(reason.messages)
        results.database = ReadinessCheck(ok=True)
        migrated = room.migrations >= self._migrations
        results.schema = ReadinessCheck(
            migrated, "" if migrated else "the database lacks a migration"
        )
        current = room.key_version == self._key_version()
        results.keys = ReadinessCheck(current, "" if current else "another key version is active")

    async def _record_unknown(self, session: Session) -> None:
        """Record the unknown fields that were counted since the last time."""
        counts = self._metrics.unknown.take()
        if not counts:
            return
        try:
            await self._unknown.add(session, counts)
        except (TransientFault, FatalFault):
            self._metrics.unknown.add(counts)
            raise

    async def leave(self, limit_s: float = LEAVE_S) -> None:
        """Remove this worker's row and record its last counts at an orderly end.

        That is if the database answers within `limit_s`.

        If that fails, the row is soon stale.
        """
        with suppress(Sqs2pgError, TimeoutError):
            async with asyncio.timeout(limit_s):
                async with self._lend() as session:
                    await self._workers.leave(session)
                    await self._record_unknown(session)

    def ready(self) -> tuple[bool, bytes]:
        """Return whether messages can be written now, and each check's result, as JSON."""
        checks = self.results.checks(paused=self._liveness.paused)
        ok = all(check.ok for check in checks.values())
        pause = self._pauses.pause
        # Who and why are not for everybody: this answer needs no token.
        paused = {"paused": {"code": pause.code, "since": pause.since_text} if pause else None}
        return ok, msgspec.json.encode({"ok": ok, **paused, **checks})

    def _state(self) -> str:
        if self._liveness.pipeline_paused:
            return "pausing" if self._source.held_count else "paused"
        return "waiting" if self._liveness.paused else "running"

    def _beat(self) -> Heartbeat:
        counts, now = self._counts, time.monotonic()
        settled = counts.written + counts.duplicate + counts.quarantined
        elapsed_s = max(0.001, now - self._beat_before)
        per_second = (settled - self._settled_before) / elapsed_s
        self._settled_before, self._beat_before = settled, now
        recent = self._batch_log.recent
        return Heartbeat(
            state=self._state(),
            received=counts.received,
            written=counts.written,
            duplicate=counts.duplicate,
            quarantined=counts.quarantined,
            in_flight=self._source.held_count,
            per_second=round(per_second, 1),
            last_fault=recent[-1].code if recent else "",
            batch_s_max=round(self._metrics.batch_s_max, 3),
        )
