"""Messages for which PostgreSQL refuses a batch, though none of its statements is at fault.

One of them must not hold the others. It goes back to the queue, and its receive count rises.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest
from structlog.testing import capture_logs

from sqs2pg.errors import TransientFault
from sqs2pg.pipeline import isolation, refusals
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.quarantine import Selection
from sqs2pg.postgres.sink import Batch, BatchResult, Sink
from sqs2pg.postgres.verify import verify
from sqs2pg.runners.assembly import assemble_replay
from sqs2pg.runners.connect import connect
from sqs2pg.runners.pipeline import Pipeline
from sqs2pg.sqs.wire import OutgoingMessage
from tests.integration.support import Assemble, rows, send, trigger_on
from tests.logins import login
from tests.waiting import until

WRITTEN = "SELECT count(*) FROM user_logins"
BAD = "u7"
SLEEPS = "PERFORM pg_sleep(30)"
READS = "PERFORM FROM missing_table"
FAULTS = [
    pytest.param(SLEEPS, "postgres_57014", id="times out"),
    pytest.param(READS, "postgres_42P01", id="reads a missing table"),
    pytest.param("RAISE SQLSTATE '42501'", "postgres_42501", id="privilege"),
    pytest.param("RAISE SQLSTATE 'XX000'", "postgres_XX000", id="internal error"),
]


def spoil(database: str, what: str, who: str = f"^{BAD}$") -> None:
    rows(database, trigger_on("user_logins", "user_id", who, what))


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Isolated messages come back after a second, and after two at most."""
    monkeypatch.setattr(isolation, "AWAY_FIRST_S", 1)
    monkeypatch.setattr(isolation, "AWAY_MAX_S", 2)


@asynccontextmanager
async def consuming(ready: Pipeline) -> AsyncIterator[None]:
    run = asyncio.create_task(ready.consumer.run())
    try:
        yield
    finally:
        ready.consumer.stop()
        await run


def isolated(ready: Pipeline) -> float:
    return ready.metrics.registry.get_sample_value("sqs2pg_isolated_messages") or 0.0


def receives(logs: list[Any]) -> list[int]:
    return [entry["receives"] for entry in logs if entry["event"] == "messages are isolated"]


async def balanced(database: str, ready: Pipeline) -> bool:
    session = await Session.connect(database)
    report = await verify(session, ready.sink_plan.id)
    await session.close()
    return report.ok


@pytest.mark.parametrize(("what", "code"), FAULTS)
async def test_one_bad_message_of_twenty_holds_nobody(
    pipeline: Assemble, database: str, what: str, code: str
) -> None:
    spoil(database, what)
    async with pipeline(sink={"statement_timeout_s": 1}) as ready:
        await send(ready, [login(i) for i in range(20)])
        with capture_logs() as logs:
            async with consuming(ready):
                await until(lambda: rows(database, WRITTEN) == [(19,)], 30)
                await until(lambda: len(receives(logs)) >= 3, 60)
                assert isolated(ready) == 1
                assert ready.snapshot().gauges["isolated_messages"] == 1
                assert ready.health()[0]
                # Mended, it is written, and forgotten.
                rows(database, "DROP TRIGGER checks ON user_logins")
                await until(lambda: rows(database, WRITTEN) == [(20,)], 60)
        assert receives(logs)[:3] == [1, 2, 3], "its receive count rises"
        told = [entry for entry in logs if entry["event"] == "messages are isolated"]
        for entry in told:
            assert (entry["code"], entry["table"]) == (code, "public.user_logins")
            assert entry["message_ids"] == told[0]["message_ids"]
            assert len(entry["message_ids"]) == entry["messages"] == 1
        assert (ready.totals.isolated, isolated(ready)) == ([], 0)
        assert rows(database, "SELECT count(*) FROM sqs2pg.quarantine") == [(0,)]
        assert await balanced(database, ready)


def depth(sqs_client: Any, url: str) -> int:
    name = "ApproximateNumberOfMessages"
    answer = sqs_client.get_queue_attributes(QueueUrl=url, AttributeNames=[name])
    return int(answer["Attributes"][name])


async def test_the_queues_redrive_policy_has_the_last_word(
    pipeline: Assemble, database: str, sqs_client: Any, queue_url: str
) -> None:
    dead = sqs_client.create_queue(QueueName="dead-" + queue_url.rsplit("-", 1)[-1])["QueueUrl"]
    arn = sqs_client.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])
    policy = {"deadLetterTargetArn": arn["Attributes"]["QueueArn"], "maxReceiveCount": 3}
    sqs_client.set_queue_attributes(
        QueueUrl=queue_url, Attributes={"RedrivePolicy": json.dumps(policy)}
    )
    spoil(database, READS)
    async with pipeline() as ready:
        await send(ready, [login(i) for i in range(20)])
        async with consuming(ready):
            await until(lambda: depth(sqs_client, dead) == 1, 60)
            assert rows(database, WRITTEN) == [(19,)]
    received = sqs_client.receive_message(QueueUrl=dead, MessageSystemAttributeNames=["All"])
    [message] = received["Messages"]
    assert json.loads(message["Body"])["user_id"] == BAD
    assert ready.totals.isolated == [], "it is gone"
    assert rows(database, "SELECT count(*) FROM sqs2pg.quarantine") == [(0,)]


async def test_a_drain_ends_where_only_isolated_messages_are_left(
    pipeline: Assemble, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, "AWAY_FIRST_S", 60)
    monkeypatch.setattr(isolation, "AWAY_MAX_S", 60)
    spoil(database, READS, "^u[37]$")
    async with pipeline() as ready:
        await send(ready, [login(i) for i in range(20)])
        totals = await asyncio.wait_for(ready.consumer.run(drain_settle_s=0.3), 60)
        assert (totals.written, len(totals.isolated), totals.released) == (18, 2, 2)
        assert await balanced(database, ready)


@pytest.mark.parametrize("count", [1, 25])
async def test_what_all_messages_meet_is_the_worlds_fault(
    pipeline: Assemble, database: str, count: int
) -> None:
    async with pipeline() as ready:
        rows(database, "REVOKE INSERT ON user_logins FROM PUBLIC")
        rows(database, "ALTER TABLE user_logins RENAME TO elsewhere")
        await send(ready, [login(i) for i in range(count)])
        with capture_logs() as logs:
            run = asyncio.create_task(ready.consumer.run(drain_settle_s=0.3))
            held = "write failed; messages are held"
            await until(lambda: sum(entry["event"] == held for entry in logs) >= 6)
            assert not receives(logs)
            assert ready.source.held_count == count
            rows(database, "ALTER TABLE elsewhere RENAME TO user_logins")
            totals = await run
        assert (totals.written, totals.received) == (count, count), "no receive was spent"


@pytest.mark.parametrize("code", ["08001", "08004", "53300", "57P03"])
async def test_a_connection_that_does_not_come_about_is_no_messages_fault(
    pipeline: Assemble, database: str, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    """Though others write, and the rehearsal passes: the server comes and goes in between."""
    away = True

    async def write(sink: Sink, batch: Batch) -> BatchResult:
        if away:
            raise TransientFault("no", code=f"postgres_{code}")
        return await write_as_ever(sink, batch)

    async def rehearse(_: Sink) -> None:
        return None

    write_as_ever = Sink.write
    monkeypatch.setattr(Sink, "write", write)
    monkeypatch.setattr(Sink, "rehearse", rehearse)
    monkeypatch.setattr(refusals, "WORLD_ATTEMPTS", 1)
    monkeypatch.setattr(isolation.Isolation, "written_since", lambda *_: True)
    monkeypatch.setattr("sqs2pg.pipeline.backoff.BACKOFF_MAX_S", 0.1)
    async with pipeline() as ready:
        await send(ready, [login(i) for i in range(20)])
        with capture_logs() as logs:
            async with consuming(ready):
                held = "write failed; messages are held"
                await until(lambda: sum(entry["event"] == held for entry in logs) >= 6)
                away = False
                await until(lambda: rows(database, WRITTEN) == [(20,)], 30)
        assert not receives(logs)


ALIKE = "all messages of a batch are refused alike; they are held"


async def test_a_trigger_that_fails_for_every_row_holds_all_but_the_first_few(
    pipeline: Assemble, database: str
) -> None:
    spoil(database, READS, ".")
    async with pipeline() as ready:
        await send(ready, [login(i) for i in range(40)])
        with capture_logs() as logs:
            run = asyncio.create_task(ready.consumer.run(drain_settle_s=2))
            await until(lambda: sum(entry["event"] == ALIKE for entry in logs) >= 5)
            assert ready.source.held_count >= 40 - refusals.ALIKE_MIN
            rows(database, "DROP TRIGGER checks ON user_logins")
            totals = await run
        assert totals.written == 40
        assert totals.received < 40 + 4 * refusals.ALIKE_MIN


async def test_a_batch_of_bad_messages_alone_does_not_stop_those_that_come_later(
    pipeline: Assemble, database: str
) -> None:
    spoil(database, READS, "^u")
    async with pipeline(sink={"connections": 1}) as ready:
        await send(ready, [login(i) for i in range(30)])
        with capture_logs() as logs:
            async with consuming(ready):
                await until(lambda: sum(entry["event"] == ALIKE for entry in logs) >= 3)
                await send(ready, [login(f"good{i}") for i in range(5)])
                await until(lambda: rows(database, WRITTEN) == [(5,)], 60)
                await until(lambda: isolated(ready) == 30, 60)


async def test_many_bad_messages_at_the_front_do_not_pass_for_all(
    pipeline: Assemble, database: str
) -> None:
    spoil(database, READS, "^u(.|1.)$")
    async with pipeline() as ready:
        await send(ready, [login(i) for i in range(100)])
        async with consuming(ready):
            await until(lambda: rows(database, WRITTEN) == [(80,)], 60)
            await until(lambda: isolated(ready) == 20, 60)


async def test_a_bad_row_beside_it_is_quarantined_as_ever(
    pipeline: Assemble, database: str
) -> None:
    spoil(database, READS)
    rows(database, "ALTER TABLE user_logins ADD CONSTRAINT grown CHECK (user_id <> 'u3')")
    async with pipeline() as ready:
        await send(ready, [*(login(i) for i in range(20)), "not json"])
        async with consuming(ready):
            await until(lambda: rows(database, WRITTEN) == [(18,)], 30)
        reasons = rows(database, "SELECT reason FROM sqs2pg.quarantine ORDER BY 1")
        assert reasons == [("not_json",), ("rejected_by_database",)]
        assert await balanced(database, ready)


async def test_a_row_that_waits_for_somebody_elses_lock_is_written_when_it_is_free(
    pipeline: Assemble, database: str
) -> None:
    rows(database, "CREATE UNIQUE INDEX one_each ON user_logins (user_id)")
    async with pipeline(sink={"statement_timeout_s": 1}) as ready:
        await send(ready, [login(i) for i in range(20)])
        async with consuming(ready):
            with psycopg.connect(database) as other:
                other.execute(f"INSERT INTO user_logins (user_id) VALUES ('{BAD}')")
                await until(lambda: rows(database, WRITTEN) == [(19,)], 30)
                other.rollback()
            await until(lambda: rows(database, WRITTEN) == [(20,)], 30)


@pytest.mark.parametrize("rows_max", [4, 100])
async def test_on_a_fifo_queue_its_group_waits_behind_it_and_no_other(
    pipeline: Assemble, database: str, fifo_url: str, rows_max: int
) -> None:
    spoil(database, READS, "^u6$")
    async with pipeline(source={"queue": fifo_url}, sink={"batch_rows_max": rows_max}) as ready:
        bodies = [
            OutgoingMessage(
                login(i, device_type=f"g{i % 3}"), group_id=f"g{i % 3}", deduplication_id=str(i)
            )
            for i in range(30)
        ]
        await send(ready, bodies)
        with capture_logs() as logs:
            async with consuming(ready):
                await until(lambda: rows(database, WRITTEN) == [(22,)], 30)
                await until(lambda: len(receives(logs)) >= 2, 30)
                assert rows(database, WRITTEN) == [(22,)], "u0, u3, and the other groups"
                rows(database, "DROP TRIGGER checks ON user_logins")
                await until(lambda: rows(database, WRITTEN) == [(30,)], 60)
    for group in range(3):
        order = rows(
            database,
            "SELECT substr(user_id, 2)::int FROM user_logins"
            f" WHERE device_type = 'g{group}' ORDER BY ctid",
        )
        assert order == sorted(order)


PARTITIONED = """DROP TABLE user_logins;
CREATE TABLE user_logins (
    user_id varchar(128), device_type varchar(32), masked_ip varchar(256),
    masked_device_id varchar(256), locale varchar(32), app_version integer, create_date {type})
    PARTITION BY RANGE (create_date);
CREATE TABLE may PARTITION OF user_logins FOR VALUES FROM ('2024-05-01') TO ('2024-06-01')"""


@pytest.mark.parametrize("kind", ["date", "text"])
async def test_rows_without_a_partition_isolate_their_messages(
    pipeline: Assemble, database: str, kind: str
) -> None:
    rows(database, PARTITIONED.format(type=kind))
    async with pipeline() as ready:
        late = {3, 11}
        await send(
            ready,
            [
                login(i, create_date="2024-06-09" if i in late else f"2024-05-{i + 1:02}")
                for i in range(20)
            ],
        )
        with capture_logs() as logs:
            async with consuming(ready):
                await until(lambda: rows(database, WRITTEN) == [(18,)], 30)
                await until(lambda: isolated(ready) == 2)
                rows(
                    database,
                    "CREATE TABLE june PARTITION OF user_logins"
                    " FOR VALUES FROM ('2024-06-01') TO ('2024-07-01')",
                )
                await until(lambda: rows(database, WRITTEN) == [(20,)], 60)
        [told] = [entry for entry in logs if entry["event"] == "messages are isolated"][:1]
        assert (told["code"], told["table"]) == ("postgres_23514", "public.user_logins")
        assert told["day"] == "2024-06-09"
        assert rows(database, "SELECT count(*) FROM sqs2pg.quarantine") == [(0,)]
        assert isolated(ready) == 0
        assert await balanced(database, ready)


async def test_a_check_of_the_same_sqlstate_is_the_rows_fault_as_ever(
    pipeline: Assemble, database: str
) -> None:
    rows(database, "CREATE DOMAIN named AS varchar(128) CHECK (VALUE <> 'u3')")
    rows(database, "ALTER TABLE user_logins ALTER user_id TYPE named")
    spoil(database, "RAISE SQLSTATE '23514'")
    async with pipeline() as ready:
        await send(ready, [login(i) for i in range(20)])
        totals = await ready.consumer.run(drain_settle_s=0.3)
    assert (totals.written, totals.quarantined, totals.isolated) == (18, 2, [])


async def test_a_replay_leaves_what_has_no_partition_in_the_quarantine(
    pipeline: Assemble, database: str
) -> None:
    rows(database, PARTITIONED.format(type="date"))
    rows(database, "ALTER TABLE user_logins ADD CONSTRAINT not_yet CHECK (user_id <> 'u1')")
    async with pipeline() as ready:
        await send(ready, [login(i, create_date=f"2024-05-0{i + 1}") for i in range(3)])
        totals = await ready.consumer.run(drain_settle_s=0.3)
        assert (totals.written, totals.quarantined) == (2, 1)
        rows(database, "ALTER TABLE user_logins DROP CONSTRAINT not_yet")
        rows(database, "ALTER TABLE user_logins DETACH PARTITION may")

        async def replay() -> tuple[int, int]:
            session = await connect(ready.settings)
            number = ready.sink_plan.id
            replayer = await assemble_replay(session, ready.settings, ready.keyring, number)
            done = await replayer.run(Selection())
            await session.close()
            return done.replayed, done.still_bad

        assert await replay() == (0, 1)
        assert rows(database, "SELECT detail FROM sqs2pg.quarantine") == [("23514 user_logins",)]
        rows(
            database,
            "ALTER TABLE user_logins ATTACH PARTITION may"
            " FOR VALUES FROM ('2024-05-01') TO ('2024-06-01')",
        )
        assert await replay() == (1, 0)


async def test_no_value_of_a_row_is_in_the_log(pipeline: Assemble, database: str) -> None:
    spoil(
        database,
        "RAISE EXCEPTION 'no such user: %', NEW.user_id"
        " USING ERRCODE = 'XX000', DETAIL = NEW::text, TABLE = 'Ada', HINT = NEW.user_id",
        "Lovelace",
    )
    async with pipeline() as ready:
        await send(ready, [*(login(i) for i in range(5)), login("Ada Lovelace")])
        with capture_logs() as logs:
            async with consuming(ready):
                await until(lambda: isolated(ready) == 1)
    told = [entry for entry in logs if entry["event"] == "messages are isolated"]
    assert told
    assert "Lovelace" not in str(logs)
