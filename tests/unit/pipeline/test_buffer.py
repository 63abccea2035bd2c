"""The buffer's bound: when pollers wait, and when they continue."""

from __future__ import annotations

import asyncio

import pytest

from sqs2pg.message import Message, SystemAttributes
from sqs2pg.pipeline import buffer as module
from sqs2pg.pipeline.buffer import BACKLOG_LINGERS, BACKLOG_REPLIES, Buffer

pytestmark = pytest.mark.timeout(30)  # what is wrong here waits for ever


def messages(count: int, group: str | None = None) -> list[Message]:
    attributes = SystemAttributes(sent_timestamp=0, message_group_id=group)
    return [Message(f"m{i}", "h", "{}", attributes) for i in range(count)]


async def test_a_full_buffer_stays_full_until_half_is_taken() -> None:
    buffer = Buffer(full_at=20)
    buffer.put(messages(10))
    assert not buffer.full
    assert not buffer.would_fill(9)
    assert buffer.would_fill(10)
    buffer.put(messages(12))
    assert buffer.full
    await buffer.take(11, 0)
    assert buffer.full, "eleven are left"
    assert buffer.would_fill(1)
    await buffer.take(1, 0)
    assert not buffer.full
    await buffer.room()


async def test_a_full_buffer_still_takes_messages() -> None:
    buffer = Buffer(full_at=10)
    buffer.put(messages(25))
    assert len(await buffer.take(50, 0)) == 25


async def test_a_busy_group_does_not_keep_it_full_for_ever() -> None:
    buffer = Buffer(full_at=10, fifo=True)
    first = messages(5, "g")
    buffer.put(first)
    assert await buffer.take(5, 0) == first
    buffer.put(messages(12, "g"))
    assert buffer.full
    buffer.done(first)
    await buffer.take(7, 0)
    assert not buffer.full


async def test_a_busy_group_of_a_fifo_queue_waits_and_of_a_standard_queue_does_not() -> None:
    for fifo in (True, False):
        buffer = Buffer(fifo=fifo)
        first, second, other = messages(1, "g"), messages(1, "g"), messages(1, "h")
        buffer.put(first)
        assert await buffer.take(5, 0) == first
        buffer.put(second)
        buffer.put(other)
        assert await buffer.take(5, 0) == (other if fifo else second + other)
        buffer.done(first)
        if fifo:
            assert await buffer.take(5, 0) == second


async def waits(buffer: Buffer, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return how long a batch waits to fill up, seconds, one wait after another."""
    waited: list[float] = []

    async def linger(_rows_max: int, linger_s: float) -> None:
        waited.append(linger_s)

    monkeypatch.setattr(buffer, "_linger", linger)
    await buffer.take(1_000, 1.0)
    return waited


@pytest.mark.parametrize(
    ("full", "others", "waited"),
    [
        (BACKLOG_REPLIES - 1, 0, [1.0]),
        (BACKLOG_REPLIES, 0, [1.0, BACKLOG_LINGERS - 1.0]),
        (2 * BACKLOG_REPLIES, 1, [1.0, BACKLOG_LINGERS - 1.0]),
        (2 * BACKLOG_REPLIES, 2, [1.0]),
    ],
)
async def test_a_batch_waits_longer_while_the_queue_has_a_backlog(
    monkeypatch: pytest.MonkeyPatch, full: int, others: int, waited: list[float]
) -> None:
    buffer = Buffer(full_at=20_000)
    buffer.put(messages(1))
    await buffer.take(1, 0)  # while this one is written, the next one lingers
    for _ in range(full):
        buffer.put(messages(10), more=True)
    for _ in range(others):
        buffer.put(messages(9))
    assert await waits(buffer, monkeypatch) == waited


async def test_a_batch_that_fills_up_in_a_backlog_is_taken_at_once() -> None:
    buffer = Buffer(full_at=20_000)
    for _ in range(BACKLOG_REPLIES):
        buffer.put(messages(10), more=True)
    taking = asyncio.create_task(buffer.take(500, 60.0))
    await asyncio.sleep(0)
    buffer.put(messages(340), more=True)
    assert len(await asyncio.wait_for(taking, 30.0)) == 500


def with_backlog(count: int) -> Buffer:
    buffer = Buffer(full_at=1_000)
    for _ in range(BACKLOG_REPLIES - 1):
        buffer.put([], more=True)
    assert not buffer.backlog
    buffer.put(messages(count), more=True)
    assert buffer.backlog
    return buffer


async def test_a_batch_fills_up_in_the_turn_of_its_queue() -> None:
    buffer = with_backlog(10)
    asked: list[int] = []

    def fills(count: int) -> bool:
        asked.append(count)
        return True

    buffer.fills = fills
    taking = asyncio.create_task(buffer.take(500, 0.001))
    while not asked:
        await asyncio.sleep(0.001)
    buffer.put(messages(489), more=True)
    await asyncio.sleep(0)
    assert not taking.done()
    buffer.put(messages(10), more=True)
    assert len(await asyncio.wait_for(taking, 30.0)) == 500
    assert asked[0] == 10


async def test_a_batch_waits_no_longer_than_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TURN_LOOK_S", 0.001)
    buffer, turn = with_backlog(10), True
    buffer.fills = lambda _count: turn
    taking = asyncio.create_task(buffer.take(500, 0.001))
    await asyncio.sleep(0.05)  # time passes: that is what is tried
    assert not taking.done()
    turn = False
    assert len(await asyncio.wait_for(taking, 30.0)) == 10
    turn = True
    monkeypatch.setattr(module, "TURN_WAIT_S", 0.01)
    buffer.put(messages(10), more=True)
    assert len(await asyncio.wait_for(buffer.take(500, 0.001), 30.0)) == 10


async def test_a_buffer_that_is_held_has_room_once_a_batch_is_taken() -> None:
    buffer = Buffer(full_at=100)
    buffer.put(messages(50))
    buffer.hold()
    assert not buffer.full, "a half may wait"
    buffer.put(messages(1))
    buffer.hold()
    assert buffer.full
    await buffer.take(50, 0)
    assert not buffer.full
