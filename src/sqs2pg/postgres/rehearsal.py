"""Rehearse a batch: its statements, one by one and without rows, and then ROLLBACK.

It tells whose fault it is when PostgreSQL refuses a batch. A privilege that is gone, a table that
was dropped, row-level security, a read-only server: they refuse an empty COPY too. If the rehearsal
passes, some row of the batch is what PostgreSQL does not take.

Promises: changes nothing, and takes the locks of a batch only until it ends. It goes through both
paths of the sink, so a right that only the slow path needs is not missed. It cannot see what only a
row meets: constraints, triggers FOR EACH ROW, the bounds of partitions.
"""

from __future__ import annotations

import msgspec
import psycopg

from sqs2pg.postgres import quarantine, tally
from sqs2pg.postgres.batch_transaction import BatchTransactions, Sealer, SinkPlan
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.ledger import Ledger
from sqs2pg.postgres.slow_path import CONSTRAIN
from sqs2pg.postgres.sqlstate import DatabaseFault, diagnose


class Refusal(msgspec.Struct, frozen=True):
    """The first statement of a batch that PostgreSQL refuses without any row."""

    fault: DatabaseFault
    table: str
    """`schema.table` that the statement is about; empty where it is about none."""


async def rehearse(session: Session, plan: SinkPlan, vault: Sealer | None = None) -> Refusal | None:
    """Go through the statements of a batch on `session`, as its role, under the batch's timeouts.

    Returns what PostgreSQL refuses first, None where it takes all. Raises KeyFault where another
    key version is the active one. May be repeated.
    """
    ledger = Ledger(plan.id, undated=plan.undated, dedupe=plan.dedupe)
    table = ""
    try:
        async with BatchTransactions(plan, vault).open(session) as transaction:
            table = "sqs2pg.delivery"
            await ledger.copy(session, b"", ())
            await ledger.claim(session, (), ())
            await ledger.mark_quarantined(session, ())
            for target in plan.targets:
                table = target.name
                await session.copy(target.copy_statement(), "")
            if vault is not None:
                table = "pii.value"
                await vault.rehearse(session)
            table = "sqs2pg.quarantine"
            await session.copy(quarantine.COPY, "")
            table = ""
            await session.execute(CONSTRAIN)
            table = "sqs2pg.tally"
            await session.execute(tally.ENTER_NOTHING)
            await transaction.rollback()
    except psycopg.Error as error:
        return Refusal(diagnose(error), table)
    return None
