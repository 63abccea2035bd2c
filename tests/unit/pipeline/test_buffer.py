"""The buffer's bound: when pollers wait, and when they continue."""

from __future__ import annotations

from sqs2pg.message import Message, SystemAttributes
from sqs2pg.pipeline.buffer import Buffer


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
