"""Pollers of several queues of one process; the queues are made up."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, cast

import msgspec
import pytest

from sqs2pg.message import Message, SystemAttributes
from sqs2pg.pipeline.buffer import Buffer
from sqs2pg.pipeline.pollers import Pollers
from sqs2pg.settings import Settings
from sqs2pg.sqs.gate import Gate
from sqs2pg.sqs.queue import QueueSource
from sqs2pg.sqs.turns import BATCHES, Turn, Turns
from sqs2pg.telemetry.liveness import Liveness
from sqs2pg.telemetry.metrics import Metrics

WHOLE = 200
QUEUES = 5


class Queue:
    """As much of a `QueueSource` as pollers use; it has `left` messages."""

    polls_max = turn_polls_max = 4
    held_count = 0

    def __init__(self, turns: Turns, left: int) -> None:
        self.turn = turns.join()
        self.receiving = self.turn.receiving
        self.room = Gate()
        self.left = left
        self.polled = asyncio.Event()
        """Set after each poll."""

    async def poll(self, **_: object) -> tuple[list[Message], int]:
        await asyncio.sleep(0.001 if self.left else 0.01)  # as a server would
        self.polled.set()
        count = min(10, self.left)
        self.left -= count
        attributes = SystemAttributes(sent_timestamp=0)
        return [Message(f"m{i}", "h", "{}", attributes) for i in range(count)], count


class Member:
    """The pollers and the writer of one queue."""

    def __init__(self, turns: Turns, left: int, **source: Any) -> None:
        settings = msgspec.convert({"sink": {"batch_rows_max": WHOLE}, "source": source}, Settings)
        self.queue = Queue(turns, left)
        self.buffer = Buffer(2 * WHOLE)
        self.batches: list[int] = []
        self.stopping = asyncio.Event()
        self.pollers = Pollers(
            cast("QueueSource", self.queue),
            self.buffer,
            settings,
            Metrics(),
            Liveness(settings),
            lambda _count: None,
        )
        self.tasks = [
            asyncio.create_task(self.pollers.run(self.stopping, None)),
            asyncio.create_task(self._write()),
        ]

    async def _write(self) -> None:
        while True:
            batch = await self.buffer.take(WHOLE, 0.005)
            self.batches.append(len(batch))
            await asyncio.sleep(0.001)  # as a database would
            self.buffer.done(batch)

    async def written(self, count: int) -> None:
        """Wait until so many messages were written."""
        while sum(self.batches) < count:
            await asyncio.sleep(0.001)

    async def close(self) -> None:
        self.stopping.set()
        run, write = self.tasks
        await run
        write.cancel()
        with suppress(asyncio.CancelledError):
            await write
        assert not self.queue.turn.held
        assert not self.queue.turn.asked


@pytest.fixture
async def turns() -> Turns:
    return Turns()


async def test_queues_with_a_backlog_take_turns_and_write_whole_batches(turns: Turns) -> None:
    members = [Member(turns, 10 * WHOLE) for _ in range(QUEUES)]
    async with asyncio.timeout(30):
        for member in members:
            await member.written(10 * WHOLE)
        for member in members:
            await member.close()
    batches = [size for member in members for size in member.batches]
    assert sum(batches) == QUEUES * 10 * WHOLE
    whole = sum(size for size in batches if size >= WHOLE // 2)
    assert whole > 0.8 * sum(batches), batches


async def test_a_turn_brings_several_batches_and_leaves_none_waiting(
    turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Turn] = []
    begin = Turn.begin

    def note(turn: Turn) -> None:
        given.append(turn)
        begin(turn)

    monkeypatch.setattr(Turn, "begin", note)
    # However late a writer looks by itself, the end of a turn wakes it.
    monkeypatch.setattr("sqs2pg.pipeline.buffer.TURN_LOOK_S", 30)
    monkeypatch.setattr("sqs2pg.pipeline.buffer.TURN_WAIT_S", 30)
    in_turns = 3
    members = [Member(turns, in_turns * BATCHES * WHOLE) for _ in range(QUEUES)]
    async with asyncio.timeout(20):
        for member in members:
            await member.written(in_turns * BATCHES * WHOLE)
        for member in members:
            await member.close()
    # A full buffer ends a turn early, and the first messages and the last ones need one each.
    assert len(given) <= QUEUES * (2 * in_turns + 2), len(given)
    batches = sum(len(member.batches) for member in members)
    assert batches <= QUEUES * (in_turns * BATCHES + in_turns + 2), batches


async def test_a_queue_without_a_backlog_waits_for_nobody(turns: Turns) -> None:
    busy = [Member(turns, 10**9) for _ in range(QUEUES)]
    async with asyncio.timeout(30):
        while not any(member.queue.turn.contested for member in busy):
            await asyncio.sleep(0.001)
        trickle = Member(turns, 0)
        for count in range(1, 6):
            trickle.queue.left = 1
            await trickle.written(count)
        assert any(member.queue.turn.contested for member in busy)
        assert trickle.batches == [1] * 5
        for member in (*busy, trickle):
            member.queue.left = 0
            await member.close()


async def test_a_batch_is_to_fill_while_others_wait_unless_there_is_no_room(turns: Turns) -> None:
    members = [Member(turns, 10**9) for _ in range(QUEUES)]

    def filling() -> list[Member]:
        return [m for m in members if m.queue.turn.contested and not m.buffer.full]

    async with asyncio.timeout(30):
        while not filling():
            await asyncio.sleep(0.001)
        one = filling()[0]
        assert one.buffer.fills(WHOLE)
        one.queue.room.close()
        assert not one.buffer.fills(WHOLE), "nothing can come that would fill it"
        one.queue.room.open()
        for member in members:
            member.queue.left = 0
            await member.close()


async def test_one_that_cannot_write_keeps_no_other_one_from_receiving(
    turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sqs2pg.sqs.turns.TURN_S", 0.05)
    monkeypatch.setattr("sqs2pg.pipeline.pollers.LAST_POLLS_S", 0.1)  # of those that are stuck
    members = [Member(turns, 10 * WHOLE) for _ in range(QUEUES)]
    stuck = members[:3]
    for member in stuck:
        member.tasks[1].cancel()  # it takes no batch, as behind a lock
    async with asyncio.timeout(30):
        for member in members[3:]:
            await member.written(10 * WHOLE)
        assert all(len(member.buffer) <= 2 * WHOLE + 40 for member in stuck)
        for member in members:
            await member.close()


async def test_one_whose_database_is_away_has_no_turn(turns: Turns) -> None:
    members = [Member(turns, 10**9) for _ in range(QUEUES)]
    async with asyncio.timeout(30):
        while not all(member.queue.turn.held or member.queue.turn.asked for member in members):
            await asyncio.sleep(0.001)
        for member in members[1:]:
            member.pollers.gate.close()
        while not members[0].queue.turn.held or members[0].queue.turn.contested:
            await asyncio.sleep(0.001)
        assert not any(member.queue.turn.held for member in members[1:])
        for member in members:
            member.queue.left = 0
            member.pollers.gate.open()
            await member.close()


async def test_a_limited_pipeline_takes_no_turn(turns: Turns) -> None:
    member = Member(turns, 10**9, messages_per_second_max=100_000)
    async with asyncio.timeout(30):
        await member.written(5 * WHOLE)
        assert not member.queue.turn.held
        member.queue.left = 0
        await member.close()


async def test_pollers_become_fewer_once_fewer_are_enough(turns: Turns) -> None:
    member = Member(turns, 10**9)
    member.queue.polls_max = member.queue.turn_polls_max = 100
    enough = 12
    member.queue.receiving.concurrency = lambda _requests: enough  # type: ignore[method-assign]
    async with asyncio.timeout(30):
        while member.pollers.running < enough:
            await member.queue.polled.wait()
            member.queue.polled.clear()
        enough = 3
        while member.pollers.running > enough:
            await member.queue.polled.wait()
            member.queue.polled.clear()
        await member.written(sum(member.batches) + 3 * WHOLE)
        assert member.pollers.running == enough
        member.queue.left = 0
        await member.close()
