"""Pauses on record: stop a pipeline's workers from receiving, and let them go on.

A pause is a row of `sqs2pg.pause` and an act of the audit. Workers read the row every few seconds
(`pipeline/pause_watch.py`); no session has to listen, so it works through PgBouncer. Only the
schema's owner may pause and resume, and whoever the owner grants the two functions to. A pipeline
may pause itself and nothing more.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Self

import msgspec

from sqs2pg.postgres import audit
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.sqlstate import explained
from sqs2pg.telemetry.metrics import PAUSE_CODES

CODES = BY_OPERATOR, QUARANTINE_SHARE = PAUSE_CODES
"""Why a pipeline is paused, as the table has it."""

READ = """SELECT code, paused_by, reason, extract(epoch FROM paused_at)::float8
FROM sqs2pg.pause WHERE pipeline = %s"""
"""The pause of a pipeline, as `Pause.of` takes it; no row where there is none."""
READ_SEVERAL = """SELECT pipeline, code, paused_by, reason, extract(epoch FROM paused_at)::float8
FROM sqs2pg.pause WHERE pipeline = ANY(%s)"""
"""The pauses of several pipelines, as `Pause.of_several` takes them."""
PAUSE_ITSELF = "SELECT changed, sequence, hash FROM sqs2pg.pause_itself(%s)"
_PAUSE = "SELECT changed, sequence, hash FROM sqs2pg.pause(%s, %s)"
_RESUME = "SELECT changed, sequence, hash FROM sqs2pg.resume(%s, %s)"


class Pause(msgspec.Struct, frozen=True):
    """A pause that is in force."""

    code: str
    """One of CODES."""
    by: str
    """The database login that paused it."""
    reason: str
    """In the operator's words; may be empty."""
    since: float
    """Seconds since the epoch."""

    @classmethod
    def of(cls, rows: Sequence[tuple[Any, ...]]) -> Self | None:
        """Return the pause of what READ returned; None where there is none."""
        return cls(*rows[0]) if rows else None

    @classmethod
    def of_several(cls, rows: Sequence[tuple[Any, ...]]) -> dict[int, Self]:
        """Return the pauses of what READ_SEVERAL returned, by pipeline."""
        return {pipeline: cls(*row) for pipeline, *row in rows}

    @property
    def since_text(self) -> str:
        """When it was paused, UTC, to the second."""
        return f"{datetime.fromtimestamp(self.since, UTC):%Y-%m-%dT%H:%M:%SZ}"

    @property
    def cause(self) -> str:
        """Who or what paused it, and why, in words."""
        if self.code == QUARANTINE_SHARE:
            return "by itself: the share of bad messages is above quarantine_share_max"
        return f"by {self.by}" + (f": {self.reason}" if self.reason else "")


async def read(session: Session, pipeline: int) -> Pause | None:
    """Return the pause of a pipeline; None where it is not paused. Raises FatalFault."""
    with explained():
        return Pause.of(await session.execute(READ, [pipeline]))


async def pause(session: Session, pipeline: int, reason: str) -> bool:
    """Pause a pipeline, audited; return whether it was not paused before.

    `reason` is one line of at most 500 characters, or empty. A pause that is in force stays as it
    is. Raises SettingsError for a reason that cannot be recorded, FatalFault where the database
    refuses.
    """
    return await _act(session, "pause", _PAUSE, pipeline, reason)


async def resume(session: Session, pipeline: int, reason: str) -> bool:
    """End the pause of a pipeline, audited; return whether there was one. Raises as `pause`."""
    return await _act(session, "resume", _RESUME, pipeline, reason)


async def _act(session: Session, act: str, statement: str, pipeline: int, reason: str) -> bool:
    reason = audit.operator_text("the reason", reason, audit.REASON_CHARACTERS_MAX)
    with explained():
        [(changed, *head)] = await session.execute(statement, [pipeline, reason])
    if changed:
        audit.announce(act, audit.Anchor(*head))
    return bool(changed)
