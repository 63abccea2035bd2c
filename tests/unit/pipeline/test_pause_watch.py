"""The pause is read while a writer waits for a batch; the reader is made up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from sqs2pg.message import Message, SystemAttributes
from sqs2pg.pipeline import pause_watch
from sqs2pg.pipeline.buffer import Buffer
from sqs2pg.pipeline.pause_watch import PauseWatch
from sqs2pg.pipeline.quarantine_share import QuarantineShare
from sqs2pg.settings import Settings
from sqs2pg.telemetry.liveness import Liveness
from sqs2pg.telemetry.metrics import Metrics

LIMIT_S = 10.0


def messages(count: int) -> list[Message]:
    return [Message(f"m{i}", "h", "{}", SystemAttributes(sent_timestamp=0)) for i in range(count)]


class Reader:
    """Reads that the pipeline is not paused; `meanwhile` happens during each reading."""

    pipeline = 1

    def __init__(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        self.readings = 0
        self.reads = False
        self._meanwhile = meanwhile

    async def read(self, *_: object) -> list[tuple[Any, ...]]:
        assert not self.reads, "one thing at a time"
        self.readings, self.reads = self.readings + 1, True
        self._meanwhile()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self.reads = False
        return []

    async def run_alone(self, statement: str, parameters: Sequence[object]) -> Any:
        raise AssertionError


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> PauseWatch:
    """One that reads a hundred times a second."""
    monkeypatch.setattr(pause_watch, "EVERY_S", 0.01)
    share = QuarantineShare(SimpleNamespace(settled=0, settled_bad=0), 1, 1)
    return PauseWatch(Metrics(), Liveness(Settings()), share)


async def test_a_batch_that_fills_up_slowly_waits_no_longer_for_the_readings(
    watch: PauseWatch,
) -> None:
    buffer, reader = Buffer(full_at=100), Reader()
    buffer.put(messages(10), more=True)  # more are said to come, and none comes
    take = partial(buffer.take, 50, 0.2)
    assert len(await asyncio.wait_for(watch.during(reader, take), LIMIT_S)) == 10
    assert reader.readings > 2


async def test_what_comes_during_a_reading_is_returned_after_it(watch: PauseWatch) -> None:
    buffer = Buffer(full_at=100)

    def bring() -> None:
        if reader.readings == 3:
            buffer.put(messages(10))

    reader = Reader(bring)
    take = partial(buffer.take, 50, 0)
    assert len(await asyncio.wait_for(watch.during(reader, take), LIMIT_S)) == 10
    assert reader.readings == 3
    assert not reader.reads
    assert not buffer


async def test_a_writer_that_is_cancelled_leaves_nobody_waiting(watch: PauseWatch) -> None:
    buffer, reader = Buffer(full_at=100), Reader()
    waiting = asyncio.create_task(watch.during(reader, partial(buffer.take, 50, 0)))
    while reader.readings < 3:
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    buffer.put(messages(1))
    await asyncio.sleep(0)
    assert len(buffer) == 1
