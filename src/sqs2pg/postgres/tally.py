"""The tally: one row per batch and target with what the batch did, as text of SQL.

Text and not parameters: the row is sent together with COMMIT, in one exchange, and PostgreSQL takes
several statements at once only without parameters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqs2pg.message import RowChanges
from sqs2pg.postgres.identifiers import quote_literal

if TYPE_CHECKING:
    from sqs2pg.postgres.target_copy import TargetChanges

_ROWS = ", ".join(f"rows_{name}" for name in RowChanges._fields)
_INTO = f"""INSERT INTO sqs2pg.tally
    (pipeline, kind, written, quarantined, duplicate, dropped, target, target_rows, {_ROWS})"""

ENTER_NOTHING = f"""{_INTO}
SELECT 0, 'batch', 0, 0, 0, 0, NULL, 0, 0, 0, 0, 0, 0 WHERE false"""
"""As `enter_batch`, without a row: fails where that would, for want of a table or of a right."""


def rows_added(target: str = "%s") -> str:
    """Return an expression of SQL: the rows of a target above its baseline, as the tally says.

    `target` is an expression of its name, as it is on record; here a parameter.
    """
    return f"""(SELECT coalesce(sum(y.target_rows), 0)::bigint
    FROM sqs2pg.tally y JOIN sqs2pg.pipeline q ON q.id = y.pipeline
    WHERE coalesce(y.target, q.target) = {target})"""


def enter_batch(
    pipeline: int,
    changes: TargetChanges,
    *,
    written: int,
    quarantined: int,
    duplicate: int = 0,
    kind: str = "batch",
) -> str:
    """Return the INSERT for one batch; `changes` are of its rows, the numbers of its messages."""
    counts = f"{written}, {quarantined}, {duplicate}, {changes.dropped}"
    rows = [f"({pipeline}, '{kind}', {counts}, NULL, {_numbers(changes.first)})"]
    rows += [
        f"({pipeline}, '{kind}', 0, 0, 0, 0, {quote_literal(name)}, {_numbers(one)})"
        for name, one in changes.others
    ]
    return f"{_INTO} VALUES {', '.join(rows)}"


def _numbers(changes: RowChanges) -> str:
    return ", ".join(map(str, (changes.added, *changes)))
