"""The sample of `init` and `config test`: messages of the queue, or lines of an archive.

Messages stay on the queue: a look counts as a receive, and they are released at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from sqs2pg.cli.doctor.sample_objects import LAYER, objects_in
from sqs2pg.errors import PermanentFault, SettingsError
from sqs2pg.mapping.envelope import Envelope, compression, formats
from sqs2pg.mapping.envelope.s3_event import NamedObject
from sqs2pg.message import Message, SystemAttributes
from sqs2pg.settings import EnvelopeSettings

if TYPE_CHECKING:
    from sqs2pg.pipeline.archive_reader import ArchiveForm

MESSAGES_MAX = 1000
LAYERS_MAX = 8

_decode = msgspec.json.Decoder(float_hook=Decimal).decode  # numbers exact


class Sample(msgspec.Struct):
    """What was looked at."""

    messages: list[Message]
    """Those that have documents."""
    documents: list[Any]
    envelope: dict[str, Any]
    """The settings that open them."""
    unread: Counter[str]
    """The others, by reason."""
    objects: list[NamedObject] = []
    """Of S3 notifications: the objects that have the documents."""


class SampleParameter(click.ParamType[int | Path]):
    """A number of messages, or the path of an archive."""

    name = "N|FILE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | Path:
        """Return the number or the path."""
        if isinstance(value, int | Path):
            return value
        if value.lstrip("-").isdigit():
            number: int = click.IntRange(1, MESSAGES_MAX).convert(value, param, ctx)
            return number
        if not Path(value).is_file():
            self.fail(f"{value!r} is neither a number of messages nor a file", param, ctx)
        return Path(value)


async def peek_at(queue: str, count: int) -> list[Message]:
    """Return up to `count` messages of a queue, which stay there."""
    from sqs2pg.runners.queue_client import queue_client
    from sqs2pg.sqs.peek import peek

    async with queue_client() as client:
        return await peek(client, await client.queue_url(queue), count)


def sample_of(messages: Sequence[Message], origin: str) -> Sample:
    """Return the documents of messages. Raises SettingsError where there is none."""
    found = Sample([], [], {}, Counter())
    auto = Envelope(EnvelopeSettings(layers=("auto",), records="auto"))
    layers: set[tuple[str, ...]] = set()
    around: set[tuple[str, ...]] = set()  # the notifications
    several = False
    for message in messages:
        try:
            opened = auto.open(message)
        except PermanentFault as fault:
            found.unread[fault.code] += 1
            continue
        texts = opened.records.texts
        documents = list(map(_decoded, texts))
        named = objects_in(texts[0], opened.attributes) if len(texts) == 1 else None
        if named is not None:
            found.objects += named
            around |= {_layers(message)} if named else set()
            continue
        if not documents or any(type(one) is not dict for one in documents):
            found.unread["not_an_object"] += 1
            continue
        found.messages.append(message)
        found.documents += documents
        several = several or opened.records.several
        layers.add(_layers(message))
    if not (found.documents or found.objects):
        raise SettingsError(
            f"{origin} gave no JSON object to propose from",
            code="no_sample",
            hint="send some messages first, or use --from-table",
        )
    if found.documents and found.objects:
        found.unread["s3_notification"] += len(found.objects)  # no list of layers says both
        found.objects = []
    if found.objects:
        outer = next(iter(around)) if len(around) == 1 else ()
        buckets = sorted({one.bucket for one in found.objects})
        found.envelope |= {"layers": [*outer, LAYER], "s3_buckets": buckets}
    elif layers != {()}:
        declared = next(iter(layers)) if len(layers) == 1 else ("auto",)
        found.envelope["layers"] = list(declared)
    if several:
        found.envelope["records"] = "auto"
    return found


def _layers(message: Message) -> tuple[str, ...]:
    """Return the layers that `auto` takes off a message; ("auto",) where no list says the same."""
    payload: str | bytes = message.body
    layers: list[str] = []
    if message.message_attributes and "Content-Encoding" in message.message_attributes:
        return ("auto",)
    while len(layers) < LAYERS_MAX:
        layer = formats.signature(payload) or compression.signature(payload)
        if layer is None:
            return tuple(layers)
        if layer == "sns":
            payload, _, inner = formats.sns(payload)
            if "Content-Encoding" in inner:
                return ("auto",)
        elif layer == "eventbridge":
            payload, _, _ = formats.eventbridge(payload)
        elif layer == "s3":
            return ("auto",)
        else:
            payload = compression.decode(layer, payload, 2**26)
        layers.append(layer)
    return ("auto",)


def _decoded(text: str) -> Any:
    """Return the value of JSON; None where it is none."""
    try:
        return _decode(text)
    except (msgspec.DecodeError, UnicodeError, InvalidOperation, RecursionError):
        return None


def about_unread(unread: Mapping[str, int]) -> str:
    """Return a sentence on the messages that gave no document; "" where there is none."""
    if not unread:
        return ""
    return ", ".join(f"{count} {code}" for code, count in sorted(unread.items()))


def lines_of(
    path: Path, form: ArchiveForm | None = None, count: int = MESSAGES_MAX
) -> tuple[list[Message], dict[str, PermanentFault]]:
    """Return up to `count` records of an archive as messages, and why some cannot be read, by id.

    They are read as by `backfill`. Blocking. Raises SettingsError where the file cannot be read,
    ArchiveDamaged, and ArchiveRefused for a format that is not read.
    """
    from sqs2pg.pipeline.archive_reader import ANY_FORM, find, read

    [archive] = find([str(path)], None)
    messages: list[Message] = []
    faults: dict[str, PermanentFault] = {}
    for chunk in read(archive, None, form or ANY_FORM).chunks():
        for place, body in enumerate(chunk.bodies[: count - len(messages)]):
            name = f"line {len(messages) + 1}"
            text = body.decode("utf-8", "surrogateescape").strip()
            messages.append(Message(name, "", text, SystemAttributes(0)))
            if place in chunk.faults:
                faults[name] = chunk.faults[place]
        if len(messages) >= count:
            break
    return messages, faults
