"""The sink's slow path: take messages in the ledger, find the rows that the database rejects, write
the others and seal what they hide. All in the caller's transaction.

A strategy says how messages are taken. The sink claims their keys (`ledger.Claim`); a replay flips
their entries from quarantined to written (`replay_ledger.Flip`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, NamedTuple, Protocol

from sqs2pg.mapping.originals import Originals
from sqs2pg.message import Row
from sqs2pg.postgres.batch_transaction import Sealer
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.held_lines import HeldLines
from sqs2pg.postgres.sqlstate import DatabaseFault

CONSTRAIN = "SET CONSTRAINTS ALL IMMEDIATE"
"""Deferred constraints are checked before COMMIT: an error of COMMIT does not name a row."""

Search = Callable[[Sequence[Row]], Awaitable[dict[str, DatabaseFault]]]
"""Write the rows that the database takes; return why it rejects the others, by ledger key."""


class Strategy(Protocol):
    """How messages are taken in the ledger. Raises psycopg.Error."""

    async def take(self, session: Session, rows: Sequence[Row]) -> list[Row]:
        """Enter the rows' messages as written; return the rows that are ours to write."""

    async def put_back(self, session: Session, keys: Collection[str]) -> None:
        """Undo `take` for messages whose rows the database rejects."""


class SlowWrite(NamedTuple):
    """What became of the rows, once the transaction commits."""

    taken: list[Row]
    written: list[Row]
    rejected: dict[str, DatabaseFault]
    """By ledger key. The taken rows are the written and the rejected ones."""
    stored: Any
    """For the vault to remember after COMMIT; None where nothing was sealed."""


async def write_slowly(
    session: Session,
    rows: Sequence[Row],
    strategy: Strategy,
    search: Search,
    vault: Sealer | None,
    originals: Originals | None,
    held: HeldLines,
) -> SlowWrite:
    """Write rows that may be duplicates, or bad. Raises psycopg.Error, and what `search` raises.

    `held` knows what the merges of `search` have left out.
    """
    await session.execute(CONSTRAIN)
    taken = await strategy.take(session, rows)
    rejected = await search(taken)
    if rejected:
        await strategy.put_back(session, rejected.keys())
    written = [row for row in taken if row.key not in rejected]
    stored = None
    if vault is not None and originals is not None and written:
        chosen = {row.message_id for row in written}
        stored = await vault.seal(session, originals, chosen, held.left_out(lambda: rows))
    return SlowWrite(taken, written, rejected, stored)
