"""One of the pipelines of a process: started, watched, and started again after a fault.

    starting ─▶ running ─▶ ended
        └───────▶ failed ─▶ (wait, longer each time) ─▶ starting

A pipeline alone has no such second chance: its fault is the process's, whose supervisor restarts
it. Among others one that fails stops alone, and the others go on.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import msgspec
import structlog

from sqs2pg.errors import FatalFault, Sqs2pgError, unforeseen
from sqs2pg.pipeline.totals import Totals
from sqs2pg.runners.assembly import about_of
from sqs2pg.runners.pipeline import Pipeline
from sqs2pg.runners.reload import ReloadingPipeline
from sqs2pg.runners.shared import Shared
from sqs2pg.settings import Settings
from sqs2pg.status.probes import ProbeResults
from sqs2pg.status.snapshot import Restart, Snapshot, take_snapshot
from sqs2pg.telemetry.liveness import Liveness, ReadinessCheck
from sqs2pg.telemetry.metrics import Metrics

WAIT_MIN_S = 1.0
WAIT_MAX_S = 300.0
"""Between two starts, seconds: twice as long each time."""
STEADY_S = 600.0
"""One that ran for so long before its fault begins with the shortest wait again."""
WATCH_S = 10.0
"""Between two looks at whether a pipeline makes progress, seconds."""

Refused = Callable[[str, str, str], None]
"""Gets what is wrong with new settings, a hint and the fault code."""

log = structlog.get_logger(__name__)


class Supervised:
    """A pipeline under supervision; see the module. `run` it once."""

    def __init__(
        self,
        settings: Settings,
        shared: Shared,
        *,
        alone: bool,
        refused: Refused,
        opened: Callable[[Pipeline], None],
        read: Callable[[], Settings] | None = None,
    ) -> None:
        """`alone`: its faults are raised. `read` returns its settings anew; without it `follow`
        gives them. `refused` and `opened` are those of `ReloadingPipeline`; `refused` gets faults,
        too.
        """
        self.settings = settings
        self.name = settings.pipeline_name
        self.metrics = Metrics()
        self.metrics.pipeline_up.set(0)
        self.state = "starting"
        """As in the module; and `stopping`."""
        self.fault: Sqs2pgError | None = None
        """Why it failed last; None once it runs."""
        self._shared = shared
        self._alone = alone
        self._read = read or (lambda: self.settings)
        self._tell = refused
        self._opened = opened
        self._attempt = 0
        self._again_at = 0.0
        self._before = Totals()
        self._current: ReloadingPipeline | None = None  # while it is open
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()

    @property
    def totals(self) -> Totals:
        """What all its runs have done so far."""
        return self._before.plus(self._current.totals) if self._current else self._before

    def request_stop(self) -> None:
        """End it in good order; `run` returns when the messages held are settled or released."""
        if self.state != "ended":
            self.state = "stopping"
        self._stopping.set()
        if self._current:
            self._current.request_stop()

    def follow(self, settings: Settings | None = None) -> None:
        """Take new settings, or read them again; one that has failed is tried at once."""
        if settings is not None:
            self.settings = settings
        if self._current:
            self._current.request_reload()
        self._hurry.set()

    async def open(self) -> None:
        """Open it before `run`. Raises as `ReloadingPipeline`."""
        settings = self.settings
        fresh = ReloadingPipeline(
            settings,
            self._read,
            refused=self._tell,
            opened=self._opened,
            metrics=self.metrics,
            shared=self._shared,
        )
        try:
            await fresh.__aenter__()
        except BaseException:
            await fresh.__aexit__()
            raise
        self._current = fresh
        if self.settings is not settings:  # they came while it was opened
            fresh.request_reload()

    async def close(self) -> None:
        """Close what is open. May be repeated."""
        if self._current:
            self._before, current, self._current = self.totals, self._current, None
            await current.__aexit__()

    async def run(self, *, drain_settle_s: float | None = None) -> Totals:
        """Run until a stop is requested, or until the queue was empty for `drain_settle_s`.

        Alone it raises what `ReloadingPipeline` does. Else that is kept in `fault`, and it starts
        again: but not at a stop, nor where its queue is to be drained, which would never end.
        """
        if not self._alone:
            structlog.contextvars.bind_contextvars(pipeline=self.name)
        while True:
            began = time.monotonic()
            try:
                await self._run_once(drain_settle_s)
            except Sqs2pgError as fault:
                if self._alone:
                    raise
                self.fault = fault
            except Exception as error:
                if self._alone:
                    raise
                what, hint = unforeseen(error)
                self.fault = FatalFault(what, code="unexpected", hint=hint)
            else:
                self.state = "ended"
                return self.totals
            self.state = "failed"
            self._attempt = 1 if time.monotonic() - began > STEADY_S else self._attempt + 1
            if self._stopping.is_set() or drain_settle_s is not None:
                self._report(self.fault, "failed")
                return self.totals
            if not await self._wait_again(self.fault):
                return self.totals

    async def _run_once(self, drain_settle_s: float | None) -> None:
        try:
            if not self._current and not await self._unless_stopped(self.open()):
                return
            assert self._current is not None
            about = about_of(self._current.current.settings)
            log.info("consuming", queue=about.queue, table=about.table)
            self.state, self.fault = "running", None
            self.metrics.pipeline_up.set(1)
            if self._stopping.is_set():
                self.request_stop()
            settle_s = self.settings.source.drain_settle_s
            if drain_settle_s is not None and settle_s is not None:
                drain_settle_s = settle_s
            run = asyncio.create_task(self._current.run(drain_settle_s=drain_settle_s))
            try:
                await self._watched(run)
            finally:
                run.cancel()
                await asyncio.wait([run])
        finally:
            self.metrics.pipeline_up.set(0)
            await self.close()

    async def _unless_stopped(self, opening: Coroutine[Any, Any, None]) -> bool:
        """Wait for the start; return False where a stop came first."""
        task = asyncio.create_task(opening)
        stop = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([task, stop], return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                return False
            await task
            return True
        finally:
            stop.cancel()
            task.cancel()
            with suppress(BaseException):
                await task

    async def _watched(self, run: asyncio.Task[Totals]) -> None:
        """Wait for a run; end it where it makes no progress, unless the process is its alone."""
        while True:
            done, _ = await asyncio.wait([run], timeout=None if self._alone else WATCH_S)
            if done:
                run.result()
                return
            assert self._current is not None
            if not self._current.health()[0] and not self._stopping.is_set():
                raise FatalFault(
                    f"pipeline {self.name} makes no progress",
                    code="no_progress",
                    hint="look at what its last lines in the log say of queue and database",
                )

    def _report(self, fault: Sqs2pgError, how: str) -> None:
        self._tell(f"pipeline {self.name} {how}: {fault.what}", fault.hint, fault.code)

    async def _wait_again(self, fault: Sqs2pgError) -> bool:
        """Report a fault, and wait for the next start; return False where a stop came first."""
        most_s = min(WAIT_MAX_S, WAIT_MIN_S * 2.0 ** min(self._attempt - 1, 20))
        wait_s = random.uniform(0.5, 1.0) * most_s  # noqa: S311  not a secret
        self._report(fault, f"failed and starts again in {wait_s:.1f} s")
        self.metrics.pipeline_restarts.inc()
        self._again_at = time.monotonic() + wait_s
        self._hurry.clear()
        waits = [asyncio.create_task(e.wait()) for e in (self._hurry, self._stopping)]
        await asyncio.wait(waits, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        if self._stopping.is_set():
            return False
        self.state = "starting"
        return True

    # -- its state, for the status thread --------------------------------------------------

    def health(self) -> tuple[bool, bytes]:
        """Return whether it makes progress, and the report as JSON (/livez)."""
        current = self._current
        return current.health() if current else (True, msgspec.json.encode({"ok": True}))

    def ready(self) -> tuple[bool, bytes]:
        """Return whether messages can be written now, and the report as JSON (/readyz)."""
        if (current := self._current) and self.state != "failed":
            return current.ready()
        code = self.fault.code if self.fault else ""
        check = ReadinessCheck(ok=False, detail=code or self.state)
        return False, msgspec.json.encode({"ok": False, "pipeline": check})

    def snapshot(self) -> Snapshot:
        """Return the present moment for the status page."""
        if current := self._current:
            snapshot = current.snapshot()
        else:
            metrics, about = self.metrics, about_of(self.settings)
            results, liveness = ProbeResults(), Liveness(self.settings)
            snapshot = take_snapshot(metrics.registry, metrics.started_at, about, liveness, results)
            detail = self.fault.code if self.fault else self.state
            snapshot.ready = {"pipeline": ReadinessCheck(ok=False, detail=detail)}
        fault = self.fault.code if self.fault else ""
        wait_s = max(0.0, self._again_at - time.monotonic()) if self.state == "failed" else 0.0
        snapshot.state = self.state
        snapshot.restart = Restart(fault, self._attempt, round(wait_s, 1)) if fault else None
        return snapshot
