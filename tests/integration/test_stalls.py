"""A failure turns the right status indicator red, and its end turns it green again.

The alerts on these metrics are tested in `deploy/prometheus/rules_test.yml`.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import boto3
import psycopg
import pytest
from structlog.testing import capture_logs

from benchmarks.queue_server import QueueServer
from sqs2pg.runners.pipeline import Pipeline
from sqs2pg.status.recorder import point_between
from sqs2pg.telemetry.log import short_line
from tests.integration.support import Assemble, rows, send
from tests.logins import login
from tests.waiting import until

SOON = {"poll_s": 0.1}


def gauge(ready: Pipeline, name: str, **labels: str) -> float | None:
    return ready.metrics.registry.get_sample_value(f"sqs2pg_{name}", labels)


@asynccontextmanager
async def consuming(ready: Pipeline) -> AsyncIterator[None]:
    """Run the pipeline with its periodic readings."""
    async with ready.periodic:
        run = asyncio.create_task(ready.consumer.run())
        try:
            yield
        finally:
            ready.consumer.stop()
            await run


@pytest.fixture
def queue_server(monkeypatch: pytest.MonkeyPatch, aws_environment: None) -> Iterator[QueueServer]:
    """A queue server that can be made to stall."""
    with QueueServer() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint_url)
        boto3.client("sqs", endpoint_url=server.endpoint_url).create_queue(QueueName="stalls")
        yield server


async def test_a_stalled_poller(
    queue_server: QueueServer, pipeline: Assemble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sqs2pg.telemetry.liveness.MARGIN_S", 1.5)  # of a minute
    source = {"queue": "stalls", "wait_time_s": 1, "receivers_max": 1}
    async with pipeline(source=source, status=SOON, shutdown_grace_s=5) as ready:
        liveness = ready.consumer.liveness

        def last_poll() -> float:
            return gauge(ready, "last_poll_timestamp_seconds") or 0.0

        async with consuming(ready):
            await until(lambda: not math.isnan(last_poll()) and liveness.report().ok)
            queue_server.set_faults("ReceiveMessage", latency_ms=6_000)
            await until(lambda: not liveness.report().ok)
            assert not ready.snapshot().well
            stalled = last_poll()
            queue_server.set_faults("ReceiveMessage", reset=True)
            await until(lambda: last_poll() > stalled and liveness.report().ok)
            await until(lambda: ready.snapshot().well)


async def test_a_database_that_is_away(pipeline: Assemble, database: str) -> None:
    name = database.rpartition("/")[2]
    elsewhere = f"{database.rpartition('/')[0]}/postgres"

    def admit(yes: bool) -> None:
        with psycopg.connect(elsewhere, autocommit=True) as admin:
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {str(yes).lower()}")
            if not yes:
                admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                    [name],
                )

    async with pipeline(status=SOON) as ready, consuming(ready):
        await until(lambda: ready.probes.ready()[0])
        try:
            admit(False)
            await send(ready, [login(1)])
            await until(lambda: gauge(ready, "receiving_paused") == 1)
            await until(lambda: gauge(ready, "database_up") == 0)
            assert not ready.probes.ready()[0]
            snapshot = ready.snapshot()
            assert snapshot.paused
            assert snapshot.well, "a restart would not bring it back"
        finally:
            admit(True)
        await until(lambda: ready.consumer.totals.written == 1)
        await until(lambda: gauge(ready, "receiving_paused") == 0)
        await until(lambda: gauge(ready, "database_up") == 1)
        assert ready.probes.ready()[0]


async def test_a_poisoned_queue(pipeline: Assemble, database: str) -> None:
    async with pipeline(status=SOON) as ready, consuming(ready):
        await until(lambda: gauge(ready, "database_up") == 1)
        before = ready.snapshot()
        await send(ready, ["not json"] * 30)
        await until(lambda: gauge(ready, "quarantine_open_messages", reason="not_json") == 30)
        # The readings may see a commit before its own writer has the answer.
        await until(lambda: gauge(ready, "messages_outcome_total", outcome="quarantined") == 30)
        point = point_between(before, ready.snapshot())
        assert point.quarantined > 0
        assert point.faults > 0
        assert [(r.reason, r.messages) for r in ready.snapshot().quarantine] == [("not_json", 30)]
        # Well again: nothing more comes, and the quarantine is emptied.
        clean = ready.snapshot()
        await send(ready, [login(i) for i in range(20)])
        await until(lambda: ready.consumer.totals.written == 20)
        assert point_between(clean, ready.snapshot()).quarantined == 0
        rows(database, "UPDATE sqs2pg.quarantine SET replayed_at = now()")
        await until(lambda: gauge(ready, "quarantine_open_messages", reason="not_json") is None)


async def test_a_dead_letter_queue_that_fills(
    pipeline: Assemble, sqs_client: Any, queue_url: str
) -> None:
    dead = sqs_client.create_queue(QueueName=queue_url.rsplit("/", 1)[-1] + "-dead")["QueueUrl"]
    arn = sqs_client.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])
    policy = {"deadLetterTargetArn": arn["Attributes"]["QueueArn"], "maxReceiveCount": 3}
    async with pipeline(status=SOON) as ready, consuming(ready):
        await until(lambda: gauge(ready, "watch_timestamp_seconds", what="dead_letters"))
        assert math.isnan(gauge(ready, "dlq_visible_messages") or 0.0), "there is none yet"
        sqs_client.set_queue_attributes(
            QueueUrl=queue_url, Attributes={"RedrivePolicy": json.dumps(policy)}
        )
        await until(lambda: gauge(ready, "dlq_visible_messages") == 0)
        for count in range(1, 4):
            sqs_client.send_message(QueueUrl=dead, MessageBody="x")
            await until(lambda count=count: gauge(ready, "dlq_visible_messages") == count)
        assert ready.snapshot().gauges["dlq_visible_messages"] == 3
        sqs_client.purge_queue(QueueUrl=dead)
        await until(lambda: gauge(ready, "dlq_visible_messages") == 0)
    sqs_client.delete_queue(QueueUrl=dead)


async def test_thirty_thousand_faults_are_a_few_lines(
    queue_server: QueueServer, pipeline: Assemble
) -> None:
    queue_server.fill(queue="stalls", count=30_000, malformed_share=1.0)
    with capture_logs() as said:
        async with pipeline(source={"queue": "stalls"}, status=SOON) as ready:
            async with ready.periodic:
                totals = await ready.consumer.run(drain_settle_s=0.2)
            ready.batch_log.flush(end=True)
    assert totals.quarantined == 30_000
    told = [line for line in said if line["event"] == "message quarantined"]
    assert 5 <= len(told) < 300
    assert len(said) < 600
    assert sum(len(short_line(line)) for line in said) < 200_000
    more = sum(line["count"] for line in said if line["event"] == "more like this")
    assert len(told) + more == 30_000, "every one is logged or counted"
