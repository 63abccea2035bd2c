"""What the queues of one process tell of the bytes that they hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from sqs2pg.message import Message, SystemAttributes
from sqs2pg.settings import SourceSettings
from sqs2pg.sqs.client import SqsClient
from sqs2pg.sqs.in_flight import MESSAGE_BYTES, InFlight
from sqs2pg.sqs.queue import QueueSource
from sqs2pg.sqs.wire import BATCH_MAX, EntryFailure
from sqs2pg.telemetry.metrics import Metrics

POLLS = 200
BODY = "x" * 1000


class Client:
    """Brings ten messages with each poll, and deletes what it is told to."""

    skew_s = 0.0

    def __init__(self) -> None:
        self._count = 0

    async def receive_while(
        self, _take: Callable[[list[Message]], bool], _url: str, **_: Any
    ) -> list[Message]:
        first, self._count = self._count, self._count + BATCH_MAX
        attributes = SystemAttributes(sent_timestamp=0)
        return [Message(f"m{n}", "h", BODY, attributes) for n in range(first, self._count)]

    async def delete_batches(self, _batches: object) -> list[EntryFailure]:
        return []


async def test_a_load_is_noted_in_steps_that_are_never_too_low(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    noted: list[int] = []
    note = InFlight.note

    def count(budget: InFlight, queue: object, load: int) -> None:
        noted.append(load)
        note(budget, queue, load)

    monkeypatch.setattr(InFlight, "note", count)
    budget = InFlight(100_000_000)
    client = cast("SqsClient", Client())
    busy, _idle = (
        QueueSource(client, f"https://{name}", SourceSettings(), Metrics(), in_flight=budget)
        for name in ("busy", "idle")
    )
    held: list[Message] = []
    for polls in range(1, POLLS + 1):
        messages, _ = await busy.poll()
        held += messages
        true = polls * BATCH_MAX * (len(BODY) + MESSAGE_BYTES)
        assert true <= noted[-1] < true + budget.step
    assert len(noted) < POLLS, "most polls change no step"
    busy.acknowledge(held)
    await busy.acknowledged()
    assert noted[-1] == 0
    assert budget.bytes == 0
