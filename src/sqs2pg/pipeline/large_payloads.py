"""Payloads: the objects that messages point to. Fetched before decoding, deleted after commit.

Place in the flow: between receive and decode, where the envelope has S3 pointers. Bounded: a batch
is processed in parts whose payloads fit the writer's budget together (`mapping/budget.py`).

Must never do: delete an object whose message is not durably written, or quarantine a message for a
fault of S3.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import structlog

from sqs2pg.errors import FatalFault, PermanentFault, TransientFault
from sqs2pg.mapping.envelope import Envelope
from sqs2pg.mapping.envelope.formats import Pointer
from sqs2pg.message import Message, Outcome
from sqs2pg.settings import POINTER_SIZES, EnvelopeSettings

_FETCHES_MAX = 8
_SIZE = re.compile("[0-9]{1,18}")

log = structlog.get_logger(__name__)


class Store(Protocol):
    """What payloads need of an object store."""

    async def fetch(self, bucket: str, key: str, bytes_max: int, /) -> bytes:
        """Return an object. Raises PermanentFault or TransientFault."""

    async def delete(self, bucket: str, key: str, /) -> None:
        """Delete an object. Raises TransientFault."""


class ProcessPart(Protocol):
    """Processes messages whose payloads are in memory."""

    async def __call__(
        self,
        messages: Sequence[Message],
        to_quarantine: Mapping[str, PermanentFault],
        *,
        last: bool,
    ) -> list[Outcome]:
        """See `Processor.process`. `last`: of the batch."""


class Payloads:
    """Fetches the objects that messages point to."""

    def __init__(self, store: Store, settings: EnvelopeSettings, at_once_bytes_max: int) -> None:
        """`at_once_bytes_max`: payloads of one part of a batch together. A single one may be
        larger: up to `s3_bytes_max`.
        """
        self._at_once_bytes_max = at_once_bytes_max
        self._store = store
        self._settings = settings
        self._envelope = Envelope(settings)
        self._fetching = asyncio.Semaphore(_FETCHES_MAX)

    def parts(self, messages: Sequence[Message]) -> Iterator[list[Message]]:
        """Yield the messages in order, in parts whose payloads fit in memory together."""
        part: list[Message] = []
        left = self._at_once_bytes_max
        for message in messages:
            size = self._size(message)
            if part and size > left:
                yield part
                part, left = [], self._at_once_bytes_max
            part.append(message)
            left -= size
        if part:
            yield part

    async def process(
        self,
        messages: Sequence[Message],
        to_quarantine: Mapping[str, PermanentFault],
        process: ProcessPart,
        release: Callable[[TransientFault], None],
    ) -> list[Outcome]:
        """Process messages part by part: each is fetched, processed and freed.

        After a part that is released the rest is released too, so that the order is kept. `release`
        takes the reason where the store is at fault.
        """
        outcomes: list[Outcome] = []
        for part in self.parts(messages):
            try:
                faults = await self.fetch(part)
            except TransientFault as fault:
                release(fault)
                break
            last = len(outcomes) + len(part) == len(messages)
            done = await process(part, {**to_quarantine, **faults}, last=last)
            await self.settle(part, done)
            outcomes += done
            if Outcome.RELEASED in done:
                break
        return outcomes + [Outcome.RELEASED] * (len(messages) - len(outcomes))

    def _size(self, message: Message) -> int:
        for name in POINTER_SIZES:
            attribute = (message.message_attributes or {}).get(name)
            if attribute and _SIZE.fullmatch(attribute.string_value or ""):
                return min(int(attribute.string_value or 0), self._settings.s3_bytes_max)
        return 0 if self._envelope.pointer(message) is None else self._settings.s3_bytes_max

    async def fetch(self, messages: Sequence[Message]) -> dict[str, PermanentFault]:
        """Fetch the payloads of messages; return the faults of those that have none, by MessageId.

        Raises TransientFault or FatalFault of the store; then no payload is kept, and no fetch goes
        on.
        """
        pointing = [(m, p) for m in messages if (p := self._envelope.pointer(m)) is not None]
        fetches = [asyncio.ensure_future(self._fetch(m, pointer)) for m, pointer in pointing]
        try:
            found = await asyncio.gather(*fetches)
        except BaseException:
            for one in fetches:
                one.cancel()
            for message in messages:
                message.payload = None
            raise
        return {m.message_id: f for (m, _), f in zip(pointing, found, strict=True) if f}

    async def _fetch(self, message: Message, pointer: Pointer) -> PermanentFault | None:
        try:
            async with self._fetching:
                message.payload = await self._store.fetch(
                    pointer.bucket, pointer.key, self._settings.s3_bytes_max
                )
        except PermanentFault as fault:
            return fault.with_traceback(None)
        return None

    async def settle(self, messages: Sequence[Message], outcomes: Sequence[Outcome]) -> None:
        """Release the payloads; delete the objects of written messages if the settings say so.

        Best effort: an object may be left over, but none is deleted too early. Objects of
        quarantined messages stay for their replay.
        """
        done = (Outcome.WRITTEN, Outcome.DUPLICATE)
        written = [m for m, o in zip(messages, outcomes, strict=True) if o in done]
        if self._settings.s3_delete:
            pointers = [p for m in written if (p := self._envelope.pointer(m)) is not None]
            await asyncio.gather(*map(self._delete, pointers))
        for message in messages:
            message.payload = None

    async def _delete(self, pointer: Pointer) -> None:
        try:
            async with self._fetching:
                await self._store.delete(pointer.bucket, pointer.key)
        except (PermanentFault, TransientFault, FatalFault) as fault:
            log.warning("a payload was not deleted; it is of no more use", code=fault.code)
