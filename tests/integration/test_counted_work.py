"""The hot path's work, counted and not timed: a guard against creeping costs.

Bounds lie a tenth above the most that was counted when they were set, beside other tests, so that
one more call per message is noticed, but one more poll is not. Raise one only for something that
is worth it, and say so in benchmarks/RESULTS.md.
"""

from __future__ import annotations

import gc
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import boto3
import pytest

import sqs2pg
from benchmarks.queue_server import QueueServer
from sqs2pg.pipeline.pause_watch import EVERY_S
from sqs2pg.runners.pipeline import Pipeline
from sqs2pg.sqs.connection import HttpConnection, Reply
from tests.integration.support import Assemble
from tests.native import extension

MESSAGES = 10_000
OURS = str(Path(sqs2pg.__file__).parent)


@pytest.fixture
def queue_server(monkeypatch: pytest.MonkeyPatch, aws_environment: None) -> Iterator[QueueServer]:
    """A queue of good logins on a server that counts requests."""
    with QueueServer() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint_url)
        sqs = boto3.client("sqs", endpoint_url=server.endpoint_url)
        sqs.create_queue(QueueName="counted")
        server.fill(queue="counted", count=MESSAGES)
        yield server


async def drain(
    ready: Pipeline, watch: Callable[[FrameType, str, Any], None] | None = None
) -> None:
    """Drain the queue in this thread, its calls watched."""
    sys.setprofile(watch)
    try:
        totals = await ready.consumer.run(drain_settle_s=0.2)
    finally:
        sys.setprofile(None)
    assert totals.settled == MESSAGES


@pytest.mark.parametrize(
    ("native", "calls_max", "c_calls_max"), [("1", 10, 13.5), ("0", 15.2, 24.5)]
)
async def test_python_calls_per_message_are_bounded(
    queue_server: QueueServer,
    pipeline: Assemble,
    monkeypatch: pytest.MonkeyPatch,
    native: str,
    calls_max: float,
    c_calls_max: float,
) -> None:
    """With the native fast path and without it."""
    monkeypatch.setattr("sqs2pg.native.EXTENSION", extension())
    monkeypatch.setenv("SQS2PG_NATIVE", native)
    calls: Counter[str] = Counter()

    def count(frame: FrameType, event: str, _argument: object) -> None:
        if event in {"call", "c_call"} and frame.f_code.co_filename.startswith(OURS):
            calls[event] += 1

    # Batches fill up however slow the machine is: how many there are is another test's matter.
    async with pipeline(source={"queue": "counted"}, sink={"linger_ms": 200}) as ready:
        await drain(ready, count)
    print(
        f"calls per message: {calls['call'] / MESSAGES:.1f}, of C {calls['c_call'] / MESSAGES:.1f}"
    )
    assert calls["call"] / MESSAGES <= calls_max
    assert calls["c_call"] / MESSAGES <= c_calls_max


async def test_one_reply_follows_another_without_a_task(
    queue_server: QueueServer, pipeline: Assemble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most replies are handled in the callback that brought them."""
    exchanges = 0
    exchange = HttpConnection.exchange

    async def counted(*arguments: Any) -> Reply:
        nonlocal exchanges
        exchanges += 1
        return await exchange(*arguments)

    monkeypatch.setattr(HttpConnection, "exchange", counted)
    # One batch, so that neither a full buffer nor the pace of the database ends a chain of calls.
    one_batch = {"connections": 1, "batch_rows_max": MESSAGES, "linger_ms": 10_000}
    async with pipeline(source={"queue": "counted"}, sink=one_batch) as ready:
        await drain(ready)
    requests = sum(queue_server.stats()["requests"].values())
    print(f"{exchanges} exchanges, {requests} requests")
    assert exchanges <= requests / 5


async def test_requests_and_statements_a_thousand_messages(
    queue_server: QueueServer, pipeline: Assemble
) -> None:
    async with pipeline(source={"queue": "counted"}) as ready:
        before = sum(processor.sink.session.statements for processor in ready.processors)
        began = time.monotonic()
        await drain(ready)
        # Beside the batches, one session asks now and then whether the pipeline is paused.
        asked = 2 + (time.monotonic() - began) / EVERY_S
        statements = sum(p.sink.session.statements for p in ready.processors) - before
        batches = ready.metrics.registry.get_sample_value("sqs2pg_batch_rows_count") or 0
    requests = queue_server.stats()["requests"]
    print(f"{batches} batches, {statements} statements, requests {requests}")
    assert statements <= 7 * batches + asked
    assert requests["DeleteMessageBatch"] <= MESSAGES / 10 * 1.05
    assert requests["ReceiveMessage"] <= MESSAGES / 10 * 1.1 + 150


async def test_bad_messages_leave_nothing_to_the_cyclic_collector(
    queue_server: QueueServer, pipeline: Assemble
) -> None:
    """A fault whose traceback holds a frame that holds the fault keeps a whole batch in memory."""
    queue_server.fill(queue="counted", count=500, malformed_share=1.0)
    async with pipeline(source={"queue": "counted"}) as ready:
        gc.collect()
        gc.freeze()  # what earlier tests have left behind, and give up only now
        gc.disable()
        try:
            totals = await ready.consumer.run(drain_settle_s=0.2)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            garbage = list(gc.garbage)
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
            gc.unfreeze()
    assert totals.quarantined == 500
    # A closed transport of asyncio, which uvloop replaces in a command, leaves eight objects. How
    # many connections close depends on how busy the machine is.
    transports = sum(type(one).__name__ == "_SelectorSocketTransport" for one in garbage)
    objects = len(garbage) - 8 * transports
    print(f"{objects} objects in cycles, {transports} transports, {totals.settled} messages")
    assert objects <= 100, Counter(type(one).__qualname__ for one in garbage).most_common(9)
    ours = [type(one) for one in garbage if type(one).__module__.startswith("sqs2pg")]
    assert ours == [], "no message, fault or connection is among them"
    frames = {one.f_code.co_name for one in garbage if isinstance(one, FrameType)
              and one.f_code.co_filename.startswith(OURS)}  # fmt: skip
    assert frames <= {"_work"}, "a cancelled TaskGroup of Python 3.11 holds the frame it stands in"
