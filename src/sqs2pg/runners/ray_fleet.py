"""`run --ray`: consumers as actors over a Ray cluster, placed, scaled, healed and drained.

    driver ─ place ─▶ actor on a node: a whole pipeline, as in `run`
           ◀─ state ─ every second or so: what it did, what it holds
    backlog, rates ─▶ autoscaler ─▶ place one more, or stop one and let it drain

SQS spreads the messages and the ledger makes an overlap a duplicate, so the actors need not talk to
each other. A node that dies loses nothing: what its actor held comes back when the leases end.

Secrets do not travel through Ray: an actor reads settings, keys and credentials from its own node.
It is refused if its settings differ from the driver's. Faults come back as codes.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import structlog

from sqs2pg.errors import (
    FatalFault,
    KeyFault,
    SettingsError,
    Sqs2pgError,
    TransientFault,
    unforeseen,
)
from sqs2pg.pipeline.stretches import paused_drain
from sqs2pg.pipeline.totals import COUNTED, Totals, add_lines
from sqs2pg.runners.autoscaler import Load, Scaler
from sqs2pg.runners.pipeline import Pipeline
from sqs2pg.settings import Settings, load
from sqs2pg.sqs.client import SqsClient
from sqs2pg.sqs.queue import read_depth
from sqs2pg.telemetry import log

INSTALL_HINT = "pip install 'sqs2pg[ray]'"
ANSWER_S = 1.0
"""How long a look waits for the consumers' answers. A consumer that is late counts as it last
answered; a later look takes in its answer."""
STOP_MARGIN_S = 15.0
"""Added to the grace period: a consumer that has not stopped by then is killed."""
PROBE_S = 10.0
"""How long the cluster may take to accept a connection."""

logger = structlog.get_logger(__name__)


def fingerprint(settings: Settings) -> str:
    """Return a digest of the settings that all consumers of a fleet must share.

    It leaves out where a node's keys, database and status address are, and the driver's own.
    """
    tree = msgspec.to_builtins(settings)
    for section, name in (("sink", "dsn"), ("keys", "file"), ("source", "drain_settle_s")):
        del tree[section][name]
    del tree["status"], tree["ray"]
    return hashlib.sha256(msgspec.json.encode(tree, order="deterministic")).hexdigest()[:16]


def load_as(config: Path | None, expected: str) -> Settings:
    """Return this node's settings. Raises SettingsError if they differ from the fleet's."""
    settings = load(config)
    if fingerprint(settings) != expected:
        raise SettingsError(
            "a node's settings are not those that the fleet was started with",
            code="node_settings",
            hint="give every node the same settings file and SQS2PG_ variables",
        )
    return settings


class FleetConsumer:
    """One pipeline in an actor's process. Its methods run on the actor's event loop."""

    def __init__(self, config: str | None, expected: str) -> None:
        log.from_environment(supervised=True)
        self._config = Path(config) if config else None
        self._expected = expected
        self._pipeline: Pipeline | None = None
        self._stopping = False

    async def run(self) -> dict[str, Any]:
        """Consume until stopped; return `totals`, and `fault` where a fault ended it."""
        fault: dict[str, Any] | None = None
        try:
            settings = load_as(self._config, self._expected)
            log.follow(settings.log)
            pipeline = self._pipeline = Pipeline(settings)
            if self._stopping:
                pipeline.request_stop()
            async with pipeline:
                await pipeline.run()
        except Exception as error:  # noqa: BLE001  no text of an exception may leave the node
            fault = fault_of(error)
        return {"totals": self._totals(), "fault": fault}

    async def stop(self) -> None:
        """End receiving; `run` returns when the messages held are settled or released."""
        self._stopping = True
        if self._pipeline is not None:
            self._pipeline.request_stop()

    async def state(self) -> dict[str, Any]:
        """Return its totals, what it holds, its node, and whether the pipeline is paused; `at_s` by
        its own clock, None while it is not ready to work.
        """
        opened = self._pipeline is not None and self._pipeline.opened
        held = self._pipeline.source.held_count if self._pipeline and opened else 0
        at_s = time.monotonic() if opened else None
        paused = bool(self._pipeline and opened and self._pipeline.stretches.pause)
        return {
            "totals": self._totals(),
            "held": held,
            "node": node_id(),
            "at_s": at_s,
            "paused": paused,
        }

    def _totals(self) -> dict[str, Any]:
        totals = self._pipeline.totals if self._pipeline else Totals()
        flat: dict[str, Any] = msgspec.to_builtins(totals)
        if self._pipeline and self._pipeline.opened:
            flat["isolated"] = self._pipeline.consumer.isolated()
        return flat


def node_id() -> str:
    """Return the id of the node that this process runs on."""
    ray = library()
    return str(ray.get_runtime_context().get_node_id())


def library() -> Any:
    """Return Ray. Raises SettingsError where it is not installed."""
    try:
        import ray
    except ImportError:
        raise SettingsError("--ray needs Ray, which is not installed", hint=INSTALL_HINT) from None
    return ray


class _PlacedConsumer(msgspec.Struct, eq=False):
    """One actor, from its placement to its end."""

    number: int
    actor: Any
    ended: asyncio.Future[Any]
    totals: dict[str, Any]
    held: int = 0
    node: str = ""
    """Empty while it waits for a place."""
    stopped_at: float | None = None
    asked: asyncio.Future[Any] | None = None
    """The answer that is still due: one question at a time."""
    at_s: float | None = None
    """When it last answered, by its own clock."""
    paused: bool = False
    """Whether its pipeline is paused on record."""
    rate: float | None = None
    """Messages per second between its last two answers; None if this look brought no answer."""

    def note(self, state: dict[str, Any]) -> None:
        """Take in its answer."""
        before_s, before = self.at_s, _settled(self.totals)
        self.totals, self.held, self.node = state["totals"], state["held"], state["node"]
        self.paused = state["paused"]
        self.at_s = state["at_s"]
        if before_s is not None and self.at_s is not None and self.at_s > before_s:
            self.rate = (_settled(self.totals) - before) / (self.at_s - before_s)


def _settled(totals: dict[str, Any]) -> int:
    return sum(totals.get(name, 0) for name in ("written", "duplicate", "quarantined"))


class FleetDriver:
    """The driver: as many consumers as the backlog wants, on whatever nodes there are."""

    def __init__(
        self,
        settings: Settings,
        config: Path | None,
        client: SqsClient,
        *,
        on_change: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._config = str(config.resolve()) if config else None
        self._client = client
        self._queue_url = ""
        self._ray = library()
        self._actor_class = self._ray.remote(
            num_cpus=settings.ray.cpus,
            # The driver places a new one itself, if the backlog wants one and where there is room.
            max_restarts=0,
            scheduling_strategy="SPREAD",
        )(FleetConsumer)
        self._scaler = Scaler(
            least=settings.ray.consumers_min,
            most=max(settings.ray.consumers_min, settings.ray.consumers_max),
            catch_up_s=settings.ray.catch_up_s,
        )
        self._placed: list[_PlacedConsumer] = []
        self._past: list[dict[str, Any]] = []  # totals of those that ended
        self._fault: Sqs2pgError | None = None
        self._stopping = asyncio.Event()
        self._on_change = on_change
        self._numbers = 0

    def request_stop(self) -> None:
        """End the fleet: every consumer drains what it holds."""
        self._stopping.set()

    @property
    def nodes(self) -> dict[str, int]:
        """Consumers by the node they run on."""
        counts: dict[str, int] = {}
        for one in self._placed:
            if one.node:
                counts[one.node] = counts.get(one.node, 0) + 1
        return counts

    async def run(self, *, drain_settle_s: float | None = None) -> Totals:
        """Keep the fleet until a stop is requested, a fault, or the queue was empty for so long.

        Returns the totals of all consumers; a consumer that died counts as it last reported.
        Raises the fault that ended a consumer.
        """
        self._queue_url = await self._client.queue_url(self._settings.source.queue)
        began = time.monotonic()
        empty_since: float | None = None
        while not self._stopping.is_set() and self._fault is None:
            await self._look()
            depth = await self._depth()
            if depth is not None:
                self._scale(depth)
                left = depth > len(self.totals.isolated)
                busy = left or any(one.held for one in self._placed)
                empty_since = None if busy else empty_since or time.monotonic()
            empty_s = time.monotonic() - empty_since if empty_since is not None else -1.0
            if drain_settle_s is not None and empty_s >= drain_settle_s:
                break
            if drain_settle_s is not None and any(one.paused for one in self._placed):
                self._fault = paused_drain()
                break
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), self._settings.ray.every_s)
        await self._retire_all()
        if self._fault is not None:
            raise self._fault
        totals = self.totals
        totals.seconds = round(time.monotonic() - began, 3)
        return totals

    @property
    def totals(self) -> Totals:
        """The sum of what all consumers did, including those that have ended."""
        total = Totals()
        for part in (*self._past, *(one.totals for one in self._placed)):
            for name in COUNTED:
                setattr(total, name, getattr(total, name) + part.get(name, 0))
            total.object_lines = add_lines(total.object_lines, part.get("object_lines"))
            total.isolated = sorted({*total.isolated, *part.get("isolated", [])})
            total.busy_seconds = max(total.busy_seconds, part.get("busy_seconds", 0.0))
        return total

    def _scale(self, backlog: int) -> None:
        going = [one for one in self._placed if one.stopped_at is None]
        working = [one for one in going if one.node]
        rates = [one.rate for one in working if one.rate is not None]
        rate = sum(rates) / len(rates) if rates else None
        paused = any(one.paused for one in working)
        load = Load(backlog, rate, time.monotonic(), len(working), paused)
        wanted = self._scaler.wanted(load, len(going))
        if wanted > len(going) > len(working):
            wanted = len(going)  # one waits for a place; another would wait, too
        if wanted != len(going):
            logger.info("scaling", workers=wanted, left=backlog)
        for _ in range(wanted - len(going)):
            self._place()
        for one in self._superfluous(going, len(going) - wanted):
            self._retire(one)

    def _superfluous(self, going: list[_PlacedConsumer], count: int) -> list[_PlacedConsumer]:
        """Choose which to stop: those that wait for a place, then those on the fullest node."""
        counts = self.nodes
        order = sorted(going, key=lambda one: (bool(one.node), -counts.get(one.node, 0)))
        return order[: max(0, count)]

    def _place(self) -> None:
        self._numbers += 1
        actor = self._actor_class.remote(self._config, fingerprint(self._settings))
        ended = asyncio.ensure_future(answer_of(actor.run.remote()))
        self._placed.append(_PlacedConsumer(self._numbers, actor, ended, {}))

    def _retire(self, one: _PlacedConsumer) -> None:
        one.stopped_at = time.monotonic()
        one.actor.stop.remote()

    async def _look(self) -> None:
        """Ask every consumer for its state; remove those that ended, for whatever reason."""
        for one in self._placed:
            one.rate = None
            if one.asked is None:
                one.asked = asyncio.ensure_future(answer_of(one.actor.state.remote()))
        # Not for those that wait for a place: they may wait for a node that never comes.
        awaited = [one.asked for one in self._placed if one.asked and one.node]
        if awaited:
            await asyncio.wait(awaited, timeout=ANSWER_S)
        limit_s = self._settings.shutdown_grace_s + STOP_MARGIN_S
        for one in list(self._placed):
            if one.asked is not None and one.asked.done():
                state, one.asked = one.asked.result(), None
                if state is not None:
                    one.note(state)
            overdue = one.stopped_at is not None and time.monotonic() - one.stopped_at > limit_s
            if overdue:
                self._ray.kill(one.actor)
            if one.ended.done() or overdue:
                self._remove(one)
        self._on_change(len(self._placed))

    def _remove(self, one: _PlacedConsumer) -> None:
        self._placed.remove(one)
        if one.asked is not None:
            one.asked.cancel()
        ended = one.ended.result() if one.ended.done() else None
        self._past.append(ended["totals"] if ended else one.totals)
        self._ray.kill(one.actor)  # its process has nothing left to do
        if ended is None and not one.node and one.stopped_at is not None:
            return  # it never got a place, and is not wanted any more
        if ended is None:
            # Its node or its process died: the next turn places another, if one is wanted.
            logger.warning("a consumer is gone; what it held comes back", worker=one.number)
        elif ended["fault"]:
            self._fault = self._fault or as_fault(ended["fault"])

    async def _retire_all(self) -> None:
        for one in self._placed:
            if one.stopped_at is None:
                self._retire(one)
        while self._placed:
            await asyncio.wait(
                [one.ended for one in self._placed],
                timeout=1.0,
                return_when=asyncio.FIRST_COMPLETED,
            )
            waiting = [one for one in self._placed if not one.node]
            for one in waiting:  # it never got a place
                self._ray.kill(one.actor)
            await self._look()

    async def _depth(self) -> int | None:
        """Return the messages on the queue, in flight and delayed included; None if not known."""
        try:
            return sum(await read_depth(self._client, self._queue_url))
        except TransientFault as fault:
            logger.warning("the queue's length is not known now", code=fault.code)
            return None


async def answer_of(reference: Any) -> Any:
    """Return a remote call's answer; None if its actor died. Ray's error text is dropped."""
    try:
        return await reference
    except asyncio.CancelledError:
        raise
    except Exception:  # noqa: BLE001  RayActorError and the like, which quote the node
        return None


def fault_of(error: Exception) -> dict[str, Any]:
    """Return what an error may tell the driver; if it is not ours, only its type."""
    if isinstance(error, Sqs2pgError):
        kind, what, code, hint = type(error).__name__, error.what, error.code, error.hint
    else:
        kind, code = "FatalFault", "unexpected"
        what, hint = unforeseen(error)
    return {"kind": kind, "what": what, "code": code, "hint": hint}


def as_fault(fault: dict[str, Any]) -> Sqs2pgError:
    """Return the error to raise for a fault that a node sent, with the exit code of its class."""
    classes: dict[str, type[Sqs2pgError]] = {
        one.__name__: one for one in (SettingsError, KeyFault, FatalFault)
    }
    kind = classes.get(fault["kind"], FatalFault)
    return kind(fault["what"], code=fault["code"], hint=fault["hint"])


def join(address: str) -> None:
    """Join the cluster at `address`: `auto`, `host:port` or `ray://…`. Raises SettingsError."""
    ray = library()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        _probe(address)
        ray.init(
            address=address,
            namespace="sqs2pg",
            log_to_driver=False,  # stdout is the command's own; the logs are on the nodes
            logging_level="ERROR",
            ignore_reinit_error=True,
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise SettingsError(
            f"no Ray cluster answers at {address} ({type(error).__name__})",
            hint="start one with `ray start --head`, or check the address and the network",
        ) from None


def _probe(address: str) -> None:
    """Raise OSError if nothing listens there: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_S).close()


def leave() -> None:
    """Leave the cluster. The actors that are left end with this process."""
    library().shutdown()
