"""A start that meets a fault that passes is tried again for `start_timeout_s`."""

from __future__ import annotations

import asyncio

import pytest

from sqs2pg.cli.embedded import Postgres
from tests.shell import told_error
from tests.waiting import until

from .world import World, emptied, users

COUNT = 20
AGAIN = "it is tried again"


@pytest.fixture
def database(server: Postgres) -> str:
    """Its one database, without our tables."""
    return emptied(server)


def said(world: World) -> str:
    return world.stderr_of(0).read_text()


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_database_that_restarts_is_waited_for(
    world: World, server: Postgres, workers: str
) -> None:
    world.send_logins(users(COUNT))
    server.stop("immediate")
    process = world.spawn("--drain", "--workers", workers, SQS2PG_START_TIMEOUT_S="100")
    await until(lambda: AGAIN in said(world))
    server.start()
    assert (await asyncio.to_thread(world.finish, process))["written"] == COUNT
    assert "postgres_08001" in said(world)
    await world.check(users(COUNT))


@pytest.mark.parametrize(
    "fault", [{"throttle_share": 1.0, "times": 3}, {"error_share": 1.0, "times": 3}]
)
@pytest.mark.parametrize("call", ["GetQueueUrl", "GetQueueAttributes"])
async def test_a_call_that_fails_a_few_times_is_made_again(
    world: World, call: str, fault: dict[str, float]
) -> None:
    world.send_logins(users(COUNT))
    world.server.set_faults(call, **fault)
    process = world.spawn("--drain", SQS2PG_START_TIMEOUT_S="100")
    assert (await asyncio.to_thread(world.finish, process))["written"] == COUNT
    await world.check(users(COUNT))


@pytest.mark.parametrize(
    ("environment", "code"),
    [
        ({"SQS2PG_SOURCE__QUEUE": "no-such-queue"}, 1),
        ({"SQS2PG_SINK__TABLE": "no_such_table"}, 2),
        ({"SQS2PG_KEYS__FILE": "/nowhere"}, 2),
    ],
)
async def test_what_does_not_pass_ends_the_start_at_once(
    world: World, environment: dict[str, str], code: int
) -> None:
    process = world.spawn(**environment, SQS2PG_START_TIMEOUT_S="100")
    ended, text = await asyncio.to_thread(world.end_of, process)
    assert ended == code
    assert AGAIN not in text


async def test_the_time_for_a_start_is_bounded(world: World, server: Postgres) -> None:
    server.stop("immediate")
    process = world.spawn(SQS2PG_START_TIMEOUT_S="1")
    ended, text = await asyncio.to_thread(world.end_of, process)
    server.start()
    assert ended == 1
    assert AGAIN in text
    assert "is not reachable" in told_error(text)
