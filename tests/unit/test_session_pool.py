"""Sessions that pipelines share: how many are open, and who gets one."""

from __future__ import annotations

import asyncio

import pytest

from sqs2pg.errors import TransientFault
from sqs2pg.postgres.connection import NoSession, Session
from sqs2pg.postgres.session_pool import SessionPool, SessionPools


class Opened(NoSession):
    """A session that is open without a server."""

    def __init__(self) -> None:
        super().__init__()
        self.open = True

    @property
    def broken(self) -> bool:
        return not self.open

    async def close(self) -> None:
        self.open = False

    def abandon(self) -> None:
        self.open = False


async def connect() -> Session:
    return Opened()


async def lend(pool: SessionPool) -> Session:
    session = await pool.acquire()
    return Opened() if session.broken else session


async def test_sessions_are_used_again_and_bounded_and_given_in_order() -> None:
    pools = SessionPools(2)
    first, second = pools.join("db", connect), pools.join("db", connect)
    one, other = await lend(first), await lend(second)
    waiting = [asyncio.create_task(lend(pool)) for pool in (second, first, second)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    waiting[0].cancel()
    await asyncio.gather(waiting[0], return_exceptions=True)
    first.release(one)
    assert await waiting[1] is one
    second.release(other)
    assert await waiting[2] is other
    assert pools.open == 2
    first.release(one)
    second.release(other)
    await first.leave()
    assert not one.broken
    await second.leave()
    await second.leave()
    assert one.broken
    assert other.broken
    assert pools.open == 0


async def test_one_database_never_takes_all() -> None:
    pools = SessionPools(6)
    stuck, well = pools.join("stuck", connect), pools.join("well", connect)
    for _ in range(4):
        await lend(stuck)
    late = asyncio.create_task(lend(stuck))
    await asyncio.sleep(0)
    assert not late.done()
    one = await lend(well)
    assert not late.done(), "two are kept for the other database"
    other = await lend(well)
    well.release(one)
    well.release(other)
    await asyncio.sleep(0)
    assert not late.done()
    await well.leave()
    stuck.release(Opened())
    assert not (await late).broken


async def test_idle_sessions_of_another_database_make_room() -> None:
    pools = SessionPools(2)
    pool, other = pools.join("a", connect), pools.join("b", connect)
    await pool.fill(2)
    assert pools.open == 2
    session = await lend(other)
    assert pools.open == 2
    other.release(session)


async def test_a_failed_block_closes_its_session_and_a_broken_one_is_replaced() -> None:
    pools = SessionPools(1)
    pool = pools.join("db", connect)
    with pytest.raises(ZeroDivisionError):
        async with pool.lent() as session:
            raise ZeroDivisionError
    assert session.broken
    async with pool.lent() as again:
        assert again is not session
    assert not again.broken

    async def away() -> Session:
        raise TransientFault("away", code="postgres_08006")

    gone = pools.join("gone", away)
    for _ in range(3):  # a turn that came to nothing is given back
        with pytest.raises(TransientFault):
            async with gone.lent():
                pass
    async with pool.lent():
        pass


async def test_sessions_that_are_kept_for_several_are_closed_for_one() -> None:
    pools = SessionPools(2, kept_for=2)
    alone = pools.join("db", connect)
    async with alone.lent() as session:
        pass
    assert session.broken
    beside = pools.join("db", connect)
    async with alone.lent() as session:
        pass
    assert not session.broken
    await beside.leave()


async def test_a_database_that_does_not_answer_leaves_its_room_to_those_who_wait() -> None:
    asked, refuses = asyncio.Event(), asyncio.Event()

    async def refused() -> Session:
        asked.set()
        await refuses.wait()
        raise TransientFault("no answer", code="postgres_no_answer")

    pools = SessionPools(1)
    away, well = pools.join("away", refused), pools.join("well", connect)
    filling = asyncio.create_task(away.fill(1))
    await asked.wait()
    waiting = asyncio.create_task(lend(well))
    await asyncio.sleep(0)
    assert not waiting.done()
    refuses.set()
    with pytest.raises(TransientFault):
        await filling
    async with asyncio.timeout(10):
        await waiting
