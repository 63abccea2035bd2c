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

from sqs2pg.postgres import dead_letter_copy, object_claims, tally
from sqs2pg.postgres.batch_transaction import BatchTransactions, Sealer, SinkPlan
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.ledger import Ledger
from sqs2pg.postgres.slow_path import CONSTRAIN
from sqs2pg.postgres.sqlstate import DatabaseFault, diagnose
from sqs2pg.postgres.target_copy import TargetCopy

MARK = "/* rehearsal */"
"""After BEGIN, for who reads the server's log or what is on the wire."""


class Refusal(msgspec.Struct, frozen=True):
    """The first statement of a batch that PostgreSQL refuses without any row."""

    fault: DatabaseFault
    table: str
    """`schema.table` that the statement is about; empty where it is about none."""
    needs: str = ""
    """The privileges on the table that the statement needs."""


async def rehearse(session: Session, plan: SinkPlan, vault: Sealer | None = None) -> Refusal | None:
    """Go through the statements of a batch on `session`, as its role, under the batch's timeouts.

    Returns what PostgreSQL refuses first, None where it takes all. Raises KeyFault where another
    key version is the active one. May be repeated.
    """
    ledger = Ledger(plan.id, undated=plan.undated, dedupe=plan.dedupe)
    table = needs = ""
    try:
        async with BatchTransactions(plan, vault, MARK).open(session) as transaction:
            table, needs = "sqs2pg.delivery", "INSERT"
            await ledger.copy(session, b"", ())
            needs = "SELECT, INSERT"
            await ledger.claim(session, (), ())
            needs = "EXECUTE of mark_quarantined, which works"
            await ledger.mark_quarantined(session, ())
            targets = TargetCopy(plan.targets)
            for number, target in enumerate(plan.targets):
                table, needs = target.name, target.needs
                await targets.touch(session, number)
            if vault is not None:
                table = "pii.value"
                await vault.rehearse(session)
            table = "sqs2pg.quarantine"
            await session.copy(dead_letter_copy.COPY, "")
            table = needs = ""
            await session.execute(CONSTRAIN)
            table, needs = "sqs2pg.tally", "INSERT"
            await session.execute(tally.ENTER_NOTHING)
            if plan.objects:
                table, needs = "sqs2pg.backfill", "SELECT, INSERT, UPDATE of its state"
                for statement in object_claims.REHEARSED:
                    await session.execute(statement)
            await transaction.rollback()
    except psycopg.Error as error:
        return Refusal(diagnose(error), table, needs)
    return None
