"""Where the objects of notifications come from: which ones a message names, and how they are read.

Shared by the writers of a process. No I/O of its own.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.envelope import Envelope
from sqs2pg.mapping.envelope.s3_event import Notification, read_notification
from sqs2pg.message import Message
from sqs2pg.pipeline.archive_objects import Objects
from sqs2pg.pipeline.archive_reader import ArchiveForm
from sqs2pg.pipeline.object_reader import ChunkSize
from sqs2pg.settings import EnvelopeSettings

FETCHES_MAX = 16
"""Objects that one process asks S3 for at once."""
BATCH_OBJECTS_MAX = 200
"""Small objects whose notifications are processed together."""
BATCH_BYTES_MAX = 8 * 2**20
"""Stored bytes of objects that are processed together. A larger object is processed alone."""


class ObjectSource:
    """Reads notifications; has what the writers need to read their objects."""

    def __init__(
        self,
        store: Objects,
        settings: EnvelopeSettings,
        chunk: ChunkSize,
        form: ArchiveForm,
    ) -> None:
        """`chunk`: what one transaction takes at most. `form`: what the settings say of objects."""
        self.store = store
        self.chunk = chunk
        self.form = form
        self.bytes_max = settings.s3_bytes_max
        """That of `ArchiveForm`."""
        self.pool = ThreadPoolExecutor(FETCHES_MAX, thread_name_prefix="s3")
        self._removed = settings.s3_removed
        self._envelope = Envelope(settings.of_notifications)
        self._buckets = frozenset(settings.s3_buckets)

    def read(self, message: Message) -> tuple[Notification, dict[str, str]]:
        """Return what a message notifies of, and the attributes that its layers add.

        Raises PermanentFault: `payload_bucket`, those of `read_notification` and of the layers.
        """
        opened = self._envelope.open(message)
        [text] = opened.records.texts
        found = read_notification(text, opened.attributes, removed=self._removed)
        if any(one.bucket not in self._buckets for one in found.objects):
            raise PermanentFault("payload_bucket")
        return found, opened.attributes

    def load_of(self, message: Message) -> float:
        """Return which part of the messages that are processed together a message may be."""
        size = 0
        with suppress(PermanentFault):
            size = sum(one.size for one in self.read(message)[0].objects)
        return max(1 / BATCH_OBJECTS_MAX, size / BATCH_BYTES_MAX)
