"""Check whether the pipeline is paused, and until when its messages wait."""

from __future__ import annotations

import time

from sqs2pg.cli.doctor.context import Context, NotChecked
from sqs2pg.cli.doctor.finding import Finding, ok
from sqs2pg.errors import Sqs2pgError
from sqs2pg.mask.brute_force import duration
from sqs2pg.postgres import pauses
from sqs2pg.postgres.migrate import pipeline_id

_KEPT = "MessageRetentionPeriod"
_DAY_S = 86_400


async def check_pause(context: Context) -> Finding:
    """Whether the pipeline is paused on record, and for how long the queue keeps what comes."""
    session = await context.session()
    pause = await pauses.read(session, await pipeline_id(session, context.settings))
    if pause is None:
        return ok("pause", "not paused")
    kept = await _kept_days(context)
    since = duration(max(1.0, time.time() - pause.since))
    public = f"paused for {since}, since {pause.since_text}"
    return Finding(
        "pause",
        "warn",
        f"{public}, {pause.cause}; nothing is received{kept}",
        "`sqs2pg resume` ends the pause; docs/runbook.md, Paused, says what to look at first",
        f"{public} ({pause.code})",
    )


async def _kept_days(context: Context) -> str:
    """Return for how long the queue keeps a message; nothing where that cannot be read."""
    try:
        client, url = await context.queue()
        kept_s = int((await client.attributes(url, [_KEPT]))[_KEPT])
    except (NotChecked, Sqs2pgError, KeyError, ValueError):
        return ""
    return f", and the queue keeps a message for {kept_s / _DAY_S:g} days"
