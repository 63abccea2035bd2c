"""What pipelines that start together read once for all of them."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable

import pytest

from sqs2pg.errors import TransientFault
from sqs2pg.runners.start_reads import SharedReads, read_alone

Read = Callable[[], Awaitable[int]]


def counter() -> tuple[list[int], Read]:
    """Return the readings so far, and what reads."""
    read: list[int] = []

    async def count() -> int:
        read.append(len(read))
        await asyncio.sleep(0)
        return read[-1]

    return read, count


async def test_starts_that_are_under_way_together_read_once() -> None:
    shared, (read, count) = SharedReads(), counter()
    starts = [shared.begin("one") for _ in range(50)]
    found = await asyncio.gather(*(start.once("keys", count) for start in starts))
    assert (found, read) == ([0] * 50, [0])


async def test_a_start_uses_nothing_that_was_read_before_it_began() -> None:
    shared, (_, count) = SharedReads(), counter()
    first = shared.begin("one")
    assert await first.once("keys", count) == 0
    second = shared.begin("one")
    assert await second.once("keys", count) == 1
    assert await first.once("keys", count) == 1, "what is newer will do"


async def test_databases_and_what_is_read_are_kept_apart() -> None:
    shared, (_, count) = SharedReads(), counter()
    one, other = shared.begin("one"), shared.begin("other")
    assert await one.once("keys", count) == 0
    assert await one.once("record", count) == 1
    assert await other.once("keys", count) == 2


async def test_a_fault_is_not_shared() -> None:
    shared, (_, count) = SharedReads(), counter()
    starts = [shared.begin("one") for _ in range(3)]

    async def fail() -> int:
        raise TransientFault("away", code="postgres_08006")

    for start in starts[:2]:
        with pytest.raises(TransientFault):
            await start.once("keys", fail)
    assert await starts[2].once("keys", count) == 0


async def test_one_that_is_cancelled_leaves_the_reading_to_the_next() -> None:
    shared, (_, count) = SharedReads(), counter()
    first, second = shared.begin("one"), shared.begin("one")
    hangs = asyncio.create_task(first.once("keys", asyncio.Event().wait))
    await asyncio.sleep(0)
    waits = asyncio.create_task(second.once("keys", count))
    await asyncio.sleep(0)
    hangs.cancel()
    assert await waits == 0


async def test_nothing_is_kept_once_no_start_is_under_way() -> None:
    class Keys:
        pass

    async def load() -> Keys:
        return Keys()

    shared = SharedReads()
    first, second = shared.begin("one"), shared.begin("one")
    keys = weakref.ref(await first.once("keys", load))
    first.end()
    assert await second.once("keys", load) is keys()
    second.end()
    assert keys() is None


async def test_without_others_everything_is_read() -> None:
    read, count = counter()
    assert [await read_alone("keys", count), await read_alone("keys", count)] == [0, 1]
    assert read == [0, 1]
