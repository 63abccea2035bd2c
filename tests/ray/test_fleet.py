"""`run --ray` on a cluster of several nodes on this machine: scaled, struck, drained; nothing lost.

The queue server's manifest is the sender's book. Nodes are Ray's own (`ray.cluster_utils`): each
a raylet with processes of its own, added and killed while the queue is full.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from ray.cluster_utils import Cluster

from benchmarks.queue_server import QueueServer
from sqs2pg.errors import SettingsError
from sqs2pg.pipeline.totals import Totals
from sqs2pg.postgres.migrate import migrate, pipeline_id
from sqs2pg.postgres.verify import verify
from sqs2pg.runners import ray_fleet as engine
from sqs2pg.runners.connect import connect
from sqs2pg.settings import Settings, load
from sqs2pg.sqs.client import SqsClient
from tests.ray.conftest import BATCH_ROWS, NODE, QUEUE, WAIT_S
from tests.shell import told_error

RATE_MAX = 1_000
"""Messages a second that one consumer can settle at the most, where the table is SLOW."""
SLOW = f"""CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    PERFORM pg_sleep({BATCH_ROWS / RATE_MAX}); RETURN NULL; END $$;
CREATE TRIGGER slow AFTER INSERT ON user_logins FOR EACH STATEMENT EXECUTE FUNCTION slow()"""


class Driver:
    """A fleet that runs while the block lasts."""

    def __init__(
        self, fleet: engine.FleetDriver, task: asyncio.Task[Totals], looked: asyncio.Event
    ) -> None:
        self.fleet = fleet
        self.task = task
        self.looked = looked

    async def until(
        self, holds: Callable[[], bool], what: str, feed: Callable[[], None] | None = None
    ) -> None:
        """Wait until `holds` is true; check it, and call `feed`, at each look of the driver."""
        async with asyncio.timeout(WAIT_S):
            while not holds():
                assert not self.task.done() or holds(), (what, self.task.exception())
                if feed is not None:
                    feed()
                await self.turn()

    async def turn(self) -> None:
        """Wait for the driver's next look."""
        self.looked.clear()
        waiting = asyncio.ensure_future(self.looked.wait())
        await asyncio.wait({waiting, self.task}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()

    @property
    def consumers(self) -> int:
        return sum(self.fleet.nodes.values())


@asynccontextmanager
async def driving(**run: Any) -> AsyncIterator[Driver]:
    client = SqsClient.from_environment()
    looked = asyncio.Event()
    fleet = engine.FleetDriver(load(discover=False), None, client, on_change=lambda _: looked.set())
    task = asyncio.create_task(fleet.run(**run))
    try:
        yield Driver(fleet, task, looked)
    finally:
        fleet.request_stop()
        await asyncio.wait({task}, timeout=WAIT_S)
        await client.close()


async def prepare() -> Settings:
    settings = load(discover=False)
    session = await connect(settings)
    await migrate(session, settings)
    await session.close()
    return settings


def make_slow() -> None:
    """Let no consumer settle more than RATE_MAX messages per second."""
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        connection.execute(SLOW)


async def books(settings: Settings, server: QueueServer, sent: int, malformed: int) -> None:
    """Every message that was sent has its effect once, and `verify` agrees."""
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:

        def one(query: str) -> Any:
            return connection.execute(query).fetchone()[0]

        assert one("SELECT count(*) FROM user_logins") == sent - malformed
        assert one("SELECT count(*) FROM sqs2pg.quarantine") == malformed
        assert one("SELECT count(DISTINCT message_id) FROM sqs2pg.delivery") == sent
        ledger = {row[0] for row in connection.execute("SELECT message_id FROM sqs2pg.delivery")}
    manifest = [line for line in server.manifest() if line.queue == QUEUE]
    assert ledger == {line.message_id for line in manifest[-sent:]}
    session = await connect(settings)
    try:
        report = await verify(session, await pipeline_id(session, settings))
    finally:
        await session.close()
    assert report.ok, report.differences


async def test_two_nodes_to_four_to_one_under_load_and_one_killed(
    cluster: Cluster, server: QueueServer, queue: str
) -> None:
    settings = await prepare()
    # However fast the machine is, the backlog is more than all nodes can work off in catch_up_s.
    make_slow()
    sent = malformed = 0

    def feed() -> None:
        """Keep the queue full, so that the load outlasts what is done to the nodes."""
        nonlocal sent, malformed
        if server.stats()["visible"] < 8_000:
            filled = server.fill(QUEUE, 4_000, malformed_share=0.01, seed=sent)
            sent, malformed = sent + 4_000, malformed + int(filled["malformed"])

    feed()
    second = cluster.add_node(**NODE)
    async with driving(drain_settle_s=1.0) as driver:
        fleet = driver.fleet
        # It grows over the two nodes, and wants more consumers than they hold.
        await driver.until(lambda: len(fleet.nodes) == 2, "two nodes at work", feed)
        third, fourth = cluster.add_node(**NODE), cluster.add_node(**NODE)
        await driver.until(lambda: len(fleet.nodes) == 4, "four nodes at work", feed)
        assert driver.consumers <= 6
        # Killed, not drained: the messages of its consumers come back when their leases end.
        cluster.remove_node(fourth, allow_graceful=False)
        await driver.until(lambda: len(fleet.nodes) == 3, "one node gone", feed)
        for node in (second, third):
            cluster.remove_node(node, allow_graceful=False)
        await driver.until(lambda: len(fleet.nodes) == 1, "one node left", feed)
        assert 0 < fleet.totals.settled < sent
        await driver.until(driver.task.done, "drained")
    print(f"sent {sent:,}, malformed {malformed:,}: {driver.task.result()}")
    await books(settings, server, sent, malformed)


async def test_it_shrinks_when_it_is_quiet_and_what_goes_is_drained(
    cluster: Cluster, server: QueueServer, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQS2PG_RAY__CONSUMERS_MIN", "2")
    settings = await prepare()
    make_slow()
    cluster.add_node(**NODE)
    sent = 0

    def feed() -> None:
        """Keep twice what two consumers can work off in catch_up_s, until there are more."""
        nonlocal sent
        if server.stats()["visible"] < 4 * RATE_MAX:
            server.fill(QUEUE, 2 * RATE_MAX, seed=sent)
            sent += 2 * RATE_MAX

    feed()
    async with driving() as driver:
        fleet = driver.fleet
        await driver.until(lambda: driver.consumers > 2, "more than the least", feed)
        await driver.until(
            lambda: driver.consumers == 2 and fleet.totals.settled >= sent,
            "all of it done, and the least again",
        )
    totals = driver.task.result()
    assert (totals.written, totals.quarantined) == (sent, 0)
    assert totals.released == 0, "consumers that left had settled what they held"
    await books(settings, server, sent, 0)


async def test_faults_end_the_fleet_with_their_words_and_the_command_says_them(
    cluster: Cluster,
    server: QueueServer,
    queue: str,
    environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await prepare()
    server.fill(QUEUE, 500, malformed_share=0.1)
    with monkeypatch.context() as patch:
        patch.setenv("SQS2PG_UNKNOWN_FIELDS", "quarantine")  # here, and not on the nodes
        async with driving() as driver:
            with pytest.raises(SettingsError, match="a node's settings"):
                await driver.task
    rename = "ALTER TABLE {} RENAME TO {}"
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        connection.execute(rename.format("user_logins", "elsewhere"))
        async with driving() as driver:
            with pytest.raises(SettingsError, match="user_logins does not exist"):
                await driver.task
        connection.execute(rename.format("elsewhere", "user_logins"))
        assert connection.execute("SELECT count(*) FROM user_logins").fetchone() == (0,)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "sqs2pg", "run", *arguments],
            cwd=tmp_path,
            env=os.environ | {"SQS2PG_SOURCE__DRAIN_SETTLE_S": "1"},
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )

    done = await asyncio.to_thread(run, "--ray", cluster.address, "--drain", "--json")
    assert done.returncode == 0, done.stderr
    totals = json.loads(done.stdout.strip().splitlines()[-1])
    assert totals["written"] + totals["quarantined"] == 500
    assert totals["quarantined"] > 0
    wrong = await asyncio.to_thread(run, "--ray", "127.0.0.1:1", "--drain")
    assert wrong.returncode == 2
    assert "error: no Ray cluster answers at 127.0.0.1:1" in told_error(wrong.stderr)
