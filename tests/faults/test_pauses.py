"""Pauses under load, while the queue delivers messages twice and loses the replies to deletes."""

from __future__ import annotations

import asyncio

from tests.waiting import until

from .world import WAIT_S, World, users

COUNT = 6_000
PAUSES = 3
RATE = 600
"""Messages per second: so that each pause finds more to come."""


def paused(world: World) -> bool:
    """Whether the worker says that it is paused and holds nothing."""
    return world.sql("SELECT state FROM sqs2pg.worker") == [("paused",)]


async def test_pauses_under_load_with_redeliveries_lose_and_double_nothing(world: World) -> None:
    names = users(COUNT)
    world.send_logins(names)
    world.server.set_faults("*", duplicate_share=0.05)
    world.server.set_faults("DeleteMessageBatch", lose_reply_share=0.2)
    process = world.spawn(
        SQS2PG_STATUS__POLL_S="0.2", SQS2PG_SOURCE__MESSAGES_PER_SECOND_MAX=str(RATE)
    )
    async with asyncio.timeout(WAIT_S):
        for turn in range(1, PAUSES + 1):
            await world.deleted(turn * COUNT // (PAUSES + 2))
            assert world.sql("SELECT changed FROM sqs2pg.pause(1, 'a test')") == [(True,)]
            await until(lambda: paused(world) or process.poll() is not None)
            assert process.poll() is None
            [before] = world.sql("SELECT count(*) FROM sqs2pg.delivery")
            assert before < (COUNT,), "it was not paused under load"
            world.sql("SELECT sqs2pg.resume(1, 'done')")
        world.server.set_faults("*", reset=True)
    process.terminate()
    world.finish(process)
    await world.drain()
    await world.check(names)
    world.check_queue_empty()
