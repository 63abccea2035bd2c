"""Turns: a few queues at a time, in order, and none for ever."""

from __future__ import annotations

import asyncio

import pytest

from sqs2pg.sqs import turns as module
from sqs2pg.sqs.turns import AT_ONCE, ONE_IN, Turn, Turns


def held(members: list[Turn]) -> list[int]:
    return [number for number, turn in enumerate(members) if turn.held]


async def test_a_few_at_a_time_in_the_order_in_which_they_asked() -> None:
    turns = Turns()
    members = [turns.join() for _ in range(AT_ONCE + 3)]
    coming = [asyncio.create_task(turn.come()) for turn in members]
    again = asyncio.create_task(members[-1].come())  # of the same queue
    await asyncio.sleep(0)
    assert held(members) == list(range(AT_ONCE))
    assert members[0].contested
    members[AT_ONCE].end()  # one that waits leaves
    await coming[AT_ONCE]
    members[0].end()
    members[0].end()
    await coming[AT_ONCE + 1]
    assert held(members) == [*range(1, AT_ONCE), AT_ONCE + 1]
    coming[0] = asyncio.create_task(members[0].come())
    await asyncio.sleep(0)
    assert not members[0].held, "it has had its turn"
    members[1].end()
    await asyncio.gather(coming[-1], again)
    assert not members[0].held
    members[AT_ONCE + 1].end()
    await coming[0]
    assert members[0].held
    assert not members[0].contested


async def test_one_alone_keeps_its_turn_until_another_one_wants_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "TURN_S", 0.01)
    turns = Turns()
    members = [turns.join() for _ in range(AT_ONCE + 1)]
    for turn in members[:AT_ONCE]:
        await turn.come()
    await asyncio.sleep(0.05)  # time passes: that is what is tried
    assert held(members) == list(range(AT_ONCE))
    async with asyncio.timeout(10):
        await members[AT_ONCE].come()  # though nobody gives up
    assert members[AT_ONCE].held
    assert len(held(members)) == AT_ONCE
    for turn in members:
        turn.end()


async def test_more_have_a_turn_where_very_many_want_one() -> None:
    turns = Turns()
    members = [turns.join() for _ in range((AT_ONCE + 2) * ONE_IN)]
    coming = [asyncio.create_task(turn.come()) for turn in members]
    await asyncio.sleep(0)
    assert len(held(members)) == AT_ONCE + 2
    for turn in members:
        turn.end()
    await asyncio.gather(*coming)
    assert held(members) == []
