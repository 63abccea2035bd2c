"""`backfill --ray`: archives over a Ray cluster. Each worker writes one archive at a time.

    driver ─ find ─▶ archives ─ one ─▶ worker on a node: read, mask, write, like `backfill`
           ◀─ state, every second or so; its result, at the end      ┘

The progress is in the table, as without a cluster. A worker that dies has committed whole batches;
another worker goes on with its archive at the next line. A worker writes no line before the driver
knows how many were committed before it, so that all lines of the run are counted. PostgreSQL's lock
keeps two workers from writing one archive, whatever Ray believes of a node. No line of an archive
and no secret travels through Ray: each node reads both for itself.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import structlog

from sqs2pg.errors import FatalFault, SettingsError
from sqs2pg.pipeline import archive_reader
from sqs2pg.pipeline.archive_objects import Objects
from sqs2pg.pipeline.archive_reader import Archive
from sqs2pg.pipeline.backfill import ROWS, Backfill, Done
from sqs2pg.runners.assembly import assemble_backfill
from sqs2pg.runners.ray_fleet import answer_of, as_fault, fault_of, fingerprint, library, load_as
from sqs2pg.settings import ArchiveFormat, Settings
from sqs2pg.sqs.s3 import ObjectStore
from sqs2pg.telemetry import log

CLAIM_WAIT_S = 30.0
"""How long a worker waits for another run's archive: longer than PostgreSQL needs to notice that
a machine has lost its power (`pipeline/backfill.py`)."""
LOSSES_MAX = 5
"""Workers that one archive may cost before it is blamed for killing them."""
STARTS_MAX = 10
"""Workers that may end in a row before any has started."""
CLOSE_S = 5.0
BEGIN_S = 1.0
"""How long a worker's answer may wait for the beginning of its archive."""

logger = structlog.get_logger(__name__)


class BackfillWorker:
    """Writes one archive at a time, in an actor's process. Its methods run on its event loop."""

    def __init__(
        self, config: str | None, expected: str, day: date | None, form: ArchiveFormat | None = None
    ) -> None:
        log.from_environment(supervised=True)
        self._form = form
        self._config = Path(config) if config else None
        self._expected = expected
        self._day = day
        self._stack = AsyncExitStack()
        self._begin: Callable[..., Backfill] | None = None
        self._store: Objects | None = None
        self._work: Backfill | None = None
        self._name = ""
        self._begun, self._known = asyncio.Event(), asyncio.Event()

    async def write(self, archive: Archive) -> dict[str, Any]:
        """Write one archive; return `done`, its `digest`, and `fault` where a fault ended it."""
        self._work, self._name = None, archive.name
        self._begun, self._known = asyncio.Event(), asyncio.Event()
        fault = None
        try:
            store = self._store_for(archive)
            archive = await asyncio.to_thread(_identify, archive, store)
            begin = await self._assembled()
            self._work = begin(
                day=self._day,
                store=store,
                claim_wait_s=CLAIM_WAIT_S,
                begun=self._report,
                format=self._form,
            )
            await self._work.write(archive)
        except Exception as error:  # noqa: BLE001  no text of an exception may leave the node
            fault = fault_of(error)
            await self.close()  # the next archive begins with fresh connections
        finally:
            self._begun.set()
        done = self._work.done if self._work else Done()
        return {"done": msgspec.to_builtins(done), "digest": archive.digest, "fault": fault}

    async def _report(self) -> None:
        """Wait until the driver knows where the work begins."""
        self._begun.set()
        await self._known.wait()

    async def state(self, known: str = "") -> dict[str, Any]:
        """Return what it has done of its archive so far, the archive's `name`, and the `node`.

        `known` is the archive whose beginning the driver knows. If it does not know it yet, this
        waits a moment for it. `begun`: whether this answer says it.
        """
        if self._name and known == self._name:
            self._known.set()
        elif self._name:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._begun.wait(), BEGIN_S)
        work = self._work
        done = msgspec.to_builtins(work.done if work else Done())
        read = work.bytes_done if work else 0
        begun = self._begun.is_set()
        return {"name": self._name, "done": done, "bytes": read, "node": _node(), "begun": begun}

    async def close(self) -> None:
        """Close the connections."""
        self._begin = None
        await self._stack.aclose()

    async def _assembled(self) -> Callable[..., Backfill]:
        if self._begin is None:
            settings = load_as(self._config, self._expected)
            log.follow(settings.log)
            self._begin = await self._stack.enter_async_context(assemble_backfill(settings))
        return self._begin

    def _store_for(self, archive: Archive) -> Objects | None:
        if self._store is None and archive.name.startswith("s3://"):
            self._store = ObjectStore()
        return self._store


def _identify(archive: Archive, store: Objects | None) -> Archive:
    try:
        return archive_reader.identify(archive, store)
    except SettingsError as error:
        raise SettingsError(
            f"{error.what}, on node {_node()}",
            code="node_path",
            hint="put archives where every node reads them at one path (shared storage), or in S3",
        ) from None


def _node() -> str:
    return str(library().util.get_node_ip_address())


class ArchiveTask(msgspec.Struct, eq=False):
    """One archive until it is written, over as many workers as it takes."""

    archive: Archive
    known: Done = msgspec.field(default_factory=Done)
    """What lost workers reported about it."""
    losses: int = 0
    refused: bool = False
    """Whether another run had it at the last try."""

    def with_known(self, done: Done) -> Done:
        """Return what a worker did, added to what was known of the file before."""
        known = self.known
        if not known.files:
            return msgspec.structs.replace(done)
        lines = known.lines + done.lines
        if done.files:  # the lost worker had gone on after its last report
            lines = done.resumed + done.lines - known.resumed
        return Done(
            files=1,
            lines=lines,
            written=known.written + done.written,
            duplicate=known.duplicate + done.duplicate,
            quarantined=known.quarantined + done.quarantined,
            left=done.left if done.files else known.left,
            resumed=known.resumed,
            **{name: getattr(known, name) + getattr(done, name) for name in ROWS},
        )


class _PlacedWorker(msgspec.Struct, eq=False):
    """One worker, from its placement to its end."""

    actor: Any
    node: str = ""
    """Empty while it waits for a place."""
    asked: asyncio.Future[Any] | None = None
    asked_at: float = 0.0
    task: ArchiveTask | None = None
    ending: asyncio.Future[Any] | None = None
    """What becomes of the task."""
    done: Done = msgspec.field(default_factory=Done)
    bytes_done: int = 0
    known: str = ""
    """The archive for which it has reported where the work begins."""


class BackfillDriver:
    """The driver: as many workers as the cluster has room for, until every archive is written."""

    def __init__(
        self,
        settings: Settings,
        config: Path | None,
        *,
        day: date | None = None,
        store: Objects | None = None,
        format: ArchiveFormat | None = None,  # noqa: A002  as the option is called
    ) -> None:
        self._settings = settings
        self._store = store
        self._ray = library()
        actor = self._ray.remote(
            num_cpus=settings.ray.cpus, max_restarts=0, scheduling_strategy="SPREAD"
        )(BackfillWorker)
        self._actor_class: Any = actor
        self._arguments = (
            str(config.resolve()) if config else None,
            fingerprint(settings),
            day,
            format,
        )
        self._waiting: deque[ArchiveTask] = deque()
        self._workers: list[_PlacedWorker] = []
        self._finished = Done()
        self._starts_failed = 0
        self._bytes_before = 0
        self.bytes_total = 0
        """Stored bytes of the archives that are not done yet, or were done by this run."""

    @property
    def bytes_done(self) -> int:
        """Stored bytes of the archives that have been read, as far as workers have reported."""
        return self._bytes_before + sum(
            worker.bytes_done for worker in self._workers if worker.task
        )

    @property
    def done(self) -> Done:
        """What all workers did, as far as they have reported; lines."""
        parts = [self._finished, *(task.with_known(Done()) for task in self._waiting)]
        parts += [worker.task.with_known(worker.done) for worker in self._workers if worker.task]
        return Done.sum(parts)

    @property
    def nodes(self) -> set[str]:
        """Addresses of the nodes that workers work on."""
        return {worker.node for worker in self._workers if worker.node and worker.task}

    @property
    def at_work(self) -> int:
        """How many workers have an archive."""
        return sum(1 for worker in self._workers if worker.task)

    async def run(self, paths: Sequence[str]) -> Done:
        """Write the lines of every archive under `paths` that no run has finished.

        The counts of a worker that died are those it last reported. Raises the fault that ended a
        worker, as `Backfill.run`; SettingsError `node_path` where a node cannot read a path. May be
        repeated, and goes on where it ended.
        """
        found = await asyncio.to_thread(archive_reader.find_all, _absolute(paths), self._store)
        self.bytes_total = sum(one.size for one in found)
        self._waiting.extend(ArchiveTask(one) for one in found)
        try:
            while self._waiting or any(worker.task for worker in self._workers):
                self._place()
                self._assign()
                await self._listen()
        finally:
            await self._end_workers()
        return self.done

    def _place(self) -> None:
        """Place a worker for every archive, as far as the cluster and PostgreSQL have room."""
        if any(not worker.node for worker in self._workers):
            return  # one waits for a place; another would wait, too
        ours = self._settings.ray
        cpus = self._ray.cluster_resources().get("CPU", 0.0)
        room = max(1, min(ours.consumers_max, int(cpus / ours.cpus)))
        wanted = min(room, len(self._waiting) + self.at_work)
        for _ in range(wanted - len(self._workers)):
            self._workers.append(_PlacedWorker(self._actor_class.remote(*self._arguments)))

    def _assign(self) -> None:
        for worker in self._workers:
            if worker.node and worker.task is None and self._waiting:
                worker.task, worker.done, worker.bytes_done = self._waiting.popleft(), Done(), 0
                worker.known, worker.asked_at = "", 0.0  # it waits for our question
                given = worker.actor.write.remote(worker.task.archive)
                worker.ending = asyncio.ensure_future(answer_of(given))

    async def _listen(self) -> None:
        """Wait for the next answer of any worker, and take it in."""
        every_s, now = self._settings.ray.every_s, time.monotonic()
        for worker in self._workers:
            if worker.asked is None and (not worker.node or now - worker.asked_at >= every_s):
                worker.asked = asyncio.ensure_future(
                    answer_of(worker.actor.state.remote(worker.known))
                )
                worker.asked_at = now
        answers = [one for worker in self._workers for one in (worker.asked, worker.ending) if one]
        await asyncio.wait(answers, timeout=every_s, return_when=asyncio.FIRST_COMPLETED)
        for worker in list(self._workers):
            if worker.asked is not None and worker.asked.done():
                state, worker.asked = worker.asked.result(), None
                self._note(worker, state)
            if worker.ending is not None and worker.ending.done():
                ended, worker.ending = worker.ending.result(), None
                self._end(worker, ended)

    def _note(self, worker: _PlacedWorker, state: dict[str, Any] | None) -> None:
        if state is not None:
            worker.node, self._starts_failed = state["node"], 0
            if worker.task and worker.task.archive.name == state["name"]:  # not of the one before
                worker.done, worker.bytes_done = Done(**state["done"]), state["bytes"]
                if state["begun"] and not worker.known:
                    worker.known, worker.asked_at = state["name"], 0.0  # it waits for our word
        elif worker.task is None:
            # With an archive, `ending` says the same.
            self._starts_failed += 0 if worker.node else 1
            self._lose(worker)
            if self._starts_failed >= STARTS_MAX:
                raise FatalFault(
                    "no node of the cluster starts a consumer",
                    code="node_starts",
                    hint="install the same sqs2pg[ray] on every node; its log says more",
                )

    def _end(self, worker: _PlacedWorker, ended: dict[str, Any] | None) -> None:
        assert worker.task is not None
        task = worker.task
        if ended is None:
            task.known, task.losses = task.with_known(worker.done), task.losses + 1
            self._lose(worker)
            self._waiting.appendleft(task)
            if task.losses >= LOSSES_MAX:
                raise FatalFault(
                    f"{task.losses} nodes or processes ended while writing {task.archive.name}",
                    code="node_losses",
                    hint="look for what ended them (memory?), or backfill it without --ray",
                )
            return
        worker.task = None
        task.archive = task.archive._replace(digest=ended["digest"])
        if ended["fault"] is None:
            self._finish(task, Done(**ended["done"]))
        elif ended["fault"]["code"] == "backfill_twice" and self._others_first(worker):
            task.refused = True
            self._waiting.append(task)
        else:
            raise as_fault(ended["fault"])

    def _others_first(self, worker: _PlacedWorker) -> bool:
        """Whether to do other work first: after it, another run may have freed the archive."""
        at_work = any(one.task for one in self._workers if one is not worker)
        return at_work or any(not task.refused for task in self._waiting)

    def _finish(self, task: ArchiveTask, done: Done) -> None:
        if done.skipped:
            self.bytes_total -= task.archive.size
        else:
            self._bytes_before += task.archive.size
        self._finished = Done.sum([self._finished, task.with_known(done)])
        for other in self._waiting:
            other.refused = False  # it may have the same content

    def _lose(self, worker: _PlacedWorker) -> None:
        self._workers.remove(worker)
        if worker.asked is not None:
            worker.asked.cancel()
        self._ray.kill(worker.actor)
        left = len(self._waiting)
        logger.warning(
            "a worker is gone; another goes on where it ended", where=worker.node, left=left
        )

    async def _end_workers(self) -> None:
        """End the workers; those without an archive close their connections first."""
        closing = [
            asyncio.ensure_future(answer_of(worker.actor.close.remote()))
            for worker in self._workers
            if worker.node and worker.task is None
        ]
        if closing:
            await asyncio.wait(closing, timeout=CLOSE_S)
        for worker in self._workers:
            for one in (worker.asked, worker.ending):
                if one is not None:
                    one.cancel()
            self._ray.kill(worker.actor)


def _absolute(paths: Sequence[str]) -> list[str]:
    """Return the paths as every node reads them: a node has another current folder."""
    return [one if one.startswith("s3://") else str(Path(one).resolve()) for one in paths]
