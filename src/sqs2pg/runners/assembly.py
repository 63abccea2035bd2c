"""Put a pipeline together from settings: keys, database, queue, processors.

The order is the order of blame: settings and keys first, so that a wrong one is said before
anything is touched; then the database, then the queue. Front doors call this and nothing below.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import structlog

from sqs2pg.errors import FatalFault, KeyFault, PermanentFault, SettingsError, TransientFault
from sqs2pg.keys.derive import hkdf_sha256
from sqs2pg.keys.keyring import Keyring
from sqs2pg.keys.providers import load_keyring
from sqs2pg.mapping import fast_path
from sqs2pg.mapping.columns import Column
from sqs2pg.mapping.compile import MessageMapping, compile_mapping
from sqs2pg.mapping.convert import text
from sqs2pg.mapping.envelope import Envelope
from sqs2pg.mapping.fast_path_originals import Glimpse
from sqs2pg.mapping.ledger_key import dedupe_key
from sqs2pg.mapping.subject import Whose, naming, whose
from sqs2pg.mapping.transform import masked
from sqs2pg.mask.operator import Operator
from sqs2pg.mask.registry import compile_operator
from sqs2pg.message import Message, SystemAttributes
from sqs2pg.native import extension
from sqs2pg.pipeline.backfill import Backfill
from sqs2pg.pipeline.consumer import Consumer
from sqs2pg.pipeline.key_rotation import Compiled, Rollover
from sqs2pg.pipeline.large_payloads import Payloads
from sqs2pg.pipeline.processor import Columns, DedupeKey, Plan, Processor
from sqs2pg.postgres.connection import Session, wait_closed
from sqs2pg.postgres.dsn import hosts, login_of, network_address, resolve_dsn
from sqs2pg.postgres.identifiers import quote_table
from sqs2pg.postgres.key_registry import oldest, verify_fingerprints
from sqs2pg.postgres.maintenance import maintain
from sqs2pg.postgres.migrate import pipeline_id, target_tables
from sqs2pg.postgres.migrations import migrations
from sqs2pg.postgres.quarantine import sealer
from sqs2pg.postgres.sink import Sink, SinkPlan, Streak
from sqs2pg.postgres.workers import Roster
from sqs2pg.settings import Settings
from sqs2pg.sqs.client import SqsClient
from sqs2pg.sqs.queue import QueueSource
from sqs2pg.sqs.rds_token import login_token
from sqs2pg.sqs.s3 import ObjectStore
from sqs2pg.status.probes import Readings
from sqs2pg.status.snapshot import About, Snapshot, take_snapshot
from sqs2pg.telemetry.batch_log import Journal
from sqs2pg.telemetry.exporters import telemetry_readings
from sqs2pg.telemetry.metrics import Metrics
from sqs2pg.telemetry.periodic import Watch
from sqs2pg.telemetry.traces import TRACEPARENT, start_traces
from sqs2pg.vault.crypto import subject_references
from sqs2pg.vault.reference_key import reference_key
from sqs2pg.vault.rekey import RecoverableColumn
from sqs2pg.vault.seal import ValueSealer
from sqs2pg.vault.target_rows import PersonColumns, person_columns

_ENCODER = msgspec.json.Encoder(decimal_format="number")

logger = structlog.get_logger(__name__)


class Ready(msgspec.Struct):
    """A pipeline that can run: everything was checked."""

    consumer: Consumer
    processors: list[Processor]
    source: QueueSource
    client: SqsClient
    keyring: Keyring
    metrics: Metrics
    sink_plan: SinkPlan
    about: About
    journal: Journal
    readings: Readings
    watch: Watch

    def snapshot(self) -> Snapshot:
        """The present moment, for the status page; called from its thread."""
        metrics, pulse = self.metrics, self.consumer.pulse
        about = self.about
        return take_snapshot(metrics.registry, metrics.started_at, about, pulse, self.readings.seen)


class Processing(msgspec.Struct):
    """The half of a pipeline that knows no queue: messages in, outcomes out."""

    processors: list[Processor]
    keyring: Keyring
    metrics: Metrics
    sink_plan: SinkPlan
    journal: Journal
    rollover: Rollover


async def connect(settings: Settings) -> Session:
    """Connect to the settings' database. Raises TransientFault or FatalFault."""
    dsn = resolve_dsn(settings.sink.dsn)
    password = None
    if settings.sink.iam_auth:
        # In a thread: providers of credentials do blocking I/O.
        password = await asyncio.to_thread(login_token, *login_of(dsn))
    return await Session.connect(dsn, timeout_s=settings.sink.connect_timeout_s, password=password)


@asynccontextmanager
async def database(settings: Settings) -> AsyncIterator[tuple[Session, int]]:
    """Yield a session and the pipeline's number, for commands that only read or write books."""
    session = await connect(settings)
    try:
        yield session, await pipeline_id(session, settings)
    finally:
        await session.close()


def endpoints(settings: Settings) -> list[str]:
    """Return the hosts of queue and database that the settings and environment lead to."""
    return _endpoints(settings, SqsClient.from_environment())


def _endpoints(settings: Settings, client: SqsClient) -> list[str]:
    return [client.endpoint_host, *hosts(resolve_dsn(settings.sink.dsn))]


def keyring_of(
    settings: Settings, endpoints: list[str], environ: Mapping[str, str] = os.environ
) -> Keyring:
    """Return the keys of the settings' provider.

    `endpoints` are the hosts in use: a development key is refused unless all are loopback.
    """
    keys = settings.keys
    return load_keyring(
        provider_of(settings, environ),
        file=Path(keys.file) if keys.file else None,
        secret=keys.secret,
        environ=environ,
        endpoints=endpoints,
        allow_development=keys.allow_development,
    )


def provider_of(settings: Settings, environ: Mapping[str, str] = os.environ) -> str:
    """Return the provider that the keys come from, where the settings leave it open too."""
    keys = settings.keys
    if keys.provider != "auto":
        return keys.provider
    in_environment = bool(environ.get("SQS2PG_KEYS__PSEUDONYM_ROOT"))
    return "file" if keys.file else "environment" if in_environment else "development"


def masks_of(settings: Settings, keyring: Keyring) -> list[list[Operator | None]]:
    """Return each field's operator, compiled, by target, in the order of fields; None keeps."""
    return [
        [
            None
            if field.mask == "keep" and field.kind == "text"
            else compile_operator(
                field.mask,
                kind=field.kind,
                domain=field.domain or field.name,
                keyring=keyring,
            )
            for field in target.fields
        ]
        for target in settings.targets
    ]


def short_cut_of(
    settings: Settings,
    columns: Sequence[Sequence[Column]],
    masks: Sequence[Sequence[Operator | None]],
    environ: Mapping[str, str] = os.environ,
) -> fast_path.Lines | None:
    """Return the native short cut; None where there is none.

    None too where the vault is on and a glimpse would not tell whose a row is: their name is
    converted.
    """
    if settings.vault.enabled and naming(settings.fields, settings.vault.subject) is not text:
        return None
    return fast_path.compile_lines(settings, columns[0], masks[0], extension(environ))


async def dedupe_of(
    session: Session, settings: Settings, keyring: Keyring, pipeline: int
) -> DedupeKey | None:
    """Return the function from an event's name to its ledger key; None where nothing names events.

    Under the oldest pseudonym root on record, whichever is active and whichever are held: neither
    a rotation nor the removal of a root may make old events new. Raises KeyFault `key_missing`
    where the keyring does not hold that root.
    """
    if not settings.ledger.dedupe_key:
        return None
    version = await oldest(session, "pseudonym")
    if version not in keyring.versions("pseudonym"):
        raise KeyFault(
            f"the database's oldest pseudonym root, version {version}, is not in the keyring: "
            "ledger.dedupe_key needs it, or every event it knows would be written again",
            code="key_missing",
            hint="put that version back into the key file or environment of this process; with "
            "ledger.dedupe_key it stays there for good",
        )
    secret = hkdf_sha256(keyring.root("pseudonym", version), b"sqs2pg/1/dedupe")
    return lambda name: dedupe_key(secret, pipeline, name)


def payloads_of(settings: Settings) -> Payloads | None:
    """Return what fetches the bodies that messages point to; None where none do."""
    return Payloads(ObjectStore(), settings.envelope) if settings.envelope.has_pointers else None


async def _refresh(
    session: Session, settings: Settings, masks: list[list[Operator | None]]
) -> tuple[MessageMapping, Columns]:
    """Compile the mapping against the tables as they are now.

    Raises TransientFault where they cannot take it: that is mended in the database, or by a
    restart with another mapping, and the messages are held meanwhile.
    """
    try:
        _, matched = await target_tables(session, settings, narrowed=True)
        mapping = compile_mapping(settings, matched, masks)
    except SettingsError as error:
        raise TransientFault(error.what, code=error.code, hint=error.hint) from None
    logger.info("the target's columns were read again", table=settings.table_names)
    return mapping, matched


def person_columns_of(settings: Settings, keyring: Keyring) -> list[PersonColumns]:
    """Return where people's rows are: every target of the mapping. Raises SettingsError."""
    return [
        person_columns(
            quote_table(target.table),
            target.fields,
            settings.vault.subject,
            keyring,
            named=position > 0,
        )
        for position, target in enumerate(settings.targets)
    ]


def recoverable_columns(settings: Settings, keyring: Keyring) -> list[RecoverableColumn]:
    """Return every target's columns of pseudonyms whose values the vault keeps."""
    rings = {v: keyring.with_active("pseudonym", v) for v in keyring.versions("pseudonym")}
    return [
        RecoverableColumn(
            quote_table(target.table),
            field.column,
            field.source,
            {
                version: masked(
                    field,
                    compile_operator(
                        field.mask, kind=field.kind, domain=field.domain or field.name, keyring=ring
                    ).mask,
                )
                for version, ring in rings.items()
            },
        )
        for target in settings.targets
        for field in target.fields
        if field.recover and field.mask == "pseudonymize"
    ]


def references_of(settings: Settings, reference_key: bytes) -> Callable[[str], str]:
    """Return the function from a person's name, as messages or the target have it, to its
    reference. It raises PermanentFault for a name that could not have been stored.
    """
    reference = subject_references(reference_key)
    named = naming(settings.fields, settings.vault.subject)
    return lambda name: reference(named(name))


def whose_of(settings: Settings, reference_key: bytes) -> Whose:
    """Return the function from a body to the reference of the person it is about.

    None where its records do not all name one and the same: the body is nobody's alone.
    """
    find = whose(references_of(settings, reference_key), settings.vault.subject)
    if not settings.envelope.layers and settings.envelope.records == "one":
        return find
    envelope = Envelope(settings.envelope)

    def inside(body: str) -> str | None:
        try:
            opened = envelope.open(Message("", "", body, SystemAttributes(0)))
        except PermanentFault:
            return find(body)
        texts = (_ENCODER.encode(document).decode() for document in opened.documents)
        found = {find(text) for text in texts}
        return found.pop() if len(found) == 1 else None

    return inside


async def upkeep(settings: Settings, pipeline: int) -> None:
    """Do one turn of the books' upkeep over a connection of its own. Raises TransientFault."""
    try:
        session = await connect(settings)
    except FatalFault as fault:  # such as a login refused while the server starts up
        raise TransientFault(fault.what, code=fault.code) from None
    try:
        await maintain(session, settings, pipeline)
    finally:
        await session.close()


def about_of(settings: Settings) -> About:
    """What the pipeline is called, for the status page. Of the queue the name, not the account."""
    queue = settings.source.queue.rstrip("/").rsplit("/", 1)[-1].rsplit(":", 1)[-1]
    return About(settings.pipeline_name, queue, settings.table_names)


@asynccontextmanager
async def assemble_processors(
    settings: Settings,
    endpoints: list[str],
    is_fifo: Callable[[], Awaitable[bool]],
    *,
    archive: bool = False,
    metrics: Metrics | None = None,
) -> AsyncIterator[Processing]:
    """Yield the processors alone, for front doors that have no queue to poll; close them after.

    `endpoints` are the hosts in use, for `keyring_of`. `is_fifo` is asked last, so that a wrong
    key or database is said first. `archive`: what comes is no queue's, and may be years old.
    `metrics`: those of the caller, where they outlive the processors.
    """
    sessions: list[Session] = []
    sinks: list[Sink] = []
    about = about_of(settings)
    traces = start_traces(settings.telemetry, about.queue, about.table, about.pipeline)
    try:
        keyring = keyring_of(settings, endpoints)
        first = await connect(settings)
        sessions.append(first)
        number = await pipeline_id(first, settings)
        targets, matched = await target_tables(first, settings)
        keyring = await verify_fingerprints(first, keyring)
        key = await reference_key(first, keyring)
        dedupe = await dedupe_of(first, settings, keyring, number)
        fifo = await is_fifo()
        while len(sessions) < settings.sink.connections:
            sessions.append(await connect(settings))

        def compiled(keyring: Keyring, key: bytes) -> Compiled:
            vault = ValueSealer(keyring, key) if settings.vault.enabled else None
            sink_plan = SinkPlan(
                id=number,
                targets=tuple(targets),
                key_version=keyring.active("pseudonym"),
                statement_timeout_s=settings.sink.statement_timeout_s,
                fifo=fifo,
                archive=archive,
                dedupe=dedupe is not None,
            )
            masks = masks_of(settings, keyring)
            short_cut = short_cut_of(settings, matched, masks)
            plan = Plan(
                mapping=compile_mapping(settings, matched, masks),
                payloads=payloads_of(settings),
                refresh=lambda session: _refresh(session, settings, masks),
                columns=matched,
                seal=sealer(keyring, whose_of(settings, key)),
                fifo=fifo,
                dedupe=dedupe,
                recovers=vault is not None,
                short_cut=short_cut,
                glimpse=(
                    Glimpse(settings.fields, settings.vault.subject)
                    if short_cut and vault
                    else None
                ),
            )
            return Compiled(keyring, plan, sink_plan, vault)

        async def read_again() -> Compiled:
            # In a thread: a provider may ask AWS.
            fresh = await asyncio.to_thread(keyring_of, settings, endpoints)
            session = await connect(settings)
            try:
                fresh = await verify_fingerprints(session, fresh)
                return compiled(fresh, await reference_key(session, fresh))
            finally:
                await session.close()

        metrics, journal = metrics or Metrics(), Journal()
        made = compiled(keyring, key)
        rollover = Rollover(made, read_again)
        streak = Streak()
        sinks = [
            Sink(session, made.sink_plan, lambda: connect(settings), made.vault, streak)
            for session in sessions
        ]
        processors = [
            Processor(made.plan, sink, metrics, journal, traces, follow=rollover.follow)
            for sink in sinks
        ]
        yield Processing(processors, keyring, metrics, made.sink_plan, journal, rollover)
    finally:
        if traces:
            await asyncio.to_thread(traces.close)
        # A sink replaces a session that broke.
        await wait_closed({*sessions, *(sink.session for sink in sinks)})


@asynccontextmanager
async def assemble_backfill(settings: Settings) -> AsyncIterator[Callable[..., Backfill]]:
    """Yield what makes a backfill, of `day`, `store` and `claim_wait_s`, on connections of its own;
    close them after. One at a time may be at work.
    """

    async def is_fifo() -> bool:
        return False

    # The queue is not used; an object store may be, and keys for development stay on loopback.
    endpoints = hosts(resolve_dsn(settings.sink.dsn))
    one = msgspec.structs.replace(
        settings, sink=msgspec.structs.replace(settings.sink, connections=1)
    )
    async with assemble_processors(one, endpoints, is_fifo, archive=True) as made:
        session = await connect(settings)
        try:
            yield partial(
                Backfill,
                session,
                made.processors[0],
                made.sink_plan.id,
                batch_lines=settings.sink.batch_rows_max,
            )
        finally:
            await session.close()


@asynccontextmanager
async def assemble(settings: Settings) -> AsyncIterator[Ready]:
    """Yield a pipeline ready to run; close its connections at the end."""
    client = SqsClient.from_environment(max_connections=settings.source.receivers_max)
    queue_url = ""

    async def is_fifo() -> bool:
        nonlocal queue_url
        queue_url = await _find_queue(client, settings.source.queue)
        return queue_url.endswith(".fifo")

    try:
        async with assemble_processors(settings, _endpoints(settings, client), is_fifo) as made:
            metrics, processors, plan = made.metrics, made.processors, made.sink_plan
            source = QueueSource(
                client,
                queue_url,
                settings.source,
                metrics,
                message_attributes=_wanted_attributes(settings),
            )
            consumer = Consumer(
                source, processors, settings, metrics, upkeep=lambda: upkeep(settings, plan.id)
            )
            readings = Readings(
                source,
                client,
                metrics,
                consumer.pulse,
                made.journal,
                Roster(plan.id, metrics.started_at),
                consumer.totals,
                connect=lambda: connect(settings),
                key_version=lambda: made.rollover.key_version,
                migrations=len(migrations()),
                database_host=network_address(resolve_dsn(settings.sink.dsn)),
                every_s=settings.status.poll_s,
                cloudwatch=settings.status.cloudwatch == "auto",
            )
            yield Ready(
                consumer=consumer,
                processors=processors,
                source=source,
                client=client,
                keyring=made.keyring,
                metrics=metrics,
                sink_plan=plan,
                about=about_of(settings),
                journal=made.journal,
                readings=readings,
                watch=Watch([*readings.all(), *telemetry_readings(settings, metrics)], metrics),
            )
    finally:
        await client.close()


def _wanted_attributes(settings: Settings) -> tuple[str, ...]:
    """The producer's message attributes that are asked for."""
    wanted = tuple(settings.message_attributes)
    traced = settings.telemetry.traces and not {"All", TRACEPARENT} & set(wanted)
    return (*wanted, TRACEPARENT) if traced else wanted


async def _find_queue(client: SqsClient, queue: str) -> str:
    """Return the queue's URL, having made sure that it answers."""
    try:
        url = await client.queue_url(queue)
        await client.attributes(url, ["QueueArn"])
    except TransientFault as fault:
        fault.hint = fault.hint or "check AWS_ENDPOINT_URL, AWS_REGION and the network"
        raise
    return url
