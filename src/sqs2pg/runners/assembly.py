"""Put what processes messages together from settings: keys, database, plan, sinks.

Settings and keys come first, so that a wrong one is reported before anything is touched; then the
database, then the queue. Commands and runners call this and build no part themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import structlog

from sqs2pg.errors import FatalFault, KeyFault, Sqs2pgError, TransientFault
from sqs2pg.keys.keyring import Keyring
from sqs2pg.mapping.unknown_members import UnknownMembers
from sqs2pg.native import extension, keep_memory
from sqs2pg.pipeline.books_upkeep import SharedUpkeep
from sqs2pg.pipeline.key_rotation import Compiled, KeyRotation
from sqs2pg.pipeline.processor import Processor
from sqs2pg.pipeline.recent_keys import RecentKeys
from sqs2pg.pipeline.refusals import PROBE_TIMEOUT_S
from sqs2pg.postgres.batch_transaction import SinkPlan
from sqs2pg.postgres.connection import NoSession, Session, wait_closed
from sqs2pg.postgres.migrate import registered_id, require_migrated
from sqs2pg.postgres.refusal_reason import explain_refusal, is_passing
from sqs2pg.postgres.rehearsal import Part, Refusal
from sqs2pg.postgres.reject_streak import Streak
from sqs2pg.postgres.session_pool import SessionPool
from sqs2pg.postgres.sink import Sink
from sqs2pg.postgres.staging import StagedInsert
from sqs2pg.postgres.unknown_fields import UnknownFieldRegistry
from sqs2pg.runners.compile_plan import compile_plan, load_compiler
from sqs2pg.runners.connect import Connector, connected, database_hosts, keyring_of
from sqs2pg.runners.start_reads import Once, read_alone
from sqs2pg.settings import Settings
from sqs2pg.status.snapshot import About
from sqs2pg.telemetry.batch_log import BatchLog
from sqs2pg.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from sqs2pg.pipeline.amend import Amender
    from sqs2pg.pipeline.backfill import Backfill
    from sqs2pg.pipeline.replay import Replayer
    from sqs2pg.telemetry.traces import Traces
    from sqs2pg.vault.seal import ValueSealer

_Replays = TypeVar("_Replays", bound="Replayer")

log = structlog.get_logger(__name__)


class Processing(msgspec.Struct):
    """The half of a pipeline that knows no queue: messages in, outcomes out."""

    processors: list[Processor]
    keyring: Keyring
    metrics: Metrics
    sink_plan: SinkPlan
    batch_log: BatchLog
    rotation: KeyRotation
    connect: Connector
    """Opens further connections to the database."""
    vault: ValueSealer | None = None
    """Where the vault is on."""

    async def preload(self) -> None:
        """Have the vault read what is stored: for a process that lives long.

        A database that fails is no fault here: then batches ask for it.
        """
        made_by = extension()
        if self.vault is None or made_by is None:
            return
        from sqs2pg.mapping.native_encoder import NativeEncoder

        if not isinstance(self.processors[0].plan.encoder, NativeEncoder):
            return  # what Python code makes is known by other marks
        from sqs2pg.vault.seal import PRELOAD_S  # with the vault on it is loaded already

        with suppress(TransientFault, TimeoutError):
            async with asyncio.timeout(2 * PRELOAD_S), self.connect.opened() as session:
                await self.vault.preload(session, made_by)


async def upkeep(
    settings: Settings,
    pipeline: int,
    pool: SessionPool | None = None,
    shared: SharedUpkeep | None = None,
) -> None:
    """Do one turn of the books' upkeep, over a session of the pool or one of its own.

    `shared`: with other pipelines of the process. Raises TransientFault.
    """
    from sqs2pg.postgres.maintenance import maintain  # no start waits for it

    async with AsyncExitStack() as stack:
        whole = stack.enter_context(shared.turn()) if shared else True
        lent = pool.lent() if pool else connected(settings)
        try:
            session = await stack.enter_async_context(lent)
        except FatalFault as fault:  # such as a login refused while the server starts up
            raise TransientFault(fault.what, code=fault.code) from None
        await maintain(session, pipeline, whole=whole)


def about_of(settings: Settings) -> About:
    """Return the pipeline's name, queue and tables for the status page.

    The queue's name only: its URL also tells the AWS account.
    """
    queue = settings.source.queue.rstrip("/").rsplit("/", 1)[-1].rsplit(":", 1)[-1]
    return About(settings.pipeline_name, queue, settings.table_names)


@asynccontextmanager
async def assemble_processors(
    settings: Settings,
    endpoints: list[str],
    is_fifo: Callable[[], Awaitable[bool]] | None = None,
    *,
    archive: bool = False,
    metrics: Metrics | None = None,
    pool: SessionPool | None = None,
    once: Once | None = None,
) -> AsyncIterator[Processing]:
    """Yield the processors alone, for callers that poll no queue; close them after.

    A batch was rehearsed without rows: PostgreSQL takes what they write.

    `endpoints` are the hosts in use, for `keyring_of`. `is_fifo` and `archive` are those of
    `compile_plan`. `metrics`: the caller's, if they outlive the processors. `pool` lends the
    processors their sessions; without it each has one of its own. `once` reads what other pipelines
    that start now read, too; without it everything is read for this one.
    """
    sessions: list[Session] = []
    sinks: list[Sink] = []
    filling: asyncio.Task[None] | None = None
    traces = _traces_of(settings)
    try:
        read = once or read_alone

        async def load_keys() -> Keyring:
            return keyring_of(settings, endpoints)

        keyring = await read(("keys", settings.keys), load_keys)
        connector = Connector(settings)
        load_compiler()
        count = settings.sink.connections
        async with _first(connector, pool, sessions) as first:
            if pool:  # the server starts a process per session: not only when it is wanted
                filling = asyncio.create_task(pool.fill(count))
            await read("migrated", partial(require_migrated, first))
            number = await registered_id(first, settings)
            compiler, compiled = await compile_plan(
                first, settings, keyring, number, is_fifo=is_fifo, archive=archive, once=read
            )
        if pool:
            sessions += [NoSession() for _ in range(count)]
        while len(sessions) < count:
            sessions.append(await connector())

        async def compile_again() -> Compiled:
            # In a thread: a provider may ask AWS.
            fresh = await asyncio.to_thread(keyring_of, settings, endpoints)
            session = await connector()
            try:
                return await compiler.compile_checked(session, fresh)
            finally:
                await session.close()

        metrics, batch_log = metrics or Metrics(), BatchLog()
        rotation = KeyRotation(compiled, compile_again)
        streak, recent = Streak(), RecentKeys()
        sink_plan = compiled.sink_plan
        sinks = [
            Sink(session, sink_plan, connector, compiled.vault, streak, pool)
            for session in sessions
        ]
        processors = [
            Processor(compiled.plan, sink, metrics, batch_log, traces, rotation.follow, recent)
            for sink in sinks
        ]
        await _require_writable(sinks[0], sink_plan, once)
        if filling:
            await filling
        yield Processing(
            processors=processors,
            keyring=compiled.keyring,
            metrics=metrics,
            sink_plan=sink_plan,
            batch_log=batch_log,
            rotation=rotation,
            connect=connector,
            vault=compiled.vault,
        )
    finally:
        if filling:
            await end_unwanted(filling)
        if traces:
            await asyncio.to_thread(traces.close)
        # A sink replaces a session that broke.
        await wait_closed({*sessions, *(sink.session for sink in sinks)})


@asynccontextmanager
async def _first(
    connect: Connector, pool: SessionPool | None, sessions: list[Session]
) -> AsyncIterator[Session]:
    """Yield a session to begin with: one that is lent, or the first of `sessions`."""
    if pool:
        async with pool.lent() as session:
            yield session
        return
    sessions.append(await connect())
    yield sessions[0]


def _traces_of(settings: Settings) -> Traces | None:
    """Return the tracing of batches; None if it is off. Raises as `start_traces`."""
    if not settings.telemetry.traces:
        return None
    from sqs2pg.telemetry.traces import start_traces

    about = about_of(settings)
    return start_traces(settings.telemetry, about.queue, about.table, about.pipeline)


async def end_unwanted(task: asyncio.Task[Any]) -> None:
    """End a task whose result, or fault, nobody wants any more."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # else the event loop would log it


async def record_unknown(
    session: Session, settings: Settings, pipeline: int, metrics: Metrics
) -> None:
    """Record the unknown fields that were counted where no heartbeat does it.

    A database that fails is no fault here: it is a report, and the messages are settled.
    """
    counts = metrics.unknown.take()
    if not counts:
        return
    digest = UnknownMembers(settings).digest
    registry = UnknownFieldRegistry(pipeline, digest, names=settings.report_unknown)
    try:
        await registry.add(session, counts)
    except Sqs2pgError:
        metrics.unknown.add(counts)


async def _require_writable(sink: Sink, plan: SinkPlan, once: Once | None) -> None:
    """Rehearse a batch before anything is received: no message is held for what never ends.

    With `once` the books are rehearsed once for all pipelines that start now and write them with
    the same statements, and each target by its own pipeline.

    Raises FatalFault where PostgreSQL refuses it, TransientFault where it may take it later. A lock
    of somebody else's is waited out as at any other time.
    """
    try:
        with sink.probing(PROBE_TIMEOUT_S):
            refusal = await _rehearse(sink, plan, once)
    except KeyFault as fault:
        if fault.code != "key_version":
            raise
        return  # the keys were rotated meanwhile: the first batch follows
    if refusal is None:
        for target in plan.targets:
            if isinstance(target.staging, StagedInsert):
                log.info("rows are written by INSERT; `sqs2pg check` says why", table=target.name)
        return
    if not is_passing(refusal):
        raise await explain_refusal(await sink.connected(), refusal, plan.targets)
    log.warning(
        "the rehearsal of a batch failed; it may pass",
        sqlstate=refusal.fault.sqlstate,
        table=refusal.table,
    )


async def _rehearse(sink: Sink, plan: SinkPlan, once: Once | None) -> Refusal | None:
    """Return the first refusal of what was not rehearsed yet."""
    if once is None:
        return await sink.rehearse()

    async def of_books() -> None:
        if refusal := await sink.rehearse(Part.BOOKS):
            raise _RefusedError(refusal)

    how = plan.fifo, plan.archive, plan.objects, plan.dedupe, plan.statement_timeout_s
    try:
        await once(("rehearsed", how, plan.key_version, sink.has_vault), of_books)
    except _RefusedError as refused:
        return refused.refusal
    return await sink.rehearse(Part.TARGETS)


class _RefusedError(Exception):
    """Carries a refusal past `once`, which shares no fault."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__()
        self.refusal = refusal


@asynccontextmanager
async def assemble_backfill(settings: Settings) -> AsyncIterator[Callable[..., Backfill]]:
    """Yield a function that makes a backfill from `day`, `store`, `claim_wait_s` and `format`.

    Its backfills share the connections made here, which are closed at the end: run one at a time.
    """
    from sqs2pg.pipeline.backfill import Backfill
    from sqs2pg.runners.archive_form import archive_form

    keep_memory()
    # The queue is not used; an object store may be, and keys for development stay on loopback.
    endpoints = database_hosts(settings)
    one = msgspec.structs.replace(
        settings, sink=msgspec.structs.replace(settings.sink, connections=1)
    )
    async with (
        assemble_processors(one, endpoints, archive=True) as made,
        connected(settings) as session,
    ):
        try:
            yield partial(
                Backfill,
                session,
                made.processors[0],
                made.sink_plan.id,
                batch_lines=settings.sink.batch_rows_max,
                form=archive_form(settings),
            )
        finally:
            await record_unknown(session, settings, made.sink_plan.id, made.metrics)


async def assemble_replay(
    session: Session, settings: Settings, keyring: Keyring, pipeline: int
) -> Replayer:
    """Return what replays the quarantine of the pipeline with this number, over `session`.

    Raises as `compile_plan`.
    """
    from sqs2pg.pipeline.replay import Replayer

    return await _made_for_replay(Replayer, session, settings, keyring, pipeline)


async def assemble_amend(
    session: Session, settings: Settings, keyring: Keyring, pipeline: int
) -> Amender:
    """Return what amends entries of the quarantine. As `assemble_replay`."""
    from sqs2pg.pipeline.amend import Amender

    return await _made_for_replay(Amender, session, settings, keyring, pipeline)


async def _made_for_replay(
    kind: type[_Replays], session: Session, settings: Settings, keyring: Keyring, pipeline: int
) -> _Replays:
    _, compiled = await compile_plan(session, settings, keyring, pipeline)
    plan, sink_plan, vault = compiled.plan, compiled.sink_plan, compiled.vault
    writer = Processor(plan, Sink(session, sink_plan, Connector(settings), vault), Metrics())
    return kind(session, sink_plan, plan, compiled.keyring, vault, writer.objects)
