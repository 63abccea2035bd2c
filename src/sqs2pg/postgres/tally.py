"""The tally: one row per batch and target with what the batch did, as text of SQL.

Text and not parameters: the row is sent together with COMMIT, in one exchange, and PostgreSQL takes
several statements at once only without parameters.
"""

from __future__ import annotations

from sqs2pg.postgres.identifiers import quote_literal
from sqs2pg.postgres.target_copy import RowCounts

_INTO = """INSERT INTO sqs2pg.tally
    (pipeline, written, quarantined, duplicate, target_rows, dropped, target)"""

ENTER_NOTHING = f"{_INTO} SELECT 0, 0, 0, 0, 0, 0, NULL WHERE false"
"""As `enter_batch`, without a row: fails where that would, for want of a table or of a right."""


def enter_batch(
    pipeline: int, counts: RowCounts, *, written: int, quarantined: int, duplicate: int
) -> str:
    """Return the INSERT for one batch; `counts` are its rows, the other numbers its messages."""
    first = f"({pipeline}, {written}, {quarantined}, {duplicate}, {counts.first}, {counts.dropped}"
    rows = [f"{first}, NULL)"]
    rows += [f"({pipeline}, 0, 0, 0, {n}, 0, {quote_literal(name)})" for name, n in counts.others]
    return f"{_INTO} VALUES {', '.join(rows)}"
