"""The pause is read while a writer waits for a batch; the reader is made up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from sqs2pg.errors import TransientFault
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


class Several(Reader):
    """Reads that pipeline 2 is paused, where it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[int]] = []

    async def read(self, *arguments: Any) -> list[tuple[Any, ...]]:
        [asked] = arguments[1]
        self.asked.append(asked)
        return [(2, "by_operator", "somebody", "", 0.0)] if 2 in asked else []


async def test_one_reads_for_all_pipelines_of_a_database(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pause_watch, "EVERY_S", 600.0)
    share = QuarantineShare(SimpleNamespace(settled=0, settled_bad=0), 1, 1)
    beside: dict[int, PauseWatch] = {}
    one, other = (PauseWatch(Metrics(), Liveness(Settings()), share) for _ in range(2))
    one.join(beside, 1)
    other.join(beside, 2)
    reader = Several()
    assert other.is_due()
    assert await one.look(reader)
    assert reader.asked == [[1, 2]]
    assert (one.is_due(), other.is_due()) == (False, False)
    assert one.pause is None
    assert other.pause is not None
    assert (one.changed.is_set(), other.changed.is_set()) == (False, True)
    other.leave()
    assert await one.look(reader)
    assert reader.asked[1:] == [[1]]


async def test_a_reading_that_fails_is_made_by_another_one_soon(watch: PauseWatch) -> None:
    class Away(Several):
        async def read(self, *_: Any) -> list[tuple[Any, ...]]:
            raise TransientFault("away", code="postgres_08006")

    share = QuarantineShare(SimpleNamespace(settled=0, settled_bad=0), 1, 1)
    other = PauseWatch(Metrics(), Liveness(Settings()), share)
    beside: dict[int, PauseWatch] = {}
    watch.join(beside, 1)
    other.join(beside, 2)
    read_at = other.read_at
    assert not await watch.look(Away())
    assert other.read_at == read_at
    assert other.wait_s() <= pause_watch.MEANWHILE_S
