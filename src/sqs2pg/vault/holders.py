"""Holders: the columns of the targets that hold the tokens of sealed values.

A log holds its tokens for good. A state table holds those of its rows as they are: once a newer
version has taken the place of the last row with a token, its value is of no use to anybody. Upkeep
deletes such values (`postgres/unheld_values.py`), and must know every column that may hold a token.
So each pipeline notes its own when it starts, before it writes anything. Also those that it does
not seal: the value may be sealed for another target or pipeline, which makes the same token of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqs2pg.errors import FatalFault
from sqs2pg.mask.registry import properties
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.refusal_reason import explain_refusal
from sqs2pg.postgres.rehearsal import Refusal
from sqs2pg.postgres.sqlstate import DatabaseFault, Verdict, explained
from sqs2pg.postgres.target_copy import TargetTable
from sqs2pg.settings import Field, Settings

_READ_ONLY = "25006"
_NOTE = "SELECT pii.note_holders(%s::text[], %s::text[], %s::text[])"


async def note_holders(
    session: Session, settings: Settings, targets: Sequence[TargetTable]
) -> None:
    """Note the columns of a pipeline's targets that have tokens.

    `targets` are in the order of the settings. Raises FatalFault; on a standby, which may be
    promoted, TransientFault.
    """
    holders = {
        (table.name, field.column, sealed)
        for table, target in zip(targets, settings.targets, strict=True)
        for field in target.fields
        for sealed in _same_tokens(field, settings)
    }
    if not holders:
        return
    try:
        with explained():
            await session.execute(_NOTE, [list(each) for each in zip(*holders, strict=True)])
    except FatalFault as fault:
        if fault.code != f"postgres_{_READ_ONLY}":
            raise
        # The first write of a start: say what the rehearsal of a batch would.
        refusal = Refusal(DatabaseFault(Verdict.TRANSIENT, _READ_ONLY), "")
        raise await explain_refusal(session, refusal, targets) from None


def _same_tokens(field: Field, settings: Settings) -> Iterator[str]:
    """Yield the names, in the vault, of fields whose tokens a column may have."""
    made = properties(field.mask)
    if field.mask == "keep" or not (made.deterministic and made.joinable):
        return
    yield field.name
    for other in settings.fields:
        if (other.domain or other.name) == (field.domain or field.name):
            yield other.name
