"""One pipeline as an object: a queue, its mapping and its tables, started and stopped as one.

    open ─▶ run, until the queue is empty or a stop is requested ─▶ close
    start = open, and run in a task of its own      stop = request it, wait, close

Promises: everything that it opens is its own and is closed at its end: connections, tasks, the
client of the queue. Several pipelines may run in one event loop, and each may be stopped and
another one started while the others go on. It sets no handler, no global and no logging: signals,
the log and the status server belong to the process that runs it.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import msgspec

from sqs2pg.errors import TransientFault
from sqs2pg.keys.keyring import Keyring
from sqs2pg.mapping.budget import received_bytes_max
from sqs2pg.mapping.unknown_members import UnknownMembers
from sqs2pg.pipeline.consumer import Consumer
from sqs2pg.pipeline.pause_watch import PauseWatch
from sqs2pg.pipeline.processor import Processor
from sqs2pg.pipeline.quarantine_share import QuarantineShare
from sqs2pg.pipeline.stretches import Stretches
from sqs2pg.pipeline.totals import Totals
from sqs2pg.postgres.batch_transaction import SinkPlan
from sqs2pg.postgres.dsn import network_address, resolve_dsn
from sqs2pg.postgres.migrations import migrations
from sqs2pg.postgres.session_pool import SessionPool
from sqs2pg.postgres.unknown_fields import UnknownFieldRegistry
from sqs2pg.postgres.workers import WorkerRegistry, head_room
from sqs2pg.runners.assembly import (
    Processing,
    about_of,
    assemble_processors,
    end_unwanted,
    upkeep,
)
from sqs2pg.runners.connect import endpoint_hosts
from sqs2pg.runners.shared import Shared
from sqs2pg.runners.start_reads import Once
from sqs2pg.settings import Settings
from sqs2pg.sqs.client import SqsClient
from sqs2pg.sqs.in_flight import InFlight
from sqs2pg.sqs.queue import QueueSource
from sqs2pg.status.probes import LEAVE_S, Probes
from sqs2pg.status.snapshot import Snapshot, take_snapshot
from sqs2pg.telemetry.batch_log import BatchLog
from sqs2pg.telemetry.exporters import telemetry_readings
from sqs2pg.telemetry.lean_prometheus import CollectorRegistry
from sqs2pg.telemetry.liveness import Liveness
from sqs2pg.telemetry.metrics import Metrics
from sqs2pg.telemetry.periodic import PeriodicReadings


class Pipeline:
    """Consumes one queue. Its parts exist once it is open, and it can be opened once."""

    client: SqsClient
    source: QueueSource
    processors: list[Processor]
    stretches: Stretches
    keyring: Keyring
    sink_plan: SinkPlan
    batch_log: BatchLog
    probes: Probes
    periodic: PeriodicReadings

    def __init__(
        self, settings: Settings, metrics: Metrics | None = None, shared: Shared | None = None
    ) -> None:
        """`metrics`: the caller's, if they outlive the pipeline; by default it has its own.
        `shared`: what it has in common with others of its process; by default nothing.
        """
        self.settings = settings
        self._shared = shared
        self.metrics = metrics or Metrics()
        self.about = about_of(settings)
        self.metrics.describe(self.about.queue, self.about.table)
        self.opened = False
        """Whether everything was checked and it is ready to run, or runs."""
        self._stopping = False
        self._owned = AsyncExitStack()
        self._running: asyncio.Task[Totals] | None = None

    # -- as a task -------------------------------------------------------------------------

    async def start(self, *, drain_settle_s: float | None = None) -> None:
        """Open it, and consume in a task of its own until `stop`, or until the queue is empty.

        Returns once it consumes. Raises as `open`. Call `stop` at the end, however it ended.
        """
        await self.open()
        self._running = asyncio.create_task(self.run(drain_settle_s=drain_settle_s))

    async def finished(self) -> Totals:
        """Wait until a started pipeline ends by itself. Raises as `run`; may be repeated."""
        assert self._running is not None, "it was started"
        return await asyncio.shield(self._running)

    async def stop(self) -> Totals:
        """Stop a started pipeline in good order, and close it; return its totals.

        Waits until every held message is settled or released: `shutdown_grace_s` and a second at
        most. Raises what ended the pipeline, if a fault did. May be repeated.
        """
        self.request_stop()
        try:
            return await self._running if self._running else self.totals
        finally:
            await self.close()

    # -- the steps -------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect, check keys, tables and queue, and put everything together.

        Raises SettingsError, KeyFault, TransientFault or FatalFault; then nothing stays open.
        """
        if self._shared:
            async with self._shared.starting(self.settings) as once:
                await self._open(once)
        else:
            await self._open(None)
        self.opened = True
        if self._stopping:
            self.stretches.stop()

    async def _open(self, once: Once | None) -> None:
        async with AsyncExitStack() as stack:
            settings = self.settings
            pool = readings = in_flight = None
            if shared := self._shared:
                self.client, in_flight = shared.client, shared.in_flight
                pool, readings = shared.join(settings)
                stack.push_async_callback(pool.leave)
                stack.push_async_callback(readings.leave)
            else:
                most = settings.source.receivers_max
                self.client = SqsClient.from_environment(max_connections=most)
                stack.push_async_callback(self.client.close)
            # The queue is asked while the database is, and heard last: keys and tables that are
            # wrong are reported before it.
            looking = asyncio.create_task(_find_queue(self.client, settings.source.queue))
            stack.push_async_callback(end_unwanted, looking)

            async def is_fifo() -> bool:
                return (await looking)[0].endswith(".fifo")

            where = endpoint_hosts(settings, self.client)
            made = await stack.enter_async_context(
                assemble_processors(
                    settings, where, is_fifo, metrics=self.metrics, pool=pool, once=once
                )
            )
            self._put_together(made, *await looking, in_flight, readings)
            stack.callback(self.source.leave)
            stack.callback(self._watch.leave)
            if not self._shared or self._shared.one:
                await made.preload()  # one vault's memory in the process
            self._owned = stack.pop_all()

    async def run(self, *, drain_settle_s: float | None = None) -> Totals:
        """Consume until a stop is requested, or until the queue was empty for `drain_settle_s`.

        Raises FatalFault or KeyFault where going on is wrong; the messages held are released first.
        """
        async with self.periodic:
            totals = await self.stretches.run(drain_settle_s=drain_settle_s)
        self.batch_log.flush(end=True)
        await self.probes.leave(min(LEAVE_S, self.stretches.time_left_s()))
        return totals

    def request_stop(self) -> None:
        """End receiving. `run` returns when the messages held are settled or released."""
        self._stopping = True
        if self.opened:
            self.stretches.stop()

    async def close(self) -> None:
        """Close what `open` has opened. May be repeated."""
        await self._owned.aclose()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    # -- its state -------------------------------------------------------------------------

    @property
    def consumer(self) -> Consumer:
        """What consumes, or has consumed until the pause that is in force."""
        return self.stretches.consumer

    @property
    def totals(self) -> Totals:
        """What it has done so far."""
        return self.consumer.totals if self.opened else Totals()

    @property
    def registry(self) -> CollectorRegistry:
        """Its metrics, for Prometheus."""
        return self.metrics.registry

    def health(self) -> tuple[bool, bytes]:
        """Return whether it makes progress, and the report as JSON (/livez)."""
        return self.consumer.liveness.health()

    def ready(self) -> tuple[bool, bytes]:
        """Return whether messages can be written now, and the report as JSON (/readyz)."""
        return self.probes.ready()

    def snapshot(self) -> Snapshot:
        """Return the present moment for the status page, which calls it from its own thread."""
        metrics, liveness = self.metrics, self.consumer.liveness
        return take_snapshot(
            metrics.registry,
            metrics.started_at,
            self.about,
            liveness,
            self.probes.results,
            writers=len(self.processors),
            pause=self.stretches.pause,
            rate_max=self.settings.source.messages_per_second_max,
            stale=self.periodic.stale_s(),
            resting=self.periodic.resting_s(),
        )

    def _put_together(
        self,
        made: Processing,
        queue_url: str,
        redrive_policy: str,
        in_flight: InFlight | None,
        readings: SessionPool | None,
    ) -> None:
        settings, metrics = self.settings, self.metrics
        self.processors, self.keyring = made.processors, made.keyring
        self.sink_plan, self.batch_log = made.sink_plan, made.batch_log
        number = made.sink_plan.id
        self.source = QueueSource(
            self.client,
            queue_url,
            msgspec.structs.replace(
                settings.source, in_flight_bytes_max=received_bytes_max(settings)
            ),
            metrics,
            message_attributes=_wanted_attributes(settings),
            in_flight=in_flight,
            redrive_policy=redrive_policy,
            turn=self._shared.turns.join() if self._shared else None,
        )
        watch = self._stretch(number, readings)
        self.probes = Probes(
            self.source,
            self.client,
            metrics,
            watch.liveness,
            self.batch_log,
            WorkerRegistry(number, metrics.started_at),
            self.consumer.totals,
            UnknownFieldRegistry(
                number, UnknownMembers(settings).digest, names=settings.report_unknown
            ),
            pauses=watch,
            lend=readings.lent if readings else made.connect.opened,
            key_version=lambda: made.rotation.key_version,
            migrations=len(migrations()),
            database_host=network_address(resolve_dsn(settings.sink.dsn)),
            every_s=settings.status.poll_s,
            cloudwatch=settings.status.cloudwatch == "auto",
            head_room=self._shared.head_room(settings).read if self._shared else head_room,
        )
        self.periodic = PeriodicReadings(
            [*self.probes.all(), *telemetry_readings(settings, metrics)],
            metrics,
            self.stretches.time_left_s,
        )

    def _stretch(self, number: int, readings: SessionPool | None) -> PauseWatch:
        """Make what consumes between pauses; return what knows of them."""
        settings, metrics = self.settings, self.metrics
        share = QuarantineShare(
            metrics, settings.quarantine_share_max, settings.quarantine_share_messages_min
        )
        self._watch = watch = PauseWatch(metrics, Liveness(settings), share)
        if self._shared:
            watch.join(self._shared.watches(settings), number)

        together = self._shared.upkeep(settings) if self._shared else None

        async def keep() -> None:
            await upkeep(settings, number, readings, together)

        def make(after: Consumer | None) -> Consumer:
            return Consumer(
                self.source,
                self.processors,
                settings,
                metrics,
                upkeep=keep,
                watch=watch,
                after=after,
            )

        self.stretches = Stretches(
            make,
            watch,
            lambda: self.processors[0].sink,
            keep,
            metrics,
            settings.shutdown_grace_s,
        )
        return watch


def _wanted_attributes(settings: Settings) -> tuple[str, ...]:
    """Return the names of the producer's message attributes to ask for."""
    wanted = tuple(settings.message_attributes)
    if not settings.telemetry.traces:
        return wanted
    from sqs2pg.telemetry.traces import TRACEPARENT

    return wanted if {"All", TRACEPARENT} & set(wanted) else (*wanted, TRACEPARENT)


async def _find_queue(client: SqsClient, queue: str) -> tuple[str, str]:
    """Return the queue's URL and redrive policy, having made sure that it answers."""
    try:
        url = await client.queue_url(queue)
        attributes = await client.attributes(url, ["QueueArn", "RedrivePolicy"])
    except TransientFault as fault:
        fault.hint = fault.hint or "check AWS_ENDPOINT_URL, AWS_REGION and the network"
        raise
    return url, attributes.get("RedrivePolicy", "")
