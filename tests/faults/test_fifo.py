"""Message groups under faults: each message is written once and in order, whatever breaks."""

from __future__ import annotations

import pytest

from tests.logins import login

from .proxy import Act, Fault
from .world import COPY_TARGET, DELETE, FIRST_STATEMENTS, LAST_STATEMENTS, World

FIFO = "logins.fifo"
GROUPS = ("a", "b", "c")
EACH = 30


def send_groups(world: World) -> list[str]:
    """Send every group's logins, the groups in turn; return the users in the order sent."""
    world.queue(FIFO, FifoQueue="true")
    names = [f"{group}-{number:03}" for number in range(EACH) for group in GROUPS]
    for start in range(0, len(names), 10):
        entries = [
            {
                "Id": str(index),
                "MessageBody": login(name),
                "MessageGroupId": name[0],
                "MessageDeduplicationId": name,
            }
            for index, name in enumerate(names[start : start + 10])
        ]
        world.server.call("SendMessageBatch", {"QueueUrl": FIFO, "Entries": entries})
    return names


def check_order(world: World) -> None:
    """The rows of each group stand in the table in the order they were sent in."""
    # A table that was only ever inserted into is in its physical order.
    found = [row[0] for row in world.sql("SELECT user_id FROM user_logins ORDER BY ctid")]
    for group in GROUPS:
        own = [name for name in found if name.startswith(group)]
        assert own == sorted(own), f"group {group} is out of order"


@pytest.mark.parametrize(
    "fault",
    [
        Fault(act=Act.RESET, after=FIRST_STATEMENTS, times=3),
        Fault(act=Act.RESET, after=COPY_TARGET, at=500, times=3),
        Fault(act=Act.RESET, after=LAST_STATEMENTS, on_reply=True, times=3),
    ],
    ids=["before", "mid-copy", "lost-commit"],
)
async def test_groups_stay_in_order_through_cut_connections(world: World, fault: Fault) -> None:
    cut = world.postgres.arm(fault)
    names = send_groups(world)
    async with world.consuming(source={"queue": FIFO}) as running:
        await running.until(cut.fired(3))
        await running.until(world.deleted(len(names)))
    check_order(world)
    await world.check(names)


async def test_groups_stay_in_order_through_a_kill_between_commit_and_delete(
    world: World,
) -> None:
    held = world.sqs.arm(Fault(act=Act.STALL, after=DELETE, times=None))
    names = send_groups(world)
    killed = world.spawn(SQS2PG_SOURCE__QUEUE=FIFO)
    await held.fired()
    world.kill(killed)
    world.sqs.cut()
    held.release()
    totals = await world.drain(source={"queue": FIFO})
    assert totals.duplicate > 0
    assert totals.written + totals.duplicate == len(names)
    check_order(world)
    await world.check(names)
