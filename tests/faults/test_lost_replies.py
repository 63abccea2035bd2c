"""Calls that took effect but were never answered, and leases that ran out: still written once."""

from __future__ import annotations

import pytest

from .proxy import Act, Fault
from .world import DELETE, EXTEND, FIRST_STATEMENTS, LAST_STATEMENTS, RECEIVE, Met, World, users

COUNT = 60
ONE_WRITER = {"connections": 1}


async def test_a_commit_whose_reply_is_lost_is_recognised(world: World, met: Met) -> None:
    """The consumer cannot know that the rows are there; the next try learns it from the ledger."""
    lost = world.postgres.arm(Fault(act=Act.RESET, after=LAST_STATEMENTS, on_reply=True))
    world.send_logins(users(COUNT))
    async with world.consuming(sink=ONE_WRITER) as running:
        await running.until(lost.fired())
        await running.until(world.deleted(COUNT))
    assert lost.count == 1
    assert met.codes["postgres_08006"]
    assert running.totals.duplicate > 0
    assert running.totals.written + running.totals.duplicate == COUNT
    await world.check(users(COUNT))


async def test_a_commit_that_never_arrives_is_done_again(world: World, met: Met) -> None:
    """The opposite case, which the consumer cannot tell apart: nothing was committed."""
    cut = world.postgres.arm(Fault(act=Act.RESET, after=LAST_STATEMENTS))
    world.send_logins(users(COUNT))
    async with world.consuming(sink=ONE_WRITER) as running:
        await running.until(cut.fired())
        await running.until(world.deleted(COUNT))
    assert cut.count == 1
    assert met.codes["postgres_08006"]
    assert running.totals.written == COUNT
    assert running.totals.duplicate == 0
    await world.check(users(COUNT))


async def test_a_delete_whose_reply_is_lost_is_repeated(world: World) -> None:
    world.server.set_faults("DeleteMessageBatch", lose_reply_share=1, times=3)
    world.send_logins(users(COUNT))
    async with world.consuming() as running:
        await running.until(world.deleted(COUNT))
    assert world.fired("DeleteMessageBatch", "lose_reply") == 3
    assert running.totals.written == COUNT
    world.check_queue_empty()
    await world.check(users(COUNT))


async def test_a_delete_that_is_given_up_comes_again_and_changes_nothing(
    world: World, met: Met
) -> None:
    """No delete gets through for a while: messages are delivered again and recognised."""
    cut = world.sqs.arm(Fault(act=Act.RESET, after=DELETE, times=None))
    world.send_logins(users(COUNT))
    async with world.consuming() as running:
        # Each delete is tried three times by the source, twice each time by the client.
        await running.until(met("aws_connection", 3 * COUNT // 10))
        cut.release()
        await running.until(world.deleted(COUNT))
    assert cut.count >= 6 * COUNT // 10
    assert running.totals.written == COUNT
    assert running.totals.duplicate == sum(line.receives - 1 for line in world.manifest()) > 0
    world.check_queue_empty()
    await world.check(users(COUNT))


async def test_a_receive_whose_reply_is_lost_comes_again(world: World) -> None:
    """SQS counts the messages as delivered; nobody holds them until their timeout ends."""
    world.server.set_faults("ReceiveMessage", lose_reply_share=1, times=2)
    world.send_logins(users(COUNT))
    async with world.consuming() as running:
        await running.until(world.deleted(COUNT))
    assert world.fired("ReceiveMessage", "lose_reply") == 2
    assert sorted({line.receives for line in world.manifest()}) == [1, 2]
    assert running.totals.written == COUNT
    await world.check(users(COUNT))


async def test_a_receive_cut_in_mid_reply_comes_again(world: World) -> None:
    """The client has seen half of the messages' text, and must use none of it."""
    world.send_logins(users(COUNT))
    lost = world.sqs.arm(Fault(act=Act.RESET, after=RECEIVE, on_reply=True, times=2))
    async with world.consuming() as running:
        await running.until(lost.fired(2))
        await running.until(world.deleted(COUNT))
    assert running.totals.written == COUNT
    await world.check(users(COUNT))


@pytest.mark.parametrize("moment", [FIRST_STATEMENTS, LAST_STATEMENTS], ids=["before", "mid-batch"])
async def test_a_visibility_expiry_mid_batch_is_written_once(world: World, moment: bytes) -> None:
    """One consumer is stuck on the database and cannot renew its leases; another gets them all.

    Before its first statement the second one writes, and the first finds duplicates. In its
    transaction the second waits for the first, and finds duplicates.
    """
    stuck = world.postgres.arm(Fault(act=Act.STALL, after=moment))
    unrenewed = world.sqs.arm(Fault(act=Act.STALL, after=EXTEND, times=None))
    world.send_logins(users(10))
    # These ten fill its budget, so it does not receive them again itself.
    full = {"in_flight_messages_max": 10}
    async with world.consuming(sink=ONE_WRITER, source=full) as first:
        await first.until(stuck.fired())
        await first.until(unrenewed.fired())
        assert await first.until(world.reached("visible", 10))
        async with world.consuming(sink={"dsn": world.database}) as second:
            assert await second.until(world.reached("received", 20))
            if moment == FIRST_STATEMENTS:
                await second.until(world.deleted(10))
                assert second.totals.written == 10
            stuck.release()
            unrenewed.release()
            await second.until(world.deleted(10))
    assert first.totals.written + second.totals.written == 10
    assert first.totals.duplicate + second.totals.duplicate >= 10
    assert max(line.receives for line in world.manifest()) >= 2
    world.check_queue_empty()
    await world.check(users(10))
