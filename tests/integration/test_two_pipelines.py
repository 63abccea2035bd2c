"""Two pipelines in one process: two queues, two tables, two mappings, one event loop."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from sqs2pg.errors import FatalFault
from sqs2pg.postgres.migrate import migrate
from sqs2pg.runners.connect import connected
from sqs2pg.runners.pipeline import Pipeline
from sqs2pg.settings import Settings
from tests.integration.support import rows, send
from tests.logins import login
from tests.waiting import until

ORDERS = {
    "name": "orders",
    "field": [
        {"source": "order.id", "column": "order_id", "required": True},
        {"source": "amount", "column": "amount", "type": "integer"},
        {"source": "email", "column": "email", "mask": "pseudonymize", "kind": "email"},
    ],
}
SESSIONS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"


@pytest.fixture
def other_queue(sqs_client: Any) -> Iterator[str]:
    url: str = sqs_client.create_queue(
        QueueName=f"orders-{os.urandom(6).hex()}", Attributes={"VisibilityTimeout": "30"}
    )["QueueUrl"]
    yield url
    sqs_client.delete_queue(QueueUrl=url)


def order(number: int) -> str:
    return json.dumps(
        {"order": {"id": f"o{number}"}, "amount": number, "email": f"u{number}@example.org"}
    )


async def prepared(settings: Settings) -> Settings:
    async with connected(settings) as session:
        await migrate(session, settings)
    return settings


async def sessions(database: str) -> int:
    """Count the sessions of this database but our own, once those that ended are gone."""
    async with await psycopg.AsyncConnection.connect(database) as connection:
        cursor = await connection.execute(f"{SESSIONS} AND pid <> pg_backend_pid()")
        return len(await cursor.fetchall())


def sockets() -> set[str]:
    """The sockets that this process has open."""
    found = set()
    with os.scandir("/proc/self/fd") as entries:
        for entry in entries:
            try:
                target = os.readlink(entry.path)  # noqa: PTH115  of a descriptor, not of a file
            except FileNotFoundError:  # the descriptor of this very listing
                continue
            if target.startswith("socket:"):
                found.add(target)
    return found


async def test_one_of_two_pipelines_stops_and_the_other_goes_on(
    settings: Callable[..., Settings], database: str, other_queue: str
) -> None:
    logins = await prepared(settings(sink={"connections": 2}))
    orders = await prepared(
        settings(source={"queue": other_queue}, sink={"table": "orders"}, **ORDERS)
    )
    assert await sessions(database) == 0
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    tasks_before, sockets_before = asyncio.all_tasks(), sockets()
    first, second = Pipeline(logins), Pipeline(orders)
    await first.start()
    await second.start()
    assert handlers == [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]

    await send(first, [login(f"u{i}") for i in range(25)])
    await send(second, [order(i) for i in range(15)])
    await until(lambda: first.totals.written == 25 and second.totals.written == 15)
    assert rows(database, "SELECT count(*) FROM user_logins") == [(25,)]
    assert rows(database, "SELECT count(*), sum(amount) FROM orders") == [(15, sum(range(15)))]
    counts = "SELECT written FROM sqs2pg.tally ORDER BY pipeline"
    assert sum(written for (written,) in rows(database, counts)) == 40
    numbers = {first.sink_plan.id, second.sink_plan.id}
    assert len(numbers) == 2, "each has its own ledger and tally"
    received = "sqs2pg_messages_received_total"
    assert first.registry.get_sample_value(received) == 25
    assert second.registry.get_sample_value(received) == 15
    assert first.snapshot().counts["written"] == 25
    assert second.snapshot().table == "orders"

    totals = await first.stop()
    assert (totals.received, totals.written, totals.released) == (25, 25, 0)
    assert second.health()[0]
    await send(second, [order(i) for i in range(15, 35)])
    await until(lambda: second.totals.written == 35)
    assert rows(database, "SELECT count(*) FROM user_logins") == [(25,)]

    # The first pipeline again, beside the second, as after a change of its settings.
    again = Pipeline(logins)
    await again.start()
    await send(again, [login(f"u{i}") for i in range(25, 30)])
    await until(lambda: again.totals.written == 5)
    assert (await again.stop()).written == 5
    assert (await second.stop()).written == 35
    assert rows(database, "SELECT count(*) FROM user_logins") == [(30,)]
    assert rows(database, "SELECT count(*) FROM orders") == [(35,)]

    await until(lambda: asyncio.all_tasks() <= tasks_before)
    await until(lambda: sockets() <= sockets_before)
    async with asyncio.timeout(30):
        while await sessions(database):
            await asyncio.sleep(0.05)


async def test_a_pipeline_drains_and_ends_by_itself(
    settings: Callable[..., Settings], database: str
) -> None:
    chosen = await prepared(settings())
    pipeline = Pipeline(chosen)
    await pipeline.start(drain_settle_s=0.5)
    await send(pipeline, [login(f"u{i}") for i in range(5)])
    assert (await pipeline.finished()).written == 5
    assert (await pipeline.stop()).written == 5
    assert (await pipeline.stop()).written == 5, "it may be repeated"


async def test_a_pipeline_that_cannot_be_opened_leaves_nothing_open(
    settings: Callable[..., Settings], database: str
) -> None:
    await prepared(settings())
    wrong = settings(source={"queue": "there-is-none"})
    tasks_before, sockets_before = asyncio.all_tasks(), sockets()
    pipeline = Pipeline(wrong)
    with pytest.raises(FatalFault):
        await pipeline.start()
    assert (await pipeline.stop()).received == 0
    await until(lambda: asyncio.all_tasks() <= tasks_before)
    await until(lambda: sockets() <= sockets_before)
    async with asyncio.timeout(30):
        while await sessions(database):
            await asyncio.sleep(0.05)


async def test_a_stop_that_is_requested_before_the_start_is_kept(
    settings: Callable[..., Settings], database: str
) -> None:
    chosen = await prepared(settings())
    pipeline = Pipeline(chosen)
    pipeline.request_stop()
    await pipeline.start()
    assert (await pipeline.finished()).received == 0
    await pipeline.stop()
