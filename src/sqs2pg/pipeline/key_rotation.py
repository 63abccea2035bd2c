"""Rollover: another key version becomes active while the pipeline runs.

`keys rotate` makes a version active in the database, which every batch asks. A batch that was
masked under another one is not written: its keys are read again, its messages masked again, and it
goes on. So nothing is lost, no two versions are mixed unseen, and nobody restarts anything. Only
where the new version is not to be had does the process stop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import structlog

from sqs2pg.keys.keyring import Keyring
from sqs2pg.pipeline.processor import Plan
from sqs2pg.postgres.sink import SinkPlan
from sqs2pg.vault.seal import ValueSealer

log = structlog.get_logger(__name__)


class Compiled(msgspec.Struct, frozen=True):
    """Everything that depends on which keys are active."""

    keyring: Keyring
    plan: Plan
    sink_plan: SinkPlan
    vault: ValueSealer | None


class Rollover:
    """What all processors of one process mask and seal with now."""

    def __init__(self, first: Compiled, read_again: Callable[[], Awaitable[Compiled]]) -> None:
        self.current = first
        self._read_again = read_again
        self._lock = asyncio.Lock()

    async def follow(self, plan: Plan) -> tuple[Plan, SinkPlan, ValueSealer | None]:
        """Return what to go on with, for one that masked with `plan` and was refused.

        The first that asks reads the keys again, the others get what it found. Raises KeyFault
        where the active version cannot be had, TransientFault where the database is away.
        """
        async with self._lock:
            if self.current.plan is plan:
                self.current = await self._read_again()
                log.info("another key version is active; its keys were read", code="key_version")
            now = self.current
            return now.plan, now.sink_plan, now.vault

    @property
    def key_version(self) -> int:
        """The version of the pseudonym root that rows are masked under now."""
        return self.current.sink_plan.key_version
