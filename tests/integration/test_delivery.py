"""Delivery on real servers: what is written, what is a duplicate, what is quarantined."""

from __future__ import annotations

import msgspec
import psycopg
import pytest

from sqs2pg.errors import FatalFault
from sqs2pg.mapping.ledger_key import DAY_MS
from sqs2pg.message import Message, Outcome, SystemAttributes
from sqs2pg.pipeline.poison import Suspects
from sqs2pg.pipeline.processor import Processor
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.reject_streak import ALL_REJECTED_MIN
from sqs2pg.postgres.verify import verify
from sqs2pg.runners.pipeline import Pipeline
from tests.integration.support import Assemble, receive, rows, send
from tests.logins import login

DAYS = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'sqs2pg.delivery'::regclass"
EVERYTHING = "SELECT * FROM user_logins ORDER BY user_id"


async def test_redelivery_of_every_message_changes_no_row(
    pipeline: Assemble, database: str
) -> None:
    """A consumer commits and dies before it deletes: the whole queue comes again."""
    async with pipeline() as ready:
        await send(ready, [login(i) for i in range(30)] + ["not json"])
        messages = await receive(ready, 31)
        first = await ready.processors[0].process(messages)
        assert first.count(Outcome.WRITTEN) == 30
        assert first.count(Outcome.QUARANTINED) == 1
        before = rows(database, EVERYTHING), rows(database, "SELECT * FROM sqs2pg.quarantine")
        await ready.source.release(messages)
        again = await receive(ready, 31)
        assert {m.message_id for m in again} == {m.message_id for m in messages}
        assert all(m.attributes.approximate_receive_count == 2 for m in again)
        assert set(await ready.processors[1].process(again)) == {Outcome.DUPLICATE}
        assert before == (
            rows(database, EVERYTHING),
            rows(database, "SELECT * FROM sqs2pg.quarantine"),
        )


async def test_a_message_twice_in_one_batch_is_written_once(
    pipeline: Assemble, database: str
) -> None:
    async with pipeline() as ready:
        await send(ready, [login(1), login(2)])
        one, two = await receive(ready, 2)
        outcomes = await ready.processors[0].process([one, two, one])
        assert outcomes == [Outcome.WRITTEN, Outcome.WRITTEN, Outcome.DUPLICATE]
        assert rows(database, "SELECT count(*) FROM user_logins") == [(2,)]
        again = await ready.processors[0].process([one, one, two])
        assert again == [Outcome.DUPLICATE] * 3
        # Every delivery is recorded, whichever path its batch took.
        tallied = "SELECT written, duplicate FROM sqs2pg.tally ORDER BY id"
        assert rows(database, tallied) == [(2, 1), (0, 3)]


@pytest.mark.parametrize("duplicates", [False, True], ids=["copied", "claimed"])
async def test_ledger_entries_go_in_in_the_order_of_their_keys(
    pipeline: Assemble, database: str, *, duplicates: bool
) -> None:
    """So two writers that meet wait for each other, and never deadlock: both paths, and messages
    that are quarantined among those that are written."""
    async with pipeline() as ready:
        await send(ready, ["not json" if i % 5 == 2 else login(i) for i in range(40)])
        messages = sorted(await receive(ready, 40), key=lambda message: message.message_id)
        written = messages[:20]
        if duplicates:  # entered before: the whole batch is then claimed
            await ready.processors[0].process(messages[20:21])
            written = messages
        await ready.processors[1].process(written)
        found = rows(database, "SELECT key, outcome::text FROM sqs2pg.delivery ORDER BY ctid")
        keys = [key for key, _ in found[duplicates:]]
        assert len(keys) >= 20
        assert keys == sorted(keys)
        assert {outcome for _, outcome in found[duplicates:]} == {"written", "quarantined"}


async def test_sent_date_is_the_messages_day_not_todays(pipeline: Assemble, database: str) -> None:
    async with pipeline() as ready:
        sent = SystemAttributes(sent_timestamp=1_577_923_199_999)
        message = Message("0b9b2b5e-1111-4c4c-8d8d-000000000001", "-", login(1), sent)
        assert await ready.processors[0].process([message]) == [Outcome.WRITTEN]
        assert await ready.processors[0].process([message]) == [Outcome.DUPLICATE]
        assert rows(database, "SELECT create_date::text FROM user_logins") == [("2020-01-01",)]
        assert rows(database, "SELECT tableoid::regclass::text FROM sqs2pg.delivery") == [
            ("sqs2pg.delivery_undated",)
        ]


REJECTIONS = [
    (
        "ALTER TABLE user_logins ADD CONSTRAINT grown CHECK (user_id <> 'u7')",
        {},
        "23514 grown",
    ),
    (
        "CREATE UNIQUE INDEX one_each ON user_logins (user_id)",
        {"user_id": "u6"},
        "23505 one_each",
    ),
    (
        (
            "CREATE TABLE known (id varchar PRIMARY KEY); INSERT INTO known VALUES ('phone');"
            "ALTER TABLE user_logins ADD CONSTRAINT known_device FOREIGN KEY (device_type)"
            " REFERENCES known DEFERRABLE INITIALLY DEFERRED"
        ),
        {"device_type": "fridge"},
        "23503 known_device",
    ),
    (
        """ALTER TABLE user_logins ADD CONSTRAINT "a\tb\\c" CHECK (device_type <> 'fridge')""",
        {"device_type": "fridge"},
        "23514 a\tb\\c",
    ),
    (
        (
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " IF NEW.user_id = 'u7' THEN RAISE EXCEPTION 'canary %', NEW.user_id; END IF;"
            " RETURN NEW; END $$; CREATE TRIGGER refuse BEFORE INSERT ON user_logins"
            " FOR EACH ROW EXECUTE FUNCTION refuse()"
        ),
        {},
        "P0001",
    ),
    (
        (
            "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " IF NEW.user_id = 'u7' THEN RETURN NULL; END IF;"
            " RETURN NEW; END $$; CREATE TRIGGER swallow BEFORE INSERT ON user_logins"
            " FOR EACH ROW EXECUTE FUNCTION swallow()"
        ),
        {},
        "row_suppressed",
    ),
]


@pytest.mark.parametrize(("setup", "change", "detail"), REJECTIONS)
async def test_one_row_the_database_rejects_is_set_aside_alone(
    pipeline: Assemble, database: str, setup: str, change: dict[str, str], detail: str
) -> None:
    async with pipeline() as ready:
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(setup)
        bodies = [login(i, **({"device_type": "phone"} | (change if i == 7 else {})))
                  for i in range(40)]  # fmt: skip
        await send(ready, bodies)
        outcomes = await ready.processors[0].process(await receive(ready, 40))
        assert outcomes.count(Outcome.WRITTEN) == 39
        assert outcomes.count(Outcome.QUARANTINED) == 1
        [(reason, found)] = rows(database, "SELECT reason, detail FROM sqs2pg.quarantine")
        assert (reason, found) == ("rejected_by_database", detail)
        session = await Session.connect(database)
        report = await verify(session, ready.sink_plan.id)
        await session.close()
        assert report.ok, report.differences


async def test_a_table_that_rejects_every_row_stops_the_process(
    pipeline: Assemble, database: str
) -> None:
    async with pipeline() as ready:
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute("ALTER TABLE user_logins ADD CONSTRAINT shut CHECK (false)")
        await send(ready, [login(i) for i in range(20)])
        with pytest.raises(FatalFault, match="every one of 20 rows"):
            await ready.processors[0].process(await receive(ready, 20))
        assert rows(database, "SELECT count(*) FROM sqs2pg.quarantine") == [(0,)]
        assert rows(database, "SELECT count(*) FROM sqs2pg.delivery") == [(0,)]


async def test_a_table_that_rejects_row_after_row_stops_a_slow_queue_too(
    pipeline: Assemble, database: str
) -> None:
    """Batches of one, as a slow queue gives: an accepted row restarts the count."""
    async with pipeline() as ready:
        processor = ready.processors[0]
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(
                "ALTER TABLE user_logins ADD CONSTRAINT known CHECK (device_type <> 'fridge')"
            )

        async def outcomes(*devices: str) -> set[Outcome]:
            await send(ready, [login(1, device_type=device) for device in devices])
            messages = await receive(ready, len(devices))
            return {(await processor.process([message]))[0] for message in messages}

        few = ["fridge"] * (ALL_REJECTED_MIN - 1)
        assert await outcomes(*few) == {Outcome.QUARANTINED}
        assert await outcomes("phone") == {Outcome.WRITTEN}
        assert await outcomes(*few) == {Outcome.QUARANTINED}
        await send(ready, ["not json"])
        assert await processor.process(await receive(ready, 1)) == [Outcome.QUARANTINED]
        with pytest.raises(FatalFault, match=f"every one of {ALL_REJECTED_MIN} rows"):
            await outcomes("fridge")
        assert rows(
            database,
            "SELECT reason, count(*) FROM sqs2pg.quarantine GROUP BY 1 ORDER BY 1",
        ) == [("not_json", 1), ("rejected_by_database", 2 * len(few))]


async def test_rows_rejected_alike_are_counted_over_all_writers(
    pipeline: Assemble, database: str
) -> None:
    async with pipeline(sink={"connections": 2}) as ready:
        rows(database, "ALTER TABLE user_logins ADD CONSTRAINT shut CHECK (false)")
        await send(ready, [login(i) for i in range(ALL_REJECTED_MIN)])
        *others, last = await receive(ready, ALL_REJECTED_MIN)
        one, other = ready.processors
        for index, message in enumerate(others):
            processor = (one, other)[index % 2]
            assert await processor.process([message]) == [Outcome.QUARANTINED]
        with pytest.raises(FatalFault, match="alike"):
            await one.process([last])


@pytest.mark.parametrize(
    "breakage",
    [
        "ALTER TABLE user_logins DROP COLUMN locale",
        "DROP TABLE sqs2pg.tally",
        "ALTER DATABASE {name} SET default_transaction_read_only = on",
    ],
)
async def test_a_systemic_fault_releases_and_never_quarantines(
    pipeline: Assemble, database: str, breakage: str
) -> None:
    async with pipeline() as ready:
        name = database.rsplit("/", 1)[1]
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(breakage.format(name=f'"{name}"'))
        for processor in ready.processors:
            await processor.reconnect()
        await send(ready, [login(1), "not json"])
        outcomes = await ready.processors[0].process(await receive(ready, 2))
        assert outcomes == [Outcome.RELEASED, Outcome.RELEASED]
        assert ready.processors[0].last_fault is not None
        assert rows(database, "SELECT count(*) FROM sqs2pg.delivery") == [(0,)]
        assert rows(database, "SELECT count(*) FROM sqs2pg.quarantine") == [(0,)]


def delivered(message: Message, times: int) -> Message:
    """The message as its delivery of that number brings it."""
    attributes = message.attributes
    return msgspec.structs.replace(
        message,
        attributes=msgspec.structs.replace(attributes, approximate_receive_count=times),
    )


async def one_message(ready: Pipeline) -> tuple[Processor, Message]:
    """Send a login and receive it; return the pipeline's first processor, too."""
    await send(ready, [login(1)])
    [message] = await receive(ready, 1)
    return ready.processors[0], message


async def test_a_suspect_that_was_released_is_not_quarantined_for_its_marker(
    pipeline: Assemble, database: str
) -> None:
    async with pipeline() as ready:
        processor, message = await one_message(ready)
        rows(database, "ALTER TABLE user_logins RENAME TO moved")
        assert await Suspects(8).try_alone(processor, delivered(message, 8)) == Outcome.RELEASED
        fault = processor.last_fault
        assert fault is not None
        assert fault.code == "postgres_42P01"
        assert rows(database, "SELECT count(*) FROM sqs2pg.suspect") == [(0,)]
        rows(database, "ALTER TABLE moved RENAME TO user_logins")
        assert await Suspects(8).try_alone(processor, delivered(message, 9)) == Outcome.WRITTEN


async def test_a_suspect_is_released_too_where_its_marker_cannot_be_deleted(
    pipeline: Assemble, database: str
) -> None:
    async with pipeline() as ready:
        processor, message = await one_message(ready)
        rows(
            database,
            "ALTER TABLE user_logins RENAME TO moved;"
            "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE 'kept' USING ERRCODE = '57P03'; END $$;"
            "CREATE TRIGGER keep BEFORE DELETE ON sqs2pg.suspect"
            " FOR EACH ROW EXECUTE FUNCTION keep()",
        )
        assert await Suspects(8).try_alone(processor, delivered(message, 8)) == Outcome.RELEASED
        fault = processor.last_fault
        assert fault is not None
        assert fault.code == "postgres_42P01", "the first fault is reported"
        assert rows(database, "SELECT attempt FROM sqs2pg.suspect") == [(8,)]


async def test_a_suspect_that_the_table_stopped_is_not_quarantined_for_its_marker(
    pipeline: Assemble, database: str
) -> None:
    async with pipeline() as ready:
        processor = ready.processors[0]
        rows(database, "ALTER TABLE user_logins ADD CONSTRAINT shut CHECK (false)")
        await send(ready, [login(i) for i in range(ALL_REJECTED_MIN)])
        *others, suspect = await receive(ready, ALL_REJECTED_MIN)
        for message in others:
            assert await processor.process([message]) == [Outcome.QUARANTINED]
        with pytest.raises(FatalFault, match="alike"):
            await Suspects(8).try_alone(processor, delivered(suspect, 8))
        rows(database, "ALTER TABLE user_logins DROP CONSTRAINT shut")
        assert await Suspects(8).try_alone(processor, delivered(suspect, 9)) == Outcome.WRITTEN


async def test_the_marker_of_a_message_that_crashes_workers_stays_until_it_is_quarantined(
    pipeline: Assemble, database: str
) -> None:
    async with pipeline() as ready:
        processor, message = await one_message(ready)
        assert not await processor.sink.note_suspect(processor.key_of(message), 7)
        rows(database, "ALTER TABLE sqs2pg.quarantine RENAME TO moved")
        assert await Suspects(8).try_alone(processor, delivered(message, 8)) == Outcome.RELEASED
        rows(database, "ALTER TABLE sqs2pg.moved RENAME TO quarantine")
        assert await Suspects(8).try_alone(processor, delivered(message, 9)) == Outcome.QUARANTINED
        assert rows(database, "SELECT reason FROM sqs2pg.quarantine") == [("kills_worker",)]


async def test_a_day_the_ledger_lacks_is_attached(pipeline: Assemble, database: str) -> None:
    async with pipeline() as ready:
        before = rows(database, DAYS)[0][0]
        await send(ready, [login(1)])
        [message] = await receive(ready, 1)
        sent_ms = message.attributes.sent_timestamp
        message.attributes = SystemAttributes(sent_ms + 8 * DAY_MS)
        assert await ready.processors[0].process([message]) == [Outcome.WRITTEN]
        assert rows(database, DAYS) == [(before + 1,)]
        # A clock that is further ahead is wrong: the message is held, and isolated in the end.
        message.attributes = SystemAttributes(sent_ms + 40 * DAY_MS)
        assert await ready.processors[0].process([message]) == [Outcome.RELEASED]
        fault = ready.processors[0].last_fault
        assert fault is not None
        assert fault.code == "postgres_23514"
        assert rows(database, DAYS) == [(before + 1,)]


@pytest.mark.parametrize("level", ["off", "local"])
async def test_commits_are_durable_whatever_the_roles_default(
    pipeline: Assemble, database: str, level: str
) -> None:
    async with pipeline() as ready:
        name = database.rsplit("/", 1)[1]
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = {level}')
            # A trigger in the batch's transaction records the setting that it ran under.
            connection.execute(
                "CREATE TABLE seen (level text); CREATE FUNCTION note() RETURNS trigger LANGUAGE"
                " plpgsql AS $$ BEGIN"
                " INSERT INTO seen VALUES (current_setting('synchronous_commit'));"
                " RETURN NULL; END $$; CREATE TRIGGER note AFTER INSERT ON user_logins"
                " FOR EACH STATEMENT EXECUTE FUNCTION note()"
            )
        for processor in ready.processors:
            await processor.reconnect()
        await send(ready, [login(1)])
        await ready.processors[0].process(await receive(ready, 1))
        assert rows(database, "SELECT level FROM seen") == [("on",)]
