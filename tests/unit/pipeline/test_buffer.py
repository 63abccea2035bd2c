"""The intake's bound: when pollers are to wait, and when to go on."""

from __future__ import annotations

from sqs2pg.message import Message, SystemAttributes
from sqs2pg.pipeline.buffer import Intake


def messages(count: int, group: str | None = None) -> list[Message]:
    attributes = SystemAttributes(sent_timestamp=0, message_group_id=group)
    return [Message(f"m{i}", "h", "{}", attributes) for i in range(count)]


async def test_it_is_full_until_half_of_it_was_taken() -> None:
    intake = Intake(full_at=20)
    intake.put(messages(10))
    assert not intake.full
    assert not intake.would_fill(9)
    assert intake.would_fill(10)
    intake.put(messages(12))
    assert intake.full
    await intake.take(11, 0)
    assert intake.full, "eleven are left"
    assert intake.would_fill(1)
    await intake.take(1, 0)
    assert not intake.full
    await intake.room()


async def test_nothing_is_refused() -> None:
    intake = Intake(full_at=10)
    intake.put(messages(25))
    assert len(await intake.take(50, 0)) == 25


async def test_a_busy_group_does_not_keep_it_full_for_ever() -> None:
    intake = Intake(full_at=10)
    first = messages(5, "g")
    intake.put(first)
    assert await intake.take(5, 0) == first
    intake.put(messages(12, "g"))
    assert intake.full
    intake.done(first)
    await intake.take(7, 0)
    assert not intake.full
