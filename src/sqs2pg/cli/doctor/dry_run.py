"""Dry run: decode and mask peeked messages in memory, and show what would be written.

Nothing is written or deleted, but a look counts as a receive. Only masked rows are shown.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from sqs2pg.cli.doctor.context import Context
from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.copy_text import values
from sqs2pg.message import Message, Row, TargetLines
from sqs2pg.runners.compile_plan import masks_of, payloads_of, read_mapping
from sqs2pg.sqs.peek import peek


class Sample(msgspec.Struct):
    """What peeked messages would become."""

    messages: int
    rows: list[dict[str, str | None]]
    """Masked cells by column; with `table` if there are several."""
    faults: dict[str, int]
    """How many messages would be quarantined, by reason."""


async def take_sample(context: Context, count: int) -> Sample:
    """Return what up to `count` messages of the queue would become.

    Raises NotChecked if settings, keys, queue or table are not available, and what the client
    raises.
    """
    settings = context.settings
    keyring = context.keyring()
    client, url = await context.queue()
    mapping = await read_mapping(await context.session(), settings, masks_of(settings, keyring))
    names = tuple(settings.message_attributes)
    messages = await peek(client, url, count, message_attributes=names)
    payloads = payloads_of(settings)
    rows: list[dict[str, str | None]] = []
    faults: Counter[str] = Counter()
    for message in messages:
        unfetched = await payloads.fetch([message]) if payloads else {}
        made = unfetched.get(message.message_id) or _run(mapping, message)
        if isinstance(made, PermanentFault):
            faults[made.code] += 1
        else:
            parts: list[Row | TargetLines] = [made, *made.also]
            rows += [row for part in parts for row in _rows(context, part)]
    return Sample(len(messages), rows, dict(faults))


def _run(mapping: Any, message: Message) -> Row | PermanentFault:
    try:
        decoded = mapping.decode(message)
    except PermanentFault as fault:
        return fault.with_traceback(None)
    [row] = mapping.rows(["key"], [message], [decoded])
    found: Row | PermanentFault = row
    return found


def _rows(context: Context, part: Row | TargetLines) -> list[dict[str, str | None]]:
    targets = context.settings.targets
    target = targets[part.target]
    table = {"table": target.table} if len(targets) > 1 else {}
    return [
        {
            **table,
            **{
                field.column: value
                for field, value in zip(target.fields, values(line), strict=True)
            },
        }
        for line in part.text.split("\n")[:-1]
    ]
