"""`demo --chaos`: a consumer is killed midway with SIGKILL, as a crash or an OOM killer would."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping

from sqs2pg.errors import FatalFault
from sqs2pg.runners.connect import connect
from sqs2pg.settings import Settings

# A short timeout, so that the messages of the killed consumer come back while you watch; small
# batches, so that it can be killed between two of them.
OVERRIDES = {
    "SQS2PG_SOURCE__VISIBILITY_TIMEOUT_S": "5",
    "SQS2PG_SINK__BATCH_ROWS_MAX": "100",
    "SQS2PG_KEYS__PROVIDER": "development",
    "SQS2PG_STATUS__BIND": "",
}
_MIDWAY = 0.3  # share of the messages in the ledger at which it is killed
_PATIENCE_S = 60.0


async def kill_midway(settings: Settings, sent: int, variables: Mapping[str, str]) -> int:
    """Start a consumer, kill it -9 when a third is written; return how many were by then.

    `variables` are the settings that differ from the built-in ones, as environment variables.
    Raises FatalFault if it ends by itself, or does not get that far.
    """
    command = [sys.executable, "-m", "sqs2pg", "run", "-c", os.devnull]
    environment = {**os.environ, **variables, **OVERRIDES}
    # In a session of its own: Ctrl-C is for us, who kill it, and it must not end by itself.
    consumer = subprocess.Popen(  # noqa: ASYNC220, S603  our own command; a moment's wait is fine
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    )
    session = await connect(settings)
    try:
        async with asyncio.timeout(_PATIENCE_S):
            written = 0
            while written < sent * _MIDWAY:
                if consumer.poll() is not None:
                    raise FatalFault("the consumer ended before it was killed", code="chaos")
                await asyncio.sleep(0.005)
                [(written,)] = await session.execute("SELECT count(*) FROM sqs2pg.delivery")
    except TimeoutError:
        raise FatalFault("the consumer did not get far enough to be killed", code="chaos") from None
    finally:
        consumer.send_signal(signal.SIGKILL)
        consumer.wait()
        [(written,)] = await session.execute("SELECT count(*) FROM sqs2pg.delivery")
        await session.close()
    return int(written)
