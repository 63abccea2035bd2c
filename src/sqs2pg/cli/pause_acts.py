"""Do what `pause` and `resume` have in common: the act on record, and its report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from sqs2pg.cli.options import if_refused, run_async, terminal_text
from sqs2pg.settings import Settings


def record(settings: Settings, act: Literal["pause", "resume"], reason: str) -> dict[str, object]:
    """Pause or resume the settings' pipeline; return the flat object of `--json`.

    Raises as `pauses.pause`; where the database refuses, the hint says whom to ask.
    """
    hint = (
        "run it as the owner of the schema sqs2pg, or have the owner GRANT EXECUTE ON "
        f"FUNCTION sqs2pg.{act}(integer, text) to this login; docs/runbook.md, Paused, "
        "has all that such a login needs"
    )
    with if_refused(hint):
        return run_async(_record(settings, act, reason))


async def _record(
    settings: Settings, act: Literal["pause", "resume"], reason: str
) -> dict[str, object]:
    from sqs2pg.postgres import pauses
    from sqs2pg.runners.connect import database

    do = pauses.pause if act == "pause" else pauses.resume
    async with database(settings) as (session, number):
        changed = await do(session, number, reason)
        pause = await pauses.read(session, number)
    return {
        "pipeline": settings.pipeline_name,
        "paused": pause is not None,
        "changed": changed,
        "code": pause and pause.code,
        "by": pause and pause.by,
        "reason": pause and pause.reason,
        "since": pause and pause.since_text,
    }


def reported(report: Mapping[str, object]) -> str:
    """Return since when, by whom and why it is paused."""
    reason = f": {report['reason']}" if report["reason"] else ""
    return terminal_text(f"since {report['since']} by {report['by']}{reason}")
