"""The stream consumer on real servers: leases, order, suspects, events sent twice, upkeep."""

from __future__ import annotations

import asyncio
import json
import re
import tracemalloc
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from sqs2pg.errors import TransientFault
from sqs2pg.mapping.ledger_key import day_of, today
from sqs2pg.message import Message, Outcome, SystemAttributes
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.maintenance import maintain
from sqs2pg.postgres.verify import verify
from sqs2pg.runners.connect import connect
from sqs2pg.runners.pipeline import Pipeline
from sqs2pg.settings import Settings
from sqs2pg.sqs.wire import EntryFailure, OutgoingMessage
from sqs2pg.status.listener import status_server
from tests.integration.support import Assemble, keep_ledger_days, metric, receive, rows, send
from tests.logins import login
from tests.waiting import until

COUNT = "SELECT count(*) FROM user_logins"


@asynccontextmanager
async def table_locked(database: str) -> AsyncIterator[None]:
    """Nobody can write to the target while the block runs."""
    connection = await psycopg.AsyncConnection.connect(database)
    async with connection:
        await connection.execute("LOCK TABLE user_logins IN ACCESS EXCLUSIVE MODE")
        yield


async def test_a_batch_held_three_times_its_visibility_timeout_is_delivered_once(
    pipeline: Assemble, database: str, sqs_client: Any, queue_url: str
) -> None:
    async with pipeline(source={"visibility_timeout_s": 4}) as ready:
        await send(ready, [login(i) for i in range(25)])
        async with table_locked(database):
            run = asyncio.create_task(ready.consumer.run(drain_settle_s=0.5))
            # A lease is extended at a third of its timeout, so nine extensions span three timeouts.
            await until(lambda: metric(ready, "lease_extensions_total") >= 9 * 25, 120)
        totals = await run
        assert (totals.received, totals.written, totals.duplicate) == (25, 25, 0)
        assert metric(ready, "leases_lost_total") == 0
        assert rows(database, COUNT) == [(25,)]


async def test_receiving_stops_at_the_budget_while_the_database_stands_still(
    pipeline: Assemble, database: str
) -> None:
    source = {"in_flight_messages_max": 30}
    async with pipeline(source=source, sink={"batch_rows_max": 10}) as ready:
        await send(ready, [login(i) for i in range(80)])
        async with table_locked(database):
            run = asyncio.create_task(ready.consumer.run(drain_settle_s=0.5))
            await until(lambda: ready.source.held_count >= 20)
            visible, in_flight, _ = await ready.source.depth()
            assert ready.source.held_count <= 30
            assert visible >= 50
            assert in_flight <= 30
        assert (await run).written == 80


async def test_the_bytes_in_flight_are_bounded(pipeline: Assemble, database: str) -> None:
    source = {"in_flight_bytes_max": 2**20}
    async with pipeline(source=source) as ready:
        large = [json.dumps({"user_id": f"u{i}", "more": "x" * 90_000}) for i in range(40)]
        for body in large:
            assert await ready.client.send(ready.source.queue_url, [body]) == []
        async with table_locked(database):
            run = asyncio.create_task(ready.consumer.run(drain_settle_s=0.5))
            await until(lambda: not ready.source.room.is_open)  # a poll waits for room
            # At most one reply of ten above the budget: the first, whose size was not known.
            assert metric(ready, "in_flight_bytes") <= 2**20 + 10 * 90_100
        assert (await run).written == 40


async def test_nothing_of_a_settled_message_stays_in_memory(pipeline: Assemble) -> None:
    async with pipeline(source={"wait_time_s": 1}) as ready:
        large = [json.dumps({"user_id": f"u{i}", "more": "x" * 400_000}) for i in range(40)]
        for body in large:
            assert await ready.client.send(ready.source.queue_url, [body]) == []
        del body
        large.clear()
        tracemalloc.start()
        run = asyncio.create_task(ready.consumer.run())
        try:
            await until(lambda: ready.consumer.totals.written == 40 and not ready.source.held_count)
            kept, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            ready.consumer.stop()
            await run
        assert peak > 400_000, "bodies are traced"
        assert kept < 400_000, "while pollers and writers wait for more"


async def test_messages_settled_as_the_last_delete_ends_are_deleted_too(
    pipeline: Assemble, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pipeline(source={"receivers_max": 1}) as ready:
        await send(ready, [login(1), login(2)])
        first, second = await held(ready, 2)
        delete = ready.client.delete_batches

        async def then_settle_the_second(*arguments: Any) -> Any:
            failures = await delete(*arguments)
            monkeypatch.setattr(ready.client, "delete_batches", delete)
            # Runs after the task's last step, before its done callbacks.
            asyncio.get_running_loop().call_soon(ready.source.acknowledge, [second])
            return failures

        monkeypatch.setattr(ready.client, "delete_batches", then_settle_the_second)
        ready.source.acknowledge([first])
        await until(lambda: ready.source.held_count == 0)
        assert await ready.source.depth() == (0, 0, 0)


async def test_messages_of_several_batches_are_deleted_ten_at_a_time(pipeline: Assemble) -> None:
    async with pipeline() as ready:
        await send(ready, [login(i) for i in range(12)])
        messages = await held(ready, 12)
        for part in (messages[:4], messages[4:5], messages[5:9], messages[9:]):
            ready.source.acknowledge(part)
        assert [len(batch) for batch in ready.source.deleter.settled] == [10, 2]
        await ready.source.acknowledged()
        assert metric(ready, "batch_seconds_count", stage="acknowledge") == 2
        assert metric(ready, "messages_deleted_total") == 12
        assert (ready.source.held_count, await ready.source.depth()) == (0, (0, 0, 0))


async def test_the_end_waits_for_deletes_under_way(
    pipeline: Assemble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer than the second that is left to them once the grace period is over."""
    async with pipeline() as ready:
        await send(ready, [login(i) for i in range(10)])
        delete, allowed = ready.client.delete_batches, asyncio.Event()

        async def slowly(*arguments: Any) -> Any:
            await allowed.wait()
            return await delete(*arguments)

        monkeypatch.setattr(ready.client, "delete_batches", slowly)
        run = asyncio.create_task(ready.consumer.run())
        await until(lambda: ready.consumer.totals.written == 10, during=run)
        ready.consumer.stop()
        asyncio.get_running_loop().call_later(4.0, allowed.set)
        totals = await run
        assert (totals.written, totals.released) == (10, 0)
        assert await ready.source.depth() == (0, 0, 0)


async def test_an_answer_without_counts_is_not_an_empty_queue(
    pipeline: Assemble, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pipeline() as ready:

        async def nothing(*_: Any) -> dict[str, str]:
            return {}

        monkeypatch.setattr(ready.client, "attributes", nothing)
        with pytest.raises(TransientFault):
            await ready.source.depth()


@pytest.mark.parametrize("why", ["held by another", "delayed"])
async def test_a_drain_waits_for_what_the_queue_does_not_deliver_yet(
    pipeline: Assemble, sqs_client: Any, queue_url: str, why: str
) -> None:
    async with pipeline() as ready:
        if why == "delayed":
            await send(ready, [OutgoingMessage(login(1), delay_s=3)])
        else:
            await send(ready, [login(1)])
            taken = sqs_client.receive_message(
                QueueUrl=queue_url, VisibilityTimeout=3, WaitTimeSeconds=5
            )
            assert len(taken["Messages"]) == 1
        totals = await ready.consumer.run(drain_settle_s=0.5)
        assert (totals.received, totals.written) == (1, 1)


async def held(ready: Pipeline, count: int) -> list[Message]:
    """Receive messages and hold them."""
    messages: list[Message] = []
    while len(messages) < count:
        messages += (await ready.source.poll(wait_s=1))[0]
    return messages


def fail_once(
    ready: Pipeline, monkeypatch: pytest.MonkeyPatch, *, sender_fault: bool
) -> list[list[str]]:
    """Let the first entry of the next visibility request fail; return the handles as asked for."""
    change = ready.client.change_visibility
    asked: list[list[str]] = []

    async def failing(url: str, handles: list[str], timeout_s: int) -> list[EntryFailure]:
        asked.append(handles)
        if len(asked) > 1:
            return await change(url, handles, timeout_s)
        failures = await change(url, handles[1:], timeout_s) if handles[1:] else []
        code = "ReceiptHandleIsInvalid" if sender_fault else "InternalError"
        return [*failures, EntryFailure(0, code, sender_fault)]

    monkeypatch.setattr(ready.client, "change_visibility", failing)
    return asked


@pytest.mark.parametrize("sender_fault", [False, True])
async def test_a_lease_that_sqs_failed_to_extend_is_asked_for_again_and_a_lost_one_is_not(
    pipeline: Assemble, monkeypatch: pytest.MonkeyPatch, sender_fault: bool
) -> None:
    async with pipeline(source={"visibility_timeout_s": 4}) as ready:
        await send(ready, [login(i) for i in range(3)])
        messages = await held(ready, 3)
        asked = fail_once(ready, monkeypatch, sender_fault=sender_fault)
        keeping = asyncio.create_task(ready.source.keep_leases())
        first = messages[0].receipt_handle
        # Every lease at least a second time.
        await until(lambda: sum(len(handles) for handles in asked) >= 7)
        keeping.cancel()
        assert asked[0][0] == first
        assert any(first in handles for handles in asked[1:]) is not sender_fault
        assert metric(ready, "leases_lost_total") == sender_fault
        assert ready.source.held_count == 3
        await ready.source.release(messages)
        assert await ready.source.depth() == (3, 0, 0)


async def test_a_release_that_sqs_failed_is_sent_once_more(
    pipeline: Assemble, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pipeline() as ready:
        await send(ready, [login(i) for i in range(3)])
        messages = await held(ready, 3)
        asked = fail_once(ready, monkeypatch, sender_fault=False)
        await ready.source.release(messages)
        assert await ready.source.depth() == (3, 0, 0)
        handles = [message.receipt_handle for message in messages]
        assert asked == [handles, handles[:1]]


async def test_stop_releases_what_cannot_be_written_and_exits_in_time(
    pipeline: Assemble, database: str
) -> None:
    async with pipeline(shutdown_grace_s=4, source={"wait_time_s": 1}) as ready:
        await send(ready, [login(i) for i in range(20)])
        async with table_locked(database):
            run = asyncio.create_task(ready.consumer.run())
            await until(lambda: ready.source.held_count == 20)
            ready.consumer.stop()
            async with asyncio.timeout(10):
                totals = await run
            assert totals.released == 20
            visible, in_flight, _ = await ready.source.depth()
            assert (visible, in_flight) == (20, 0), "visible again at once"


async def test_a_poller_that_waits_for_the_database_receives_no_more_after_a_stop(
    pipeline: Assemble,
) -> None:
    async with pipeline() as ready:
        await send(ready, [login(1)])
        pollers = ready.consumer.pollers
        pollers.gate.close()
        run = asyncio.create_task(ready.consumer.run())
        await until(lambda: pollers.running > 0)
        ready.consumer.stop()
        await until(lambda: pollers.stopped)
        pollers.gate.open()
        assert (await run).received == 0
        assert await ready.source.depth() == (1, 0, 0)


async def test_a_poll_that_waits_for_room_is_not_sent_after_a_stop(pipeline: Assemble) -> None:
    async with pipeline(source={"in_flight_messages_max": 10}) as ready:
        await send(ready, [login(i) for i in range(10)])
        messages = await held(ready, 10)
        stopped = asyncio.Event()
        poll = asyncio.create_task(ready.source.poll(wait_s=1, stopped=stopped.is_set))
        await until(lambda: not ready.source.room.is_open)
        stopped.set()
        await ready.source.release(messages)
        assert await poll == ([], 0)
        assert await ready.source.depth() == (10, 0, 0)


async def test_a_poll_that_failed_is_not_tried_again_after_a_stop(
    pipeline: Assemble, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0
    monkeypatch.setattr("sqs2pg.pipeline.pollers.backoff_s", lambda _attempt: 0.1)
    async with pipeline() as ready:

        async def away(*_: Any, **__: Any) -> list[Message]:
            nonlocal tries
            tries += 1
            ready.consumer.stop()  # so the stop comes while the poller waits to retry
            raise TransientFault("no answer", code="connect")

        monkeypatch.setattr(ready.client, "receive_while", away)
        await ready.consumer.run()
        assert tries == 1


async def test_the_database_away_holds_messages_and_resumes_by_itself(
    pipeline: Assemble, database: str
) -> None:
    async with pipeline() as ready:
        name = database.rsplit("/", 1)[1]
        rows(database, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        for processor in ready.processors:
            await processor.reconnect()
        await send(ready, [login(i) for i in range(10)])
        run = asyncio.create_task(ready.consumer.run(drain_settle_s=0.5))
        await until(lambda: metric(ready, "faults_total", stage="write", code="postgres_25006") > 1)
        assert ready.source.held_count == 10
        assert ready.consumer.liveness.paused
        assert ready.consumer.liveness.report().ok, "starting again would not bring it back"
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
        totals = await run
        assert (totals.written, totals.received) == (10, 10)


async def test_a_suspect_is_tried_alone_and_set_aside_only_if_it_killed_before(
    pipeline: Assemble, database: str
) -> None:
    async with pipeline(source={"max_receives": 2}) as ready:
        await send(ready, [login(1), login(2)])
        processor = ready.processors[0]
        killer, innocent = await receive(ready, 2)
        await ready.source.release([killer, innocent])
        again = {m.message_id: m for m in await receive(ready, 2)}
        # The process dies while it tries the first message alone: the marker stays.
        assert not await processor.sink.note_suspect(
            processor.key_of(killer), again[killer.message_id].attributes.approximate_receive_count
        )
        await ready.source.release(list(again.values()))
        totals = await ready.consumer.run(drain_settle_s=0.5)
        assert (totals.written, totals.quarantined) == (1, 1)
        assert rows(database, "SELECT reason, message_id FROM sqs2pg.quarantine") == [
            ("kills_worker", killer.message_id)
        ]
        assert rows(database, "SELECT count(*) FROM sqs2pg.suspect") == [(0,)]


async def test_a_trial_interrupted_by_a_stop_leaves_no_marker(
    pipeline: Assemble, database: str
) -> None:
    async with pipeline(shutdown_grace_s=2, source={"max_receives": 2}) as ready:
        await send(ready, [login(1)])
        [message] = await receive(ready, 1)
        await ready.source.release([message])
        with psycopg.connect(database) as other:
            other.execute("LOCK TABLE user_logins IN ACCESS EXCLUSIVE MODE")
            run = asyncio.create_task(ready.consumer.run())
            noted = "SELECT count(*) FROM sqs2pg.suspect"
            await until(lambda: rows(database, noted) == [(1,)])
            ready.consumer.stop()
            assert (await run).released == 1
            assert rows(database, noted) == [(0,)], "it has not crashed a worker"


async def test_the_queues_redrive_policy_sets_the_suspect_limit(
    pipeline: Assemble, sqs_client: Any, queue_url: str
) -> None:
    dead = sqs_client.create_queue(QueueName="dead-" + queue_url.rsplit("-", 1)[-1])["QueueUrl"]
    arn = sqs_client.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])
    policy = {"deadLetterTargetArn": arn["Attributes"]["QueueArn"], "maxReceiveCount": 6}
    sqs_client.set_queue_attributes(
        QueueUrl=queue_url, Attributes={"RedrivePolicy": json.dumps(policy)}
    )
    async with pipeline() as ready:
        assert await ready.source.max_receives() == 5


async def test_fifo_rows_go_in_in_the_order_of_their_group(
    pipeline: Assemble, database: str, fifo_url: str
) -> None:
    async with pipeline(source={"queue": fifo_url}, sink={"batch_rows_max": 7}) as ready:
        bodies = [
            OutgoingMessage(
                "not json" if number == 13 else login(number, device_type=f"g{number % 3}"),
                group_id=f"g{number % 3}",
                deduplication_id=str(number),
            )
            for number in range(60)
        ]
        await send(ready, bodies)
        totals = await ready.consumer.run(drain_settle_s=0.5)
        assert (totals.written, totals.quarantined) == (59, 1), "a bad message blocks no other"
        for group in range(3):
            order = rows(
                database,
                f"SELECT substr(user_id, 2)::int FROM user_logins WHERE device_type = 'g{group}'"
                " ORDER BY ctid",
            )
            numbers = [number for (number,) in order]
            assert numbers == sorted(numbers)
            assert len(numbers) in (19, 20)
        # No timestamp in the key: the move to a FIFO dead-letter queue would change it.
        assert rows(database, "SELECT DISTINCT left(key::text, 13) FROM sqs2pg.delivery") == [
            ("00000000-0000",)
        ]
        assert rows(database, "SELECT count(*) FROM sqs2pg.delivery WHERE seen_at IS NULL") == [
            (0,)
        ]


async def test_messages_of_a_fifo_queue_are_written_in_the_order_of_their_numbers(
    pipeline: Assemble, database: str, fifo_url: str
) -> None:
    """However they stand in the batch: parts of a reply may overtake one another."""
    async with pipeline(source={"queue": fifo_url}) as ready:
        for number in range(3):
            body = OutgoingMessage(login(number), group_id="g", deduplication_id=str(number))
            await send(ready, [body])
        messages = await receive(ready, 3)
        outcomes = await ready.processors[0].process(messages[::-1])
        assert outcomes == [Outcome.WRITTEN] * 3
        written = rows(database, "SELECT user_id FROM user_logins ORDER BY ctid")
        assert written == [("u0",), ("u1",), ("u2",)]


async def test_a_slow_message_of_a_standard_queue_does_not_hold_its_groups_next_one(
    pipeline: Assemble, database: str
) -> None:
    """AWS fair queues: a MessageGroupId names a tenant there, and no order."""
    rows(
        database,
        """CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF NEW.user_id = 'u0' THEN PERFORM pg_advisory_xact_lock(7); END IF;
               RETURN NEW; END $$;
           CREATE TRIGGER slow BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION slow()""",
    )
    async with pipeline(sink={"batch_rows_max": 10, "connections": 2}) as ready:
        with psycopg.connect(database) as other:
            other.execute("SELECT pg_advisory_xact_lock(7)")
            run = asyncio.create_task(ready.consumer.run())
            await send(ready, [OutgoingMessage(login(0), group_id="tenant")])
            waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            await until(lambda: rows(database, waiting) == [(1,)])
            await send(ready, [OutgoingMessage(login(1), group_id="tenant")])
            await until(lambda: rows(database, COUNT) == [(1,)])
            assert {m.attributes.message_group_id for m in ready.source.held()} == {"tenant"}
        await until(lambda: rows(database, COUNT) == [(2,)])
        ready.consumer.stop()
        await run


async def test_an_event_sent_twice_by_its_producer_is_written_once(
    pipeline: Assemble, database: str
) -> None:
    async with pipeline(ledger={"dedupe_key": "event"}) as ready:
        await send(ready, [login(1, event="event-one"), login(2, event="event-two"), login(3)])
        first = await ready.consumer.run(drain_settle_s=0.3)
        assert first.written == 3
    async with pipeline(ledger={"dedupe_key": "event"}) as ready:
        await send(ready, [login(1, event="event-one"), login(1, event="event-one"), login(3)])
        second = await ready.consumer.run(drain_settle_s=0.3)
        assert (second.written, second.duplicate) == (1, 2), (
            "a message without a dedupe key is its own event"
        )
        session = await Session.connect(database)
        report = await verify(session, ready.sink_plan.id, dedupe=True)
        await session.close()
        assert report.ok, report.differences
    assert rows(
        database,
        "SELECT count(*) FROM sqs2pg.delivery"
        " WHERE replace(key::text, '-', '') LIKE '%' || encode('event', 'hex') || '%'",
    ) == [(0,)]


async def test_days_past_retention_are_dropped_and_the_books_still_balance(
    pipeline: Assemble, settings: Callable[..., Settings], database: str
) -> None:
    chosen = settings(ledger={"retention_days": 15})
    async with pipeline() as ready:
        now_ms = int(rows(database, "SELECT extract(epoch FROM now()) * 1000")[0][0])
        ages = [0, 14, 15, 16, 40]
        messages = [
            Message(f"0b9b2b5e-1111-4c4c-8d8d-{age:012}", "-", body,
                    SystemAttributes(now_ms - age * 86_400_000))
            for age in ages for body in [login(age)]
        ]  # fmt: skip
        bad = Message("0b9b2b5e-1111-4c4c-8d8d-00000000bad0", "-", "not json",
                      SystemAttributes(now_ms - 16 * 86_400_000))  # fmt: skip
        outcomes = await ready.processors[0].process([*messages, bad])
        assert Outcome.RELEASED not in outcomes
        # The day of age 16 became the undated partition's at the first migration; move it out by
        # dropping days as retention asks.
        session = await connect(chosen)
        keep_ledger_days(database, 14)
        keep_from = today() - timedelta(days=14)
        while (await session.execute("SELECT sqs2pg.drop_day()"))[0][0]:
            pass
        kept = {day_of(m.attributes.sent_timestamp) for m in messages}
        oldest = rows(database, "SELECT min(relname) FROM pg_class WHERE relname ~ '^delivery_2'")
        assert oldest == [(f"delivery_{keep_from:%Y%m%d}",)]
        assert len(kept) == len(ages)
        report = await verify(session, ready.sink_plan.id)
        assert report.ok, report.differences
        assert (await maintain(session, ready.sink_plan.id))["days_dropped"] == 0
        # A message older than the kept days is still recognised, or written once and remembered.
        late = Message("0b9b2b5e-1111-4c4c-8d8d-0000000fade0", "-", login(99),
                       SystemAttributes(now_ms - 90 * 86_400_000))  # fmt: skip
        assert await ready.processors[0].process([late]) == [Outcome.WRITTEN]
        assert await ready.processors[0].process([late]) == [Outcome.DUPLICATE]
        await session.close()


async def test_metrics_and_liveness_over_http(pipeline: Assemble) -> None:
    async with pipeline() as ready:
        await send(ready, [login(1), "not json"])
        health = ready.consumer.liveness.health
        with status_server("127.0.0.1:0", ready.metrics.registry, health) as address:
            await ready.consumer.run(drain_settle_s=0.3)
            text = await asyncio.to_thread(fetch, f"{address}/metrics")
            assert 'sqs2pg_messages_outcome_total{outcome="written"} 1.0' in text
            assert 'sqs2pg_messages_outcome_total{outcome="quarantined"} 1.0' in text
            assert 'sqs2pg_faults_total{code="not_json",stage="decode"} 1.0' in text
            for name in ("in_flight_messages", "lease_extensions_total", "deletes_failed_total",
                         "last_commit_timestamp_seconds", "lag_seconds_bucket"):  # fmt: skip
                assert re.search(rf"^sqs2pg_{name}\b", text, re.MULTILINE), name
            live = json.loads(await asyncio.to_thread(fetch, f"{address}/livez"))
            assert live["ok"] is True
            ready.consumer.liveness.polled -= 3600
            assert json.loads(await asyncio.to_thread(fetch, f"{address}/livez"))["ok"], "it writes"
            ready.consumer.liveness.settled -= 3600
            with pytest.raises(urllib.error.HTTPError, match="503"):
                await asyncio.to_thread(fetch, f"{address}/livez")


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as answer:
        text: str = answer.read().decode()
    return text


@pytest.mark.usefixtures("emulator")  # ours gives what is released to a poll that is being cut
@pytest.mark.parametrize("part", ["keep_leases", "poll", "process"])
async def test_a_part_that_dies_takes_the_process_down_and_gives_back_what_it_held(
    pipeline: Assemble, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    class Died(Exception):
        pass

    async def die(*_: Any, **__: Any) -> Any:
        if part != "process":
            await until(lambda: ready.source.held_count == 1)
        raise Died

    async with pipeline(source={"wait_time_s": 1}) as ready:
        await send(ready, [login(1)])
        if part == "process":
            for processor in ready.processors:
                monkeypatch.setattr(processor, "process", die)
        else:
            poll = ready.source.poll
            if part == "poll":
                # The second poll dies while the first one's message is still held.
                polls = iter([poll, die])
                monkeypatch.setattr(ready.source, "poll", lambda **k: next(polls, die)(**k))  # noqa: PLW0108  one for each call
            else:
                monkeypatch.setattr(ready.source, "keep_leases", die)
            monkeypatch.setattr(ready.consumer, "_write", lambda _: asyncio.Event().wait())
        async with asyncio.timeout(60):
            with pytest.raises(Died):
                await ready.consumer.run()
        assert ready.consumer.totals.released == 1
        visible, in_flight, _ = await ready.source.depth()
        assert (visible, in_flight) == (1, 0)
