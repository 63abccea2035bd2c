"""Key rotation: another key version becomes active while the pipeline runs.

`keys rotate` makes a version active in the database, and every batch's transaction reads which one
is. A batch that was masked under another version is not written: the keys are read again, and its
messages are masked and written under the active one. So nothing is lost, two versions are never
mixed, and nothing needs a restart. The process stops only if it cannot get the new version.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import msgspec
import structlog

from sqs2pg.errors import KeyFault
from sqs2pg.keys.keyring import Keyring
from sqs2pg.pipeline.plan import Plan
from sqs2pg.postgres.batch_transaction import SinkPlan

if TYPE_CHECKING:
    from sqs2pg.vault.seal import ValueSealer

ROTATIONS_MAX = 3
"""Rotations that one batch follows: another may come while it does."""

_Done = TypeVar("_Done")

log = structlog.get_logger(__name__)


class Compiled(msgspec.Struct, frozen=True):
    """Everything that depends on which keys are active."""

    keyring: Keyring
    plan: Plan
    sink_plan: SinkPlan
    vault: ValueSealer | None


class KeyRotation:
    """The keys and plan that all processors of one pipeline use now."""

    def __init__(self, first: Compiled, compile_again: Callable[[], Awaitable[Compiled]]) -> None:
        self.current = first
        self._compile_again = compile_again
        self._lock = asyncio.Lock()

    async def follow(self, plan: Plan) -> tuple[Plan, SinkPlan, ValueSealer | None]:
        """Return the present plans and vault, after a batch under `plan` was refused.

        The first processor that asks reads the keys again; the others get the same result. Raises
        KeyFault if the active version is not available, TransientFault if the database is away.
        """
        async with self._lock:
            if self.current.plan is plan:
                self.current = await self._compile_again()
                log.info("another key version is active; its keys were read", code="key_version")
            now = self.current
            return now.plan, now.sink_plan, now.vault

    @property
    def key_version(self) -> int:
        """The version of the pseudonym root that rows are masked under now."""
        return self.current.sink_plan.key_version


async def under_active_keys(
    write: Callable[[], Awaitable[_Done]], use_active: Callable[[KeyFault], Awaitable[None]]
) -> _Done:
    """Return what `write` does; do it again after `use_active` where another version is active.

    Raises what both raise; the KeyFault of `write` after `ROTATIONS_MAX` rotations.
    """
    for _ in range(ROTATIONS_MAX):
        try:
            return await write()
        except KeyFault as fault:
            if fault.code != "key_version":
                raise
            refused = fault
        await use_active(refused)
    return await write()
