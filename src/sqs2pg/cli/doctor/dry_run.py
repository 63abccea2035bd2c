"""Dry run: decode and mask messages in memory, and show what would be written.

Nothing is written or deleted, but a look at the queue counts as a receive. Only masked rows are
shown; of a message that would be quarantined only its id and the reason.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from sqs2pg.cli.doctor.context import Context, NotChecked
from sqs2pg.cli.doctor.sample_objects import lines_in
from sqs2pg.errors import PermanentFault, Sqs2pgError
from sqs2pg.mapping import examples
from sqs2pg.mapping.compile import MessageMapping
from sqs2pg.mapping.copy_text import values
from sqs2pg.mapping.encoder import NONE_UNREAD
from sqs2pg.mapping.envelope.s3_event import NamedObject
from sqs2pg.message import Message, Row, TargetLines
from sqs2pg.pipeline.archive_check import has_form
from sqs2pg.pipeline.archive_reader import ArchiveForm, form_for
from sqs2pg.runners.archive_form import archive_form
from sqs2pg.runners.compile_plan import masks_of, objects_of, payloads_of, read_mapping
from sqs2pg.settings import Settings
from sqs2pg.sqs.peek import peek


class Refused(msgspec.Struct):
    """One message that would be quarantined."""

    message_id: str
    code: str
    field: str
    """The source of the field that is at fault, or the envelope's layer; "" where it is neither."""
    record: int | None = None
    """The index of the record that is at fault, where a message may have several."""


class DryRun(msgspec.Struct):
    """What messages would become."""

    messages: int
    rows: list[dict[str, str | None]]
    """Masked cells by column; with `table` if there are several."""
    faults: dict[str, int]
    """How many messages would be quarantined, by reason."""
    quarantined: list[Refused]
    """The same, one by one."""
    dropped: int = 0
    """Records that would go to no table: a route drops them, or no route takes them and
    `unmatched = "drop"`."""


async def take_sample(context: Context, count: int) -> DryRun:
    """Return what up to `count` messages of the queue would become, in the table as it is.

    Raises NotChecked if settings, keys, queue or table are not available, and what the client
    raises.
    """
    settings = context.settings
    keyring = context.keyring()
    mapping = await read_mapping(await context.session(), settings, masks_of(settings, keyring))
    messages, unread = await with_lines(settings, mapping, await look(context, count), count)
    return await try_messages(settings, mapping, messages, unread)


async def look(context: Context, count: int) -> list[Message]:
    """Return up to `count` messages of the queue, which stay there."""
    client, url = await context.queue()
    names = tuple(context.settings.message_attributes)
    return await peek(client, url, count, message_attributes=names)


async def with_lines(
    settings: Settings, mapping: MessageMapping, messages: Sequence[Message], count: int
) -> tuple[list[Message], dict[str, PermanentFault]]:
    """Return the units of messages, and the faults of those that cannot be read, by id.

    Those of notifications of S3 are up to `count` lines of their objects. Raises TransientFault
    where S3 is away or refuses, and Sqs2pgError for an object of a format that is not read.
    """
    source = objects_of(settings)
    if source is None:
        return list(messages), {}
    refused: dict[str, PermanentFault] = {}
    objects: list[NamedObject] = []
    for message in messages:
        try:
            objects += source.read(message)[0].objects
        except PermanentFault as fault:
            refused[message.message_id] = fault.with_traceback(None)
    form = form_of(settings, mapping)
    lines, faults = await asyncio.to_thread(lines_in, source.store, objects, count, form)
    return [*(m for m in messages if m.message_id in refused), *lines], refused | faults


async def mapping_of(context: Context) -> tuple[MessageMapping, list[str]]:
    """Return the mapping, and what of the real thing is missing: the keys, the table, or neither.

    Without keys the masks are those of examples; without a table the columns are those that
    `migrate` would make.
    """
    settings, missing = context.settings, []
    try:
        keyring = context.keyring()
    except (Sqs2pgError, NotChecked):
        keyring = examples.test_keyring()
        missing.append("keys")
    masks = masks_of(settings, keyring)
    try:
        return await read_mapping(await context.session(), settings, masks), missing
    except (Sqs2pgError, NotChecked):
        return examples.compile_offline(settings, masks), [*missing, "table"]


def form_of(settings: Settings, mapping: MessageMapping) -> ArchiveForm:
    """Return how the archives of a mapping are read, as `backfill` does it."""
    return form_for(lambda body: has_form(mapping, body), archive_form(settings))


async def try_messages(
    settings: Settings,
    mapping: MessageMapping,
    messages: Sequence[Message],
    unread: Mapping[str, PermanentFault] = NONE_UNREAD,
) -> DryRun:
    """Return what messages would become. Objects that they point to are fetched.

    `unread`: the faults of messages that cannot be read, by id.
    """
    payloads = payloads_of(settings)
    found = DryRun(len(messages), [], {}, [])
    faults: Counter[str] = Counter()
    for message in messages:
        unfetched = {**unread, **(await payloads.fetch([message]) if payloads else {})}
        made = unfetched.get(message.message_id) or _run(mapping, message)
        if isinstance(made, PermanentFault):
            faults[made.code] += 1
            found.quarantined.append(_refused(message, made))
        else:
            found.dropped += made.dropped
            parts: list[Row | TargetLines] = [made, *made.also]
            found.rows += [row for part in parts for row in _rows(settings, part)]
    found.faults = dict(faults)
    return found


def _refused(message: Message, fault: PermanentFault) -> Refused:
    place, record = fault.detail, None
    if place.startswith("record "):
        _, number, *rest = place.split(" ", 2)
        record, place = int(number), rest[0] if rest else ""
    return Refused(message.message_id, fault.code, place, record)


def _run(mapping: MessageMapping, message: Message) -> Row | PermanentFault:
    try:
        decoded = mapping.decode(message)
    except PermanentFault as fault:
        return fault.with_traceback(None)
    [row] = mapping.rows(["key"], [message], [decoded])
    found: Row | PermanentFault = row
    return found


def _rows(settings: Settings, part: Row | TargetLines) -> list[dict[str, str | None]]:
    targets = settings.targets
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
