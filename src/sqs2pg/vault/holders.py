"""Holders: the columns of the targets that hold the tokens of sealed values.

A log holds its tokens for good. A state table holds those of its rows as they are: once a newer
version has taken the place of the last row with a token, its value is of no use to anybody. Upkeep
deletes such values (`postgres/unheld_values.py`), and must know every column that may hold a token.
So each pipeline notes its own when it starts, before it seals anything.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.sqlstate import explained
from sqs2pg.settings import Settings

_NOTE = "SELECT pii.note_holders(%s::text[], %s::text[], %s::text[])"


async def note_holders(session: Session, settings: Settings, targets: Sequence[str]) -> None:
    """Note the columns of a pipeline's targets, where the vault is on.

    `targets` are their names in the books, in the order of the settings. Raises FatalFault or
    TransientFault.
    """
    if not settings.vault.enabled:
        return
    holders = [
        (name, field.column, field.name)
        for name, target in zip(targets, settings.targets, strict=True)
        for field in target.fields
        if field.recover
    ]
    if holders:
        with explained():
            await session.execute(_NOTE, [list(column) for column in zip(*holders, strict=True)])
