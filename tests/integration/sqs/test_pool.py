"""The pool: bounded, last in first out, never lends what is not usable, never loses a waiter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from sqs2pg.errors import TransientFault
from sqs2pg.sqs.connection import HttpConnection
from sqs2pg.sqs.pool import ConnectionPool

from .loopback import Listen, answer, read_request

REQUEST = b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n"


async def at_once() -> None:
    """Let a dial go on."""


async def fail() -> None:
    raise TransientFault("down", code="aws_unreachable")


class House:
    """A server that answers at once, and the pools that dial it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.dialled = 0
        self.pools: list[ConnectionPool] = []
        self.before_dial = at_once

    async def dial(self, on_close: Callable[[HttpConnection], None]) -> HttpConnection:
        self.dialled += 1
        await self.before_dial()
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(
            lambda: HttpConnection(on_close), "127.0.0.1", self.port
        )
        return made

    def pool(
        self, connections_max: int, *, idle_s: float = 30, sweep_s: float = 30
    ) -> ConnectionPool:
        made = ConnectionPool(
            self.dial, connections_max=connections_max, idle_s=idle_s, sweep_s=sweep_s
        )
        self.pools.append(made)
        return made


@pytest.fixture
async def house(listen: Listen) -> AsyncIterator[House]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            writer.write(answer())

    made = House(await listen(serve))
    yield made
    for pool in made.pools:
        await pool.close()


async def settle() -> None:
    """Let every callback that is ready run."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_last_in_first_out(house: House) -> None:
    pool = house.pool(4)
    first, second = await pool.acquire(), await pool.acquire()
    pool.release(first)
    pool.release(second)
    assert await pool.acquire() is second
    assert pool.acquire_idle() is first
    assert pool.acquire_idle() is None
    assert house.dialled == 2


async def test_old_connections_are_passed_over(house: House) -> None:
    pool = house.pool(4)
    old = await pool.acquire()
    pool.release(old)
    assert pool.acquire_idle(0.0) is None
    new = await pool.acquire(0.0)
    assert new is not old
    assert pool.acquire_idle(30) is old


async def test_fresh_makes_room_by_closing_an_idle_one(house: House) -> None:
    pool = house.pool(1)
    old = await pool.acquire()
    pool.release(old)
    new = await pool.acquire(fresh=True)
    assert new is not old
    assert old.closed.done()
    assert pool.size == 1


async def test_waits_for_room_and_is_woken_by_a_return(house: House) -> None:
    pool = house.pool(2)
    held = [await pool.acquire(), await pool.acquire()]
    waiting = [asyncio.create_task(pool.acquire()) for _ in range(2)]
    await settle()
    assert not any(task.done() for task in waiting)
    for connection in held:
        pool.release(connection)
    assert {await task for task in waiting} == set(held)
    assert house.dialled == 2


async def test_is_woken_by_a_connection_that_broke(house: House) -> None:
    pool = house.pool(1)
    held = await pool.acquire()
    waiting = asyncio.create_task(pool.acquire())
    await settle()
    held.abort()
    pool.release(held)
    new = await waiting
    assert new is not held
    assert (await new.exchange(REQUEST, 30)).status == 200
    assert pool.size == 1


async def test_a_cancelled_waiter_passes_its_turn_on(house: House) -> None:
    pool = house.pool(1)
    held = await pool.acquire()
    first, second = asyncio.create_task(pool.acquire()), asyncio.create_task(pool.acquire())
    await settle()
    pool.release(held)  # wakes the first
    first.cancel()
    assert await second is held
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_failed_dial_gives_its_room_back(house: House) -> None:
    pool = house.pool(1)
    house.before_dial = fail
    for _ in range(3):
        with pytest.raises(TransientFault):
            await pool.acquire()
    assert pool.size == 0
    house.before_dial = at_once
    assert (await pool.acquire()).usable


async def test_a_failed_dial_wakes_the_next(house: House) -> None:
    pool = house.pool(1)
    go = asyncio.Event()

    async def fail_once() -> None:
        house.before_dial = at_once
        await go.wait()
        await fail()

    house.before_dial = fail_once
    first, second = asyncio.create_task(pool.acquire()), asyncio.create_task(pool.acquire())
    await settle()
    go.set()
    with pytest.raises(TransientFault):
        await first
    assert (await asyncio.wait_for(second, 30)).usable


async def test_a_cancelled_dial_gives_its_room_back(house: House) -> None:
    pool = house.pool(1)
    never = asyncio.Event()
    dialling = asyncio.Event()

    async def hang() -> None:
        dialling.set()
        await never.wait()

    house.before_dial = hang
    task = asyncio.create_task(pool.acquire())
    await dialling.wait()
    assert pool.size == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert pool.size == 0
    house.before_dial = at_once
    assert (await pool.acquire()).usable


async def test_unusable_connections_are_not_lent_again(house: House) -> None:
    pool = house.pool(4)
    broken, idle = await pool.acquire(), await pool.acquire()
    broken.abort()
    pool.release(broken)
    pool.release(idle)
    idle.abort()  # the server may close one that waits
    assert pool.acquire_idle() is None
    await idle.closed
    await broken.closed
    assert pool.size == 0


async def test_the_sweep_closes_what_idles_too_long(house: House) -> None:
    pool = house.pool(2, idle_s=0.0, sweep_s=0.001)
    connection = await pool.acquire()
    pool.release(connection)
    await asyncio.wait_for(connection.closed, 30)
    assert pool.size == 0


async def test_the_sweep_ends_an_exchange_that_is_silent(listen: Listen) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    house = House(await listen(serve))
    pool = house.pool(2, sweep_s=0.001)
    connection = await pool.acquire()
    with pytest.raises(TransientFault) as caught:
        await connection.exchange(REQUEST, 0.002)
    assert caught.value.code == "aws_timeout"
    pool.release(connection)
    await connection.closed
    assert pool.size == 0
    await pool.close()


async def test_close_ends_every_connection_and_every_wait(house: House) -> None:
    pool = house.pool(2)
    idle, held = await pool.acquire(), await pool.acquire()
    pool.release(idle)
    waiting = asyncio.create_task(pool.acquire(fresh=True))  # takes the idle one's place
    await waiting
    blocked = asyncio.create_task(pool.acquire())
    await settle()
    await pool.close()
    await pool.close()
    for task in (blocked, asyncio.create_task(pool.acquire())):
        with pytest.raises(TransientFault, match="closed"):
            await task
    assert held.closed.done()
    assert pool.size == 0


async def test_close_ends_a_dial_under_way(house: House) -> None:
    pool = house.pool(2)
    go = asyncio.Event()

    async def slow() -> None:
        await go.wait()

    house.before_dial = slow
    task = asyncio.create_task(pool.acquire())
    await settle()
    await pool.close()
    go.set()
    with pytest.raises(TransientFault, match="closed"):
        await task


async def test_many_tasks_share_few_connections(house: House) -> None:
    pool = house.pool(3)

    async def work() -> None:
        for _ in range(20):
            connection = await pool.acquire()
            try:
                assert (await connection.exchange(REQUEST, 30)).status == 200
            finally:
                pool.release(connection)

    await asyncio.gather(*(work() for _ in range(12)))
    assert house.dialled == 3
    assert pool.size == 3
