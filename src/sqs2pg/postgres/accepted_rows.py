"""Accept a difference between a target's rows and the books, on record.

Others may delete or insert rows on purpose: an archive job, a load by hand. The target's count is
then another than the tally and the baseline say, for ever. Accepting it moves the baseline by that
difference, so that `verify` compares from there on, and enters numbers and reason in the audit.

Promises: the count and the books are read in one snapshot, so a running pipeline takes no part in
the difference; two that accept at once don't move the baseline twice; baseline and audit change in
one transaction. Must never do: change what a pipeline may write, the tally above all: then a
pipeline's login could hide a difference.
"""

from __future__ import annotations

import msgspec

from sqs2pg.errors import FatalFault, SettingsError
from sqs2pg.postgres import audit
from sqs2pg.postgres.connection import READ_COMMITTED, Session
from sqs2pg.postgres.digest import accept_digest
from sqs2pg.postgres.identifiers import quote_table
from sqs2pg.postgres.others_rows import ROW_SECURITY, read_counting
from sqs2pg.postgres.sqlstate import explained
from sqs2pg.postgres.tally import rows_added

# Another that accepts, and `migrate`, which also sets baselines, wait for each other. The statement
# after it sees what they committed.
_LOCK = "LOCK TABLE sqs2pg.migration, sqs2pg.target IN SHARE ROW EXCLUSIVE MODE"
_TARGETS = "SELECT target FROM sqs2pg.target WHERE pipeline = %s ORDER BY position"
# One statement, one snapshot. Every pipeline of the table has one baseline: that of the first.
_MOVE_BASELINE = f"""WITH counted AS (
    SELECT {{count}} AS found,
        (SELECT f.baseline_rows FROM sqs2pg.target f WHERE f.target = %s
         ORDER BY f.pipeline LIMIT 1) AS baseline,
        {rows_added()} AS added),
differing AS (
    SELECT found - added AS baseline FROM counted WHERE found <> baseline + added),
of_pipelines AS (
    UPDATE sqs2pg.pipeline p SET baseline_rows = d.baseline FROM differing d WHERE p.target = %s),
of_targets AS (
    UPDATE sqs2pg.target t SET baseline_rows = d.baseline FROM differing d WHERE t.target = %s)
SELECT found, baseline + added, found <> baseline + added FROM counted"""
_ACT = "accept_difference"


class AcceptedRows(msgspec.Struct, frozen=True, omit_defaults=True):
    """A difference of one target that was accepted. The numbers count rows."""

    target: str
    """`schema.table` as the books have it."""
    found: int
    expected: int
    others: bool = False
    """Whether they were other rows than the books said, by their digest."""

    def __str__(self) -> str:
        more = self.found - self.expected
        return f"{self.target}: {self.found} rows found, {self.expected} expected ({more:+})" + (
            ", other rows by their digest" if self.others else ""
        )


async def accept_rows(
    session: Session, pipeline: int, *, reason: str, ticket: str = "", table: str = ""
) -> list[AcceptedRows]:
    """Accept what a pipeline's targets hold now; return each difference that there was.

    `table`: only this target, named as in the settings or as `verify` prints it. Call it outside
    a transaction.

    Raises SettingsError for an empty reason or a table that is no target; FatalFault
    `nothing_to_accept` where every table has the rows that the books say, `rows_hidden` where the
    role may not see all of them, and where it may not accept.
    """
    reason, ticket = audit.stated_reason(
        reason, ticket, hint="say who changed the rows, and what for"
    )
    accepted: list[AcceptedRows] = []
    anchors: list[audit.Anchor] = []
    try:
        with explained():
            async with session.transaction(_LOCK, mode=READ_COMMITTED):
                for target in await _chosen(session, pipeline, table):
                    accepted += await _accept(session, target)
                for one in accepted:
                    anchor = await audit.append(
                        session, _ACT, subject=str(one), reason=reason, ticket=ticket
                    )
                    anchors.append(anchor)
    except FatalFault as fault:
        if fault.code == "postgres_42501":
            fault.hint = (
                "only the owner of the schema sqs2pg, who runs `sqs2pg migrate`, may accept a "
                "difference, and needs SELECT on the table: use that login"
            )
        raise
    for anchor in anchors:
        audit.announce(_ACT, anchor)
    if not accepted:
        raise FatalFault(
            f"there is nothing to accept: {table or 'every table'} has the rows that the books say",
            code="nothing_to_accept",
            hint="run `sqs2pg verify`: a difference between its own books cannot be accepted",
        )
    return accepted


async def _chosen(session: Session, pipeline: int, table: str) -> list[str]:
    """Return the targets to look at, as the books have them."""
    targets = [target for (target,) in await session.execute(_TARGETS, [pipeline])]
    if not table:
        return targets
    # As `verify` prints it, or as the settings name it.
    same = "SELECT %s = %s OR pg_catalog.to_regclass(%s) = pg_catalog.to_regclass(%s)"
    for target in targets:
        rows = await session.execute(same, [table, target, quote_table(table), target])
        if rows == [(True,)]:
            return [target]
    raise SettingsError(
        f"this pipeline has no table {table!r}",
        code="target_table",
        hint=f"name one of its tables: {', '.join(targets)}",
    )


async def _accept(session: Session, target: str) -> list[AcceptedRows]:
    """Move a target's baseline to what it holds; return the difference, if there was one."""
    counting = await read_counting(session, target)
    if counting.view:
        return []
    # The server itself quoted the name when it was registered.
    count = counting.of(target.replace("%", "%%"))
    rows = await session.execute(_MOVE_BASELINE.format(count=count), [target] * 4)
    others = not counting.gone and await accept_digest(session, target)
    [(found, expected, differs)] = rows
    if not (differs or others):
        return []
    if counting.row_security:
        raise FatalFault(
            f"the difference of {target} cannot be accepted: {ROW_SECURITY}",
            code="rows_hidden",
            hint="verify with a login that owns the schema sqs2pg and has BYPASSRLS",
        )
    return [AcceptedRows(target, found, expected, others)]
