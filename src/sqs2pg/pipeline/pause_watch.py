"""Whether the pipeline is paused on record, as this process knows it.

Writers read it over their own sessions, between batches and while they wait for one. So a pause
costs no connection, and needs no session that listens: it works through PgBouncer. One of the
pipelines of a process reads it for all of them that use the same database. The heartbeat reads it
too, for a process whose writers are all in a long batch.

Promise: within REACHES_S of `sqs2pg pause` no new poll is sent, while the database answers.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

import structlog

from sqs2pg.errors import FatalFault, Stage, TransientFault
from sqs2pg.pipeline.quarantine_share import QuarantineShare
from sqs2pg.postgres import audit
from sqs2pg.postgres.pauses import CODES, PAUSE_ITSELF, QUARANTINE_SHARE, READ_SEVERAL, Pause
from sqs2pg.telemetry.liveness import Liveness
from sqs2pg.telemetry.metrics import Metrics

EVERY_S = 2.0
"""Time between two readings, seconds."""
MEANWHILE_S = 0.5
"""For so long the others leave a reading that is under way for them to one pipeline, seconds."""
LATE_S = 3.0
"""A reading that is older is reason for an early heartbeat, which reads it too."""
REACHES_S = 5.0
"""How long it takes at most until every worker has read a change, seconds."""

_Taken = TypeVar("_Taken")

log = structlog.get_logger(__name__)


class Reader(Protocol):
    """A writer's sink, while it has no batch (`postgres/sink.py`)."""

    @property
    def pipeline(self) -> int:
        """The number of the pipeline."""

    async def read(
        self, statement: str, parameters: Sequence[object], limit_s: float
    ) -> list[tuple[Any, ...]]:
        """Run one statement that reads. Raises TransientFault or FatalFault."""

    async def run_alone(
        self, statement: str, parameters: Sequence[object]
    ) -> list[tuple[Any, ...]]:
        """Run one statement as a transaction. Raises TransientFault or FatalFault."""


class PauseWatch:
    """The pause of one pipeline, read again and again. For the tasks of one event loop."""

    def __init__(self, metrics: Metrics, liveness: Liveness, share: QuarantineShare) -> None:
        self._beside: dict[int, PauseWatch] = {}
        self._context = contextvars.copy_context()  # so that the log names its own pipeline
        self._metrics = metrics
        self.liveness = liveness
        """Of the pipeline, through its pauses."""
        self._share = share
        self._due = 0.0  # time.monotonic() of the next reading
        self.read_at = time.monotonic()
        """time.monotonic() of the last reading that worked."""
        self.pause: Pause | None = None
        """The pause in force, None where there is none. Read only."""
        self.changed = asyncio.Event()
        """Set when a pause begins or ends; whoever waits for it clears it."""
        self._noted = self._news = False

    def join(self, beside: dict[int, PauseWatch], pipeline: int) -> None:
        """Read together with those beside it: the pipelines of one process and database."""
        self._beside = beside
        beside[pipeline] = self

    def leave(self) -> None:
        """Be read by no other one any more."""
        for number in [number for number, watch in self._beside.items() if watch is self]:
            del self._beside[number]

    def is_due(self) -> bool:
        """Whether it is time to read it."""
        return time.monotonic() >= self._due

    def is_late(self) -> bool:
        """Whether no writer had the time to read it."""
        return time.monotonic() - self.read_at > LATE_S

    def is_news(self) -> bool:
        """Whether a pause has begun or ended since this was last asked."""
        news, self._news = self._news, False
        return news

    def wait_s(self) -> float:
        """Return how long it is until the next reading is due, in seconds; more than 0."""
        return max(0.01, self._due - time.monotonic())

    def wait_until(self, due: float) -> None:
        """Have the next reading no sooner than at `due`, time.monotonic()."""
        self._due = max(self._due, due)

    async def look(self, reader: Reader) -> bool:
        """Read it, and those beside it; return whether the database answered. A fault is counted,
        not raised: a batch will meet it, too.
        """
        began = time.monotonic()
        several = {**self._beside, reader.pipeline: self}
        for watch in self._beside.values():
            watch.wait_until(began + MEANWHILE_S)
        self._due = began + EVERY_S
        try:
            found = await reader.read(READ_SEVERAL, [list(several)], EVERY_S)
        except (TransientFault, FatalFault) as fault:
            self._metrics.count_fault(Stage.STATUS, fault.code)
            return False
        pauses = Pause.of_several(found)
        for number, watch in several.items():
            watch.wait_until(began + EVERY_S)
            watch.note(pauses.get(number))
        return True

    async def look_first(self, reader: Reader) -> bool:
        """As `look`, unless one beside it has just read it for this one, too."""
        return (self._noted and not self.is_due()) or await self.look(reader)

    async def during(self, reader: Reader, take: Callable[[], Awaitable[_Taken]]) -> _Taken:
        """Return what `take` returns; read the pause before, and again and again meanwhile.

        `take` goes on during a reading, so that a long wait for a full batch ends. What it returns
        waits for the end of the reading: the reader does one thing at a time.
        """
        if self.is_due():
            await self.look(reader)
        taking = asyncio.ensure_future(take())
        try:
            while not taking.done():
                await asyncio.wait([taking], timeout=self.wait_s())
                if self.is_due() and not taking.done():
                    await self.look(reader)
            return taking.result()
        finally:
            if not taking.done():
                taking.cancel()
                await asyncio.wait([taking])

    def note(self, found: Pause | None) -> None:
        """Take what was read, by whomever."""
        self._context.run(self._note, found)

    def _note(self, found: Pause | None) -> None:
        self.read_at = time.monotonic()
        before, self.pause = self.pause, found
        if before == found and self._noted:
            return
        self._noted = True
        for code in CODES:
            self._metrics.paused.labels(code).set(float(found is not None and found.code == code))
        if found is not None and before is None:
            self.liveness.pipeline_paused = True
            log.warning(
                "the pipeline is paused: nothing is received; what is held is finished",
                code=found.code,
                since=found.since_text,
            )
        elif found is None and before is not None:
            self.liveness.pipeline_resumed()
            self._share.begin()
            log.info("the pipeline is resumed")
        if (found is None) is not (before is None):
            self.changed.set()
            self._news = True

    async def pause_if_bad(self, reader: Reader) -> None:
        """Pause the pipeline if most of what came lately was quarantined, as the settings say."""
        if self.pause is not None or not (share := self._share.above()):
            return
        try:
            [(changed, *head)] = await reader.run_alone(PAUSE_ITSELF, [reader.pipeline])
        except (TransientFault, FatalFault) as fault:
            self._metrics.count_fault(Stage.STATUS, fault.code)
            log.warning("the pipeline could not pause itself; it tries again", code=fault.code)
            return
        if changed:
            audit.announce("pause", audit.Anchor(*head))
            log.error(
                "most of what comes is bad: the pipeline pauses itself",
                code=QUARANTINE_SHARE,
                count=share.messages,
                quarantined=share.quarantined,
            )
        await self.look(reader)
