"""Rehearse a batch: its statements, one by one and without rows, and then ROLLBACK.

It tells whose fault it is when PostgreSQL refuses a batch. A privilege that is gone, a table that
was dropped, row-level security, a read-only server: they refuse an empty COPY too. If the rehearsal
passes, some row of the batch is what PostgreSQL does not take.

Promises: changes nothing, and takes the locks of a batch only until it ends. It goes through both
paths of the sink, so a right that only the slow path needs is not missed. It cannot see what only a
row meets: constraints, triggers FOR EACH ROW, the bounds of partitions.
"""

from __future__ import annotations

import enum

import msgspec
import psycopg

from sqs2pg.postgres import dead_letter_copy, object_claims, tally
from sqs2pg.postgres.batch_transaction import BatchTransactions, Sealer, SinkPlan
from sqs2pg.postgres.binary_arrays import NO_ROWS
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.ledger import Ledger
from sqs2pg.postgres.slow_path import CONSTRAIN
from sqs2pg.postgres.sqlstate import DatabaseFault, diagnose
from sqs2pg.postgres.target_copy import TargetCopy

MARK = "/* rehearsal */"
"""After BEGIN, for who reads the server's log or what is on the wire."""


class Part(enum.Enum):
    """Which statements of a batch to rehearse.

    Those on the books are the same for all pipelines that write them alike. Whether a login may
    send them does not depend on those on the targets.
    """

    ALL = "all"
    BOOKS = "books"
    TARGETS = "targets"


class Refusal(msgspec.Struct, frozen=True):
    """The first statement of a batch that PostgreSQL refuses without any row."""

    fault: DatabaseFault
    table: str
    """`schema.table` that the statement is about; empty where it is about none."""
    needs: str = ""
    """The privileges on the table that the statement needs."""


async def rehearse(
    session: Session, plan: SinkPlan, vault: Sealer | None = None, part: Part = Part.ALL
) -> Refusal | None:
    """Go through the statements of a batch on `session`, as its role, under the batch's timeouts.

    Returns what PostgreSQL refuses first, None where it takes all. Raises KeyFault where another
    key version is the active one. May be repeated.
    """
    at = _Place()
    try:
        async with BatchTransactions(plan, vault, MARK).open(session) as transaction:
            if part is not Part.TARGETS:
                await _enter(session, plan, at)
            if part is not Part.BOOKS:
                await _touch_targets(session, plan, at)
            if part is not Part.TARGETS:
                await _end(session, plan, vault, at)
            await transaction.rollback()
    except psycopg.Error as error:
        return Refusal(diagnose(error), at.table, at.needs)
    return None


class _Place(msgspec.Struct):
    """What the statement under way is about, as in `Refusal`."""

    table: str = ""
    needs: str = ""


async def _enter(session: Session, plan: SinkPlan, at: _Place) -> None:
    ledger = Ledger(plan.id, undated=plan.undated, dedupe=plan.dedupe)
    at.table, at.needs = "sqs2pg.delivery", "INSERT"
    await ledger.copy(session, b"", ())
    at.needs = "SELECT, INSERT"
    await ledger.claim(session, (), ())
    at.needs = "EXECUTE of mark_quarantined, which works"
    await ledger.mark_quarantined(session, ())


async def _touch_targets(session: Session, plan: SinkPlan, at: _Place) -> None:
    targets = TargetCopy(plan.targets)
    for number, target in enumerate(plan.targets):
        at.table, at.needs = target.name, target.needs
        await targets.touch(session, number)


async def _end(session: Session, plan: SinkPlan, vault: Sealer | None, at: _Place) -> None:
    if vault is not None:
        at.table, at.needs = "pii.value", "INSERT"
        await vault.rehearse(session)
    at.table, at.needs = "sqs2pg.quarantine", "INSERT"
    await session.copy(dead_letter_copy.COPY, NO_ROWS)
    at.table = at.needs = ""
    await session.execute(CONSTRAIN)
    at.table, at.needs = "sqs2pg.tally", "INSERT"
    await session.execute(tally.ENTER_NOTHING)
    if plan.objects:
        at.table, at.needs = "sqs2pg.backfill", "SELECT, INSERT, UPDATE of its state"
        for statement in object_claims.REHEARSED:
            await session.execute(statement)
