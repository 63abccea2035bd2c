"""`backfill --ray`: archives over a Ray cluster, one at a time by each hand that works on it.

    driver ─ find ─▶ archives ─ one ─▶ hand on a node: read, mask, write, as `backfill` has it
           ◀─ state, every second or so; what it came to, at the end ┘

Progress is the table's, as without a cluster: a hand that dies had committed whole batches, and
its archive goes to another one, which goes on at the line after. PostgreSQL's lock keeps two from
writing one archive, whatever Ray believes of a node. No line of an archive travels through Ray, and
no secret: a node reads both for itself.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import structlog

from sqs2pg.errors import FatalFault, SettingsError
from sqs2pg.pipeline import archive as archives
from sqs2pg.pipeline.archive import Archive, Objects
from sqs2pg.pipeline.backfill import Backfill, Done
from sqs2pg.runners.assembly import assemble_backfill
from sqs2pg.runners.ray_fleet import answer_of, as_fault, fault_of, fingerprint, library, load_as
from sqs2pg.settings import Settings
from sqs2pg.sqs.s3 import ObjectStore
from sqs2pg.telemetry import log

CLAIM_WAIT_S = 30.0
"""How long a hand waits for another run's archive: longer than PostgreSQL needs to miss a machine
that lost its power (`pipeline/backfill.py`)."""
LOSSES_MAX = 5
"""Hands that one archive may cost, before it is taken for what kills them."""
STARTS_MAX = 10
"""Hands that may end, one after the other, before any came up."""
CLOSE_S = 5.0

logger = structlog.get_logger(__name__)


class Hand:
    """Writes one archive at a time, in an actor's process. Its methods run on its event loop."""

    def __init__(self, config: str | None, expected: str, day: date | None) -> None:
        log.configure()
        self._config = Path(config) if config else None
        self._expected = expected
        self._day = day
        self._stack = AsyncExitStack()
        self._begin: Callable[..., Backfill] | None = None
        self._store: Objects | None = None
        self._work: Backfill | None = None
        self._name = ""

    async def write(self, archive: Archive) -> dict[str, Any]:
        """Write one archive; return `done`, its `digest`, and `fault` where it ended by one."""
        self._work, self._name = None, archive.name
        fault = None
        try:
            archive = await asyncio.to_thread(_identify, archive)
            begin = await self._assembled()
            store = self._store_for(archive)
            self._work = begin(day=self._day, store=store, claim_wait_s=CLAIM_WAIT_S)
            await self._work.write(archive)
        except Exception as error:  # noqa: BLE001  the last gate: no text of an exception passes it
            fault = fault_of(error)
            await self.close()  # the next archive begins with connections of its own
        done = self._work.done if self._work else Done()
        return {"done": msgspec.to_builtins(done), "digest": archive.digest, "fault": fault}

    async def state(self) -> dict[str, Any]:
        """Return what it did so far of the archive in hand, its `name`, and the `node`."""
        work = self._work
        done = msgspec.to_builtins(work.done if work else Done())
        read = work.bytes_done if work else 0
        return {"name": self._name, "done": done, "bytes": read, "node": _node()}

    async def close(self) -> None:
        """Close the connections."""
        self._begin = None
        await self._stack.aclose()

    async def _assembled(self) -> Callable[..., Backfill]:
        if self._begin is None:
            settings = load_as(self._config, self._expected)
            self._begin = await self._stack.enter_async_context(assemble_backfill(settings))
        return self._begin

    def _store_for(self, archive: Archive) -> Objects | None:
        if self._store is None and archive.name.startswith("s3://"):
            self._store = ObjectStore()
        return self._store


def _identify(archive: Archive) -> Archive:
    try:
        return archives.identify(archive)
    except SettingsError as error:
        raise SettingsError(
            f"{error.what}, on node {_node()}",
            code="node_path",
            hint="put archives where every node reads them at one path (shared storage), or in S3",
        ) from None


def _node() -> str:
    return str(library().util.get_node_ip_address())


class _Task(msgspec.Struct, eq=False):
    """One archive, from its finding to its end, over as many hands as it takes."""

    archive: Archive
    known: Done = msgspec.field(default_factory=Done)
    """What hands that were lost had reported of it."""
    losses: int = 0
    refused: bool = False
    """Whether another run had it, when it was tried last."""

    def with_known(self, done: Done) -> Done:
        """Return what a hand did, together with what was known before; one file's, once."""
        known = self.known
        if not known.files:
            return msgspec.structs.replace(done)
        lines = known.lines + done.lines
        if done.files:  # a hand that was lost had gone on after its last word
            lines = done.resumed + done.lines - known.resumed
        return Done(
            files=1,
            lines=lines,
            written=known.written + done.written,
            duplicate=known.duplicate + done.duplicate,
            quarantined=known.quarantined + done.quarantined,
            resumed=known.resumed,
        )


class _Placed(msgspec.Struct, eq=False):
    """One hand, from its placement to its end."""

    actor: Any
    node: str = ""
    """Empty while it waits for a place."""
    asked: asyncio.Future[Any] | None = None
    asked_at: float = 0.0
    task: _Task | None = None
    ending: asyncio.Future[Any] | None = None
    """What becomes of the task."""
    done: Done = msgspec.field(default_factory=Done)
    bytes_done: int = 0


class Spread:
    """The driver: as many hands as the cluster has room for, until every archive is written."""

    def __init__(
        self,
        settings: Settings,
        config: Path | None,
        *,
        day: date | None = None,
        store: Objects | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._ray = library()
        actor = self._ray.remote(
            num_cpus=settings.ray.cpus, max_restarts=0, scheduling_strategy="SPREAD"
        )(Hand)
        self._actor_class: Any = actor
        self._arguments = (str(config.resolve()) if config else None, fingerprint(settings), day)
        self._waiting: deque[_Task] = deque()
        self._hands: list[_Placed] = []
        self._finished = Done()
        self._starts_failed = 0
        self._bytes_before = 0
        self.bytes_total = 0
        """Stored bytes of the archives that are not done yet, or were done by this run."""

    @property
    def bytes_done(self) -> int:
        """Stored bytes of the archives that have been read, as far as hands have said so."""
        return self._bytes_before + sum(hand.bytes_done for hand in self._hands if hand.task)

    @property
    def done(self) -> Done:
        """What all hands did, as far as they have said so; lines."""
        parts = [self._finished, *(task.with_known(Done()) for task in self._waiting)]
        parts += [hand.task.with_known(hand.done) for hand in self._hands if hand.task]
        return _sum(parts)

    @property
    def nodes(self) -> set[str]:
        """Addresses of the nodes that hands work on."""
        return {hand.node for hand in self._hands if hand.node and hand.task}

    async def run(self, paths: Sequence[str]) -> Done:
        """Write the lines of every archive under `paths` that no run has finished.

        Of a hand that died the counts are those it last reported. Raises what a hand ended by, as
        `Backfill.run`; SettingsError `node_path` where a node cannot read a path. May be repeated,
        and goes on where it ended.
        """
        found = await asyncio.to_thread(archives.find_all, _absolute(paths), self._store)
        self.bytes_total = sum(one.size for one in found)
        self._waiting.extend(_Task(one) for one in found)
        try:
            while self._waiting or any(hand.task for hand in self._hands):
                self._place()
                self._hand_out()
                await self._listen()
        finally:
            await self._let_go()
        return self.done

    def _place(self) -> None:
        """Have a hand for every archive, as far as the cluster and PostgreSQL have room."""
        if any(not hand.node for hand in self._hands):
            return  # while one waits for a place, another would wait too
        ours = self._settings.ray
        cpus = self._ray.cluster_resources().get("CPU", 0.0)
        room = max(1, min(ours.consumers_max, int(cpus / ours.cpus)))
        wanted = min(room, len(self._waiting) + sum(1 for hand in self._hands if hand.task))
        for _ in range(wanted - len(self._hands)):
            self._hands.append(_Placed(self._actor_class.remote(*self._arguments)))

    def _hand_out(self) -> None:
        for hand in self._hands:
            if hand.node and hand.task is None and self._waiting:
                hand.task, hand.done, hand.bytes_done = self._waiting.popleft(), Done(), 0
                given = hand.actor.write.remote(hand.task.archive)
                hand.ending = asyncio.ensure_future(answer_of(given))

    async def _listen(self) -> None:
        """Wait for the next word of any hand, and take it in."""
        every_s, now = self._settings.ray.every_s, time.monotonic()
        for hand in self._hands:
            if hand.asked is None and (not hand.node or now - hand.asked_at >= every_s):
                hand.asked = asyncio.ensure_future(answer_of(hand.actor.state.remote()))
                hand.asked_at = now
        words = [one for hand in self._hands for one in (hand.asked, hand.ending) if one]
        await asyncio.wait(words, timeout=every_s, return_when=asyncio.FIRST_COMPLETED)
        for hand in list(self._hands):
            if hand.asked is not None and hand.asked.done():
                state, hand.asked = hand.asked.result(), None
                self._note(hand, state)
            if hand.ending is not None and hand.ending.done():
                ended, hand.ending = hand.ending.result(), None
                self._end(hand, ended)

    def _note(self, hand: _Placed, state: dict[str, Any] | None) -> None:
        if state is not None:
            hand.node, self._starts_failed = state["node"], 0
            if hand.task and hand.task.archive.name == state["name"]:  # not of the one before
                hand.done, hand.bytes_done = Done(**state["done"]), state["bytes"]
        elif hand.task is None:
            # With an archive in hand, `ending` says the same.
            self._starts_failed += 0 if hand.node else 1
            self._lose(hand)
            if self._starts_failed >= STARTS_MAX:
                raise FatalFault(
                    "no node of the cluster starts a consumer",
                    code="node_starts",
                    hint="install the same sqs2pg[ray] on every node; its log says more",
                )

    def _end(self, hand: _Placed, ended: dict[str, Any] | None) -> None:
        assert hand.task is not None
        task = hand.task
        if ended is None:
            task.known, task.losses = task.with_known(hand.done), task.losses + 1
            self._lose(hand)
            self._waiting.appendleft(task)
            if task.losses >= LOSSES_MAX:
                raise FatalFault(
                    f"{task.losses} nodes or processes ended over {task.archive.name}",
                    code="node_losses",
                    hint="look for what ended them (memory?), or backfill it without --ray",
                )
            return
        hand.task = None
        task.archive = task.archive._replace(digest=ended["digest"])
        if ended["fault"] is None:
            self._finish(task, Done(**ended["done"]))
        elif ended["fault"]["code"] == "backfill_twice" and self._others_first(hand):
            task.refused = True
            self._waiting.append(task)
        else:
            raise as_fault(ended["fault"])

    def _others_first(self, hand: _Placed) -> bool:
        """Whether there is other work, after which an archive of another run may be free."""
        at_work = any(one.task for one in self._hands if one is not hand)
        return at_work or any(not task.refused for task in self._waiting)

    def _finish(self, task: _Task, done: Done) -> None:
        if done.skipped:
            self.bytes_total -= task.archive.size
        else:
            self._bytes_before += task.archive.size
        self._finished = _sum([self._finished, task.with_known(done)])
        for other in self._waiting:
            other.refused = False  # it may have had the same content

    def _lose(self, hand: _Placed) -> None:
        self._hands.remove(hand)
        if hand.asked is not None:
            hand.asked.cancel()
        self._ray.kill(hand.actor)
        left = len(self._waiting)
        logger.warning("a hand is gone; another goes on where it ended", where=hand.node, left=left)

    async def _let_go(self) -> None:
        """End the hands; connections are closed first where nothing is in hand."""
        closing = [
            asyncio.ensure_future(answer_of(hand.actor.close.remote()))
            for hand in self._hands
            if hand.node and hand.task is None
        ]
        if closing:
            await asyncio.wait(closing, timeout=CLOSE_S)
        for hand in self._hands:
            for one in (hand.asked, hand.ending):
                if one is not None:
                    one.cancel()
            self._ray.kill(hand.actor)


def _absolute(paths: Sequence[str]) -> list[str]:
    """A node's current folder is not ours."""
    return [one if one.startswith("s3://") else str(Path(one).resolve()) for one in paths]


def _sum(parts: Sequence[Done]) -> Done:
    names = Done.__struct_fields__
    return Done(**{name: sum(getattr(part, name) for part in parts) for name in names})
