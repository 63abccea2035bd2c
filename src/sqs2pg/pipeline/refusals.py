"""Whose fault it is when PostgreSQL refuses a batch: a message's, a line's, or the world's.

An SQLSTATE that is not about a row does not say. So the statements of the batch are rehearsed
without rows (`postgres/rehearsal.py`): if PostgreSQL takes them, some row may be at fault. What
then searches for it is `isolation.py` for messages, `refused_lines.py` for lines, and a Lambda's
halving. All of them ask here.
"""

from __future__ import annotations

import asyncio

import structlog

from sqs2pg.errors import TransientFault
from sqs2pg.postgres.sink import Sink
from sqs2pg.vault.crypto import OF_A_PERSON

ATTEMPTS = 2
"""Failures in a row with one code before a search. The first one may pass by itself: somebody was
altering the table, or a deadlock was resolved."""
TIMEOUT_ATTEMPTS = 1
"""The same for a statement or a lock that ran out of time: another attempt would hold all messages
of the batch for the whole `sink.statement_timeout_s` again. And for a person's key, which does not
mend by itself."""
WORLD_ATTEMPTS = 5
"""The same for codes that most often are about the server or the network, as `_OF_THE_WORLD`."""
PROBE_TIMEOUT_S = 2
"""Limit of each statement while parts of a batch are tried, seconds. `sink.statement_timeout_s`
where that is less. A part that needs longer is halved."""
ALIKE_MIN = 10
"""So many messages refused alone with one code, while nothing is written, may be the world's fault:
a trigger that fails for every row, say. They are held, and mixed with those that come next. If one
of these is written, they are isolated after all."""

_TIMED_OUT = ("postgres_57014", "postgres_55P03")
# Connection, resources, shutdown, I/O. An empty COPY may pass where a disk is full, so a rehearsal
# alone proves nothing here: another message must have been written. So it is where S3 refuses: the
# role may lack a grant.
_AWAY = ("postgres_08", "postgres_53", "postgres_57P", "postgres_58", "postgres_no_answer")
_READ_ONLY = "postgres_25006"
_OF_AN_OBJECT = ("s3_denied", "s3_refused")
_OF_THE_WORLD = _AWAY + _OF_AN_OBJECT
# Deadlocks, and serialization failures.
_WITH_OTHERS = ("postgres_40",)
# No connection came about: for such a code no message can be at fault, if no table was written.
# With one it is a trigger's, which may connect to another server.
_CONNECTING = ("postgres_08001", "postgres_08004", "postgres_53300", "postgres_57P03")

log = structlog.get_logger(__name__)


async def is_refused(sink: Sink, event: str, limit_s: float | None = None) -> bool:
    """Whether PostgreSQL refuses the statements of a batch without any row.

    So it counts where it does not answer, or not within `limit_s` seconds. `event`: how the log
    tells it, where it was the rehearsal that failed.
    """
    try:
        with sink.probing(PROBE_TIMEOUT_S):
            async with asyncio.timeout(limit_s):
                refusal = await sink.rehearse()
    except (TransientFault, TimeoutError):
        return True
    if refusal is not None:
        log.warning(event, sqlstate=refusal.fault.sqlstate, table=refusal.table)
    return refusal is not None


def may_be_of_a_message(fault: TransientFault) -> bool:
    """Whether one message of a batch may be at fault: PostgreSQL has refused the batch, S3 an
    object, or the key of one person does not open. Not that a table does not fit, or that no
    connection comes about, or that S3 is away.
    """
    code = fault.code
    if code in _CONNECTING and not fault.table:
        return False
    return code.startswith("postgres_") or code in _OF_AN_OBJECT + OF_A_PERSON


def may_be_set_aside(fault: TransientFault) -> bool:
    """Whether a line that is refused so, alone, may go to the quarantine: no queue would hold it.

    Not for what is often the world's fault, nor for what others do at the same time: another worker
    may have moved the object.
    """
    never = is_often_of_the_world(fault.code) or fault.code.startswith(_WITH_OTHERS)
    return may_be_of_a_message(fault) and not never


def is_often_of_the_world(code: str) -> bool:
    """Whether a code blames a message only if another message is written meanwhile."""
    return code.startswith(_OF_THE_WORLD)


def is_away(code: str) -> bool:
    """Whether a code says that the database is not there, is full, or cannot be written to."""
    return code.startswith((*_AWAY, _READ_ONLY))


def attempts(code: str) -> int:
    """Return after how many failures in a row with one code a batch is searched."""
    if code.startswith(_TIMED_OUT) or code in OF_A_PERSON:
        return TIMEOUT_ATTEMPTS
    return WORLD_ATTEMPTS if code.startswith(_OF_THE_WORLD + _WITH_OTHERS) else ATTEMPTS


def is_search_due(code: str, failures: int) -> bool:
    """Whether to search a batch that has failed `failures` times in a row with this code.

    That is after its `attempts`, and each time that their number has doubled.
    """
    share, rest = divmod(failures, attempts(code))
    return not rest and share & (share - 1) == 0
