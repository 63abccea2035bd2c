"""Sealed values whose token no target holds any more: upkeep deletes them.

Only of fields whose tokens are in state tables alone: a log holds its tokens for good. They are
taken out of the vault in one transaction, which no batch overlaps, and looked for once more in the
next one. A batch before it may have written such a token; one after it seals the value again,
because the epoch has risen. `sql/migrations` has the functions.
"""

from __future__ import annotations

from sqs2pg.postgres import audit
from sqs2pg.postgres.connection import READ_COMMITTED, Session

_TAKE = "SELECT pii.take_unheld()"
_DROP = "SELECT dropped, sequence, hash FROM pii.drop_unheld()"


async def drop_values(session: Session) -> int:
    """Delete values that no target holds; return how many. Raises psycopg.Error.

    At most 10,000 of each field. May be killed at any instant: the next one goes on.
    """
    async with session.transaction(mode=READ_COMMITTED):
        await session.execute(_TAKE)
    return await drop_taken_values(session)


async def drop_taken_values(session: Session) -> int:
    """Delete the values that an earlier transaction has taken; return how many.

    Those that a target holds after all come back. Raises psycopg.Error.
    """
    async with session.transaction(mode=READ_COMMITTED):
        [(dropped, *head)] = await session.execute(_DROP)
    if dropped:
        audit.announce("values_dropped", audit.Anchor(*head))
    return int(dropped)
