"""Open a pipeline although what it needs is away for a moment.

Place in the flow: before it. A database that restarts, a throttled call or a failed one does not
end the process: its supervisor would start it again, later and later, for something that passes.

Must never do: try again what only people can mend, such as settings, keys and privileges.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from sqs2pg.errors import FatalFault, Sqs2pgError, TransientFault
from sqs2pg.pipeline.backoff import backoff_s
from sqs2pg.runners.pipeline import Pipeline

WAIT_MAX_S = 2.0
"""Between two attempts, seconds."""

log = structlog.get_logger(__name__)


async def open_in_time(make: Callable[[], Pipeline], limit_s: float) -> Pipeline:
    """Return an open pipeline, after as many attempts as fit in `limit_s` seconds; one at least.

    Raises what the last attempt met, and at once what does not pass.
    """
    late, attempt = time.monotonic() + limit_s, 0
    while True:
        attempt += 1
        pipeline = make()
        try:
            await pipeline.open()
        except Sqs2pgError as fault:
            left_s = late - time.monotonic()
            if not _passes(fault) or left_s <= 0:
                raise
            log.warning(
                "the start met a fault that may pass; it is tried again",
                code=fault.code,
                attempt=attempt,
            )
        else:
            return pipeline
        await asyncio.sleep(min(left_s, WAIT_MAX_S, backoff_s(attempt)))


def _passes(fault: Sqs2pgError) -> bool:
    if isinstance(fault, TransientFault):
        return True
    return isinstance(fault, FatalFault) and fault.passes
