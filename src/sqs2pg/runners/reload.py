"""A pipeline that takes new settings while it runs: build the new one, drain the old one, swap.

    SIGHUP ─▶ read ─▶ open the new one ─▶ stop the old one ─▶ run the new one
                 └ refused: log it; the old one was never touched

Promises: settings that cannot be read, or whose keys, tables or queue are refused, change nothing.
No message is given up: the old pipeline settles or releases what it holds, as at any end. Counts
and metrics go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self

import structlog

from sqs2pg.errors import Sqs2pgError, unforeseen
from sqs2pg.pipeline.totals import Totals
from sqs2pg.runners.patient_start import open_in_time
from sqs2pg.runners.pipeline import Pipeline
from sqs2pg.runners.shared import Shared
from sqs2pg.settings import Settings
from sqs2pg.status.snapshot import Snapshot
from sqs2pg.telemetry.lean_prometheus import CollectorRegistry
from sqs2pg.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)


class ReloadingPipeline:
    """A pipeline, and its successors. `async with` opens the first one and closes the last.

    The first one has `start_timeout_s` to start. A successor does not wait: the old one works.
    """

    def __init__(
        self,
        settings: Settings,
        read: Callable[[], Settings],
        *,
        refused: Callable[[str, str, str], None],
        opened: Callable[[Pipeline], None] = lambda _: None,
        metrics: Metrics | None = None,
        shared: Shared | None = None,
    ) -> None:
        """`read` returns the settings anew. `metrics` and `shared` are those of `Pipeline`.

        `refused` gets what is wrong with them, a hint and the fault code. Each pipeline is given to
        `opened` before it runs.
        """
        self._read = read
        self._tell = refused
        self._opened = opened
        self._settings = settings
        self._shared = shared
        self.current = Pipeline(settings, metrics, shared)
        self._before = Totals()
        self._wanted = asyncio.Event()
        self._stopping = False

    async def __aenter__(self) -> Self:
        metrics, limit_s = self.current.metrics, self._settings.start_timeout_s
        self.current = await open_in_time(
            lambda: Pipeline(self._settings, metrics, self._shared), limit_s
        )
        self._opened(self.current)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.current.close()

    def request_reload(self) -> None:
        """Have the settings read again. Several requests while one is under way are one."""
        self._wanted.set()

    def request_stop(self) -> None:
        """End receiving. `run` returns when the messages held are settled or released."""
        self._stopping = True
        self.current.request_stop()

    async def run(self, *, drain_settle_s: float | None = None) -> Totals:
        """Consume as `Pipeline.run` does, with the settings read last. Raises as it does."""
        run = asyncio.create_task(self.current.run(drain_settle_s=drain_settle_s))
        try:
            while fresh := await self._successor(run):
                self.current.request_stop()
                try:
                    self._before = self._before.plus(await run)
                except BaseException:
                    await fresh.close()
                    raise
                await self.current.close()
                self.current = fresh
                self._opened(fresh)
                if self._stopping:
                    fresh.request_stop()
                log.info("settings are in force", queue=fresh.about.queue, table=fresh.about.table)
                run = asyncio.create_task(fresh.run(drain_settle_s=drain_settle_s))
            return self._before.plus(await run)
        finally:
            run.cancel()
            await asyncio.wait([run])

    async def _successor(self, run: asyncio.Task[Totals]) -> Pipeline | None:
        """Return an open pipeline with new settings once they are wanted; None if `run` ends."""
        while True:
            wanted = asyncio.create_task(self._wanted.wait())
            await asyncio.wait([run, wanted], return_when=asyncio.FIRST_COMPLETED)
            wanted.cancel()
            if run.done() or self._stopping:
                return None
            self._wanted.clear()
            building = asyncio.create_task(self._build())
            await asyncio.wait([run, building], return_when=asyncio.FIRST_COMPLETED)
            if not building.done():
                building.cancel()
                await asyncio.wait([building])
                return None
            if fresh := building.result():
                return fresh

    async def _build(self) -> Pipeline | None:
        """Return an open pipeline with the settings as they are now; None if they are refused."""
        try:
            fresh = Pipeline(self._read(), self.current.metrics, self._shared)
            await fresh.open()
        except Sqs2pgError as fault:
            what, hint, code = fault.what, fault.hint, fault.code
        except Exception as error:  # noqa: BLE001  nothing in new settings may end the old pipeline
            what, hint = unforeseen(error)
            code = "unexpected"
        else:
            return fresh
        self._tell(f"new settings are refused; the old ones stay: {what}", hint, code)
        return None

    # -- its state, as a `Pipeline`'s ------------------------------------------------------

    @property
    def totals(self) -> Totals:
        """What all of them have done so far."""
        return self._before.plus(self.current.totals)

    @property
    def registry(self) -> CollectorRegistry:
        """The metrics of all."""
        return self.current.registry

    def health(self) -> tuple[bool, bytes]:
        """Return whether it makes progress, and the report as JSON (/livez)."""
        return self.current.health()

    def ready(self) -> tuple[bool, bytes]:
        """Return whether messages can be written now, and the report as JSON (/readyz)."""
        return self.current.ready()

    def snapshot(self) -> Snapshot:
        """Return the present moment for the status page, which calls it from its own thread."""
        return self.current.snapshot()
