"""A database that is away for long: leases hold, nothing is delivered again, memory stays flat."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from .proxy import Act, Fault
from .world import COPY_TARGET, QUEUE, VISIBILITY_S, Met, World, users

COUNT = 60
AWAY_TIMEOUTS = 5
"""Five minutes are five visibility timeouts of the default, sixty seconds."""
GROWTH_MAX = 1.10
IN_HAND = 500


async def test_a_batch_held_three_times_its_timeout_is_delivered_once(world: World) -> None:
    stuck = world.postgres.arm(Fault(act=Act.STALL, after=COPY_TARGET))
    world.send_logins(users(COUNT))
    async with world.consuming(sink={"connections": 1}) as running:
        await running.until(stuck.fired())
        assert await running.until(world.reached("in_flight", COUNT))
        # Bounded by an event that must not happen: a message becomes visible again.
        held_s = 3 * VISIBILITY_S + 0.5
        assert not await running.until(world.reached("visible", 1, timeout_s=held_s))
        assert world.server.stats()["in_flight"] == COUNT
        stuck.release()
        await running.until(world.deleted(COUNT))
    assert [line.receives for line in world.manifest()] == [1] * COUNT
    assert running.totals.written == COUNT
    await world.check(users(COUNT))


async def test_receiving_stops_while_the_database_is_away(world: World, met: Met) -> None:
    world.send_logins(users(COUNT))
    async with world.consuming(source={"receivers_max": 2}) as running:
        await running.until(world.deleted(COUNT))
        world.postgres.down()
        world.send_logins(users(COUNT, "during"))
        await running.until(met("postgres_08001", 3))
        received = world.server.stats()["received"]
        world.send_logins(users(10 * COUNT, "later"))
        # Two polls may have been under way when it stopped; a third is one too many.
        assert not await running.until(world.reached("received", received + 21, timeout_s=2))
        world.postgres.up()
        await running.until(world.deleted(12 * COUNT))
    assert {line.receives for line in world.manifest()} == {1}
    await world.check([*users(COUNT), *users(COUNT, "during"), *users(10 * COUNT, "later")])


@pytest.mark.parametrize("backlog", [100_000, pytest.param(1_000_000, marks=pytest.mark.system)])
async def test_a_database_away_for_long_costs_no_receive_and_no_memory(
    world: World, backlog: int
) -> None:
    """The consumer is a process with a backlog, so that its memory can be measured."""
    policy = {"deadLetterTargetArn": arn(world.queue("dead")), "maxReceiveCount": 2}
    attributes = {"RedrivePolicy": json.dumps(policy)}
    world.server.call("SetQueueAttributes", {"QueueUrl": QUEUE, "Attributes": attributes})
    world.server.fill(QUEUE, backlog, people=5_000, seed=3)
    process = world.spawn(SQS2PG_SOURCE__IN_FLIGHT_MESSAGES_MAX=str(IN_HAND))
    await world.deleted(5_000)
    world.postgres.down()
    assert await world.reached("in_flight", IN_HAND // 2)
    away = [resident_bytes(process.pid)]
    received = world.server.stats()["received"]
    for _ in range(AWAY_TIMEOUTS):
        # Never reached: it serves as the clock of this test and as an alarm.
        assert not await world.reached("moved", 1, timeout_s=VISIBILITY_S)
        away.append(resident_bytes(process.pid))
        assert process.poll() is None
    stats = world.server.stats()
    # Receiving stops: only polls that were already under way still bring messages.
    assert stats["received"] - received <= IN_HAND
    assert stats["in_flight"] <= IN_HAND
    assert max(away) <= away[0] * GROWTH_MAX, away
    world.postgres.up()
    settled = int(stats["deleted"])
    await world.deleted(settled + 10_000)
    assert resident_bytes(process.pid) <= max(away) * GROWTH_MAX
    process.terminate()
    totals = world.finish(process)
    assert totals["written"] >= settled
    assert max(line.receives for line in world.manifest()) == 1
    assert world.server.stats()["queues"]["dead"] == {"visible": 0, "in_flight": 0, "delayed": 0}


def arn(queue_url: str) -> str:
    """The ARN of a queue of the test's server."""
    return f"arn:aws:sqs:us-east-1:000000000000:{queue_url.rpartition('/')[2]}"


def resident_bytes(pid: int) -> int:
    """Memory that a process has in RAM. Source: proc(5), /proc/pid/statm."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
