"""The sample of a queue of S3 notifications: lines of the objects that they name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.envelope.s3_event import NamedObject, read_notification
from sqs2pg.message import Message, SystemAttributes

if TYPE_CHECKING:
    from sqs2pg.pipeline.archive_objects import Objects
    from sqs2pg.pipeline.archive_reader import ArchiveForm

LAYER = "s3_event"
OBJECTS_MAX = 20
"""Objects of one sample that are read."""


def objects_in(text: str | bytes, attributes: Mapping[str, str]) -> tuple[NamedObject, ...] | None:
    """Return the objects that a body notifies of; None where it is no notification of S3.

    `attributes` are those that the layers around it add.
    """
    if "eventbridge.detail-type" in attributes and attributes.get("eventbridge.source") != "aws.s3":
        return None
    try:
        return read_notification(text, attributes).objects
    except PermanentFault:
        return None


def lines_in(
    store: Objects, objects: Iterable[NamedObject], count: int, form: ArchiveForm | None = None
) -> tuple[list[Message], dict[str, PermanentFault]]:
    """Return up to `count` records of objects as messages, and why some cannot be read, by id.

    An id names object and line. An object that is gone has none. Without a form, it is known from
    each object. Blocking. Raises TransientFault where S3 is away or refuses, and Sqs2pgError for an
    object of a format that is not read.
    """
    # Here, so that no help loads the archives' readers.
    from sqs2pg.pipeline.archive_identity import EPOCH, object_attributes
    from sqs2pg.pipeline.archive_reader import ANY_FORM, Archive, Reader

    found: list[Message] = []
    faults: dict[str, PermanentFault] = {}
    for one in islice(dict.fromkeys(objects), OBJECTS_MAX):
        try:
            opened = store.open(one.bucket, one.key, version=one.version, etag=one.etag)
        except PermanentFault:
            continue
        reader = Reader(Archive(one.place, "", opened.size, EPOCH), opened.pieces, form or ANY_FORM)
        attributes = object_attributes(one.bucket, one.key)
        line = 0
        for chunk in reader.chunks():
            for place, body in enumerate(chunk.bodies[: count - len(found)]):
                line += 1
                name = f"{one.place} {'line' if reader.is_lines else 'record'} {line}"
                text = body.decode("utf-8", "surrogateescape").strip()
                found.append(Message(name, "", text, SystemAttributes(0), attributes))
                if place in chunk.faults:
                    faults[name] = chunk.faults[place]
            if len(found) >= count:
                return found, faults
    return found, faults
