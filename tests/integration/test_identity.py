"""Identity: every MessageId of its own is a message of its own, whatever its form."""

from __future__ import annotations

import uuid
from pathlib import Path

import psycopg
import pytest

from sqs2pg.errors import FatalFault
from sqs2pg.mapping.ledger_key import delivery_key
from sqs2pg.message import Message, Outcome, SystemAttributes
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.verify import verify
from sqs2pg.runners.assembly import assemble_backfill
from sqs2pg.settings import Settings
from tests.integration.support import Assemble, books, rows
from tests.logins import login

SENT_MS = 1_795_384_388_351


def ids_of_version_1(count: int) -> list[str]:
    """What one machine makes one after the other: clock sequence and node are the same in all."""
    first = uuid.UUID("c232ab00-9414-11ec-b3c8-9f6bdeced846").int
    return [str(uuid.UUID(int=first + (ticks << 96))) for ticks in range(count)]


def messages_of(ids: list[str], sent_ms: int = SENT_MS, each_ms: int = 1) -> list[Message]:
    """Messages with these ids, `each_ms` of them to a millisecond."""
    return [
        Message(message_id, "-", login(i), SystemAttributes(sent_ms + i // each_ms))
        for i, message_id in enumerate(ids)
    ]


async def test_forty_ids_of_version_1_are_forty_rows(pipeline: Assemble, database: str) -> None:
    messages = messages_of(ids_of_version_1(40), each_ms=10)
    async with pipeline() as ready:
        outcomes: list[Outcome] = []
        for start in range(0, 40, 4):
            outcomes += await ready.processors[0].process(messages[start : start + 4])
        assert outcomes == [Outcome.WRITTEN] * 40
        assert await ready.processors[1].process(messages) == [Outcome.DUPLICATE] * 40
        report = await books(database, ready.sink_plan.id)
    assert report.differences == []
    assert rows(database, "SELECT count(*) FROM user_logins") == [(40,)]


@pytest.mark.parametrize("native", ["1", "0"])
async def test_ten_ids_of_version_1_of_one_millisecond_in_a_batch_are_ten_rows(
    pipeline: Assemble, database: str, monkeypatch: pytest.MonkeyPatch, native: str
) -> None:
    monkeypatch.setenv("SQS2PG_NATIVE", native)
    messages = messages_of(ids_of_version_1(10), each_ms=10)
    async with pipeline() as ready:
        assert await ready.processors[0].process(messages) == [Outcome.WRITTEN] * 10
        assert (await books(database, ready.sink_plan.id)).differences == []
    assert rows(database, "SELECT count(*) FROM user_logins") == [(10,)]


TWINS = ["5fea7756-0ea4-451a-a703-a558b933e274", "00000000-0000-451a-a703-a558b933e274"]


@pytest.mark.parametrize("bad", [False, True])
async def test_two_ids_under_one_key_are_a_collision_inside_a_batch_too(
    pipeline: Assemble, database: str, bad: bool
) -> None:
    messages = messages_of([*TWINS, "x"], each_ms=10)
    if bad:
        messages[0].body = "not json"
    async with pipeline() as ready:
        with pytest.raises(FatalFault) as collision:
            await ready.processors[0].process(messages)
    assert collision.value.code == "key_collision"
    assert all(name in collision.value.what for name in TWINS)
    assert rows(database, "SELECT count(*) FROM sqs2pg.delivery") == [(0,)]


async def test_two_ids_under_one_key_are_a_collision_across_batches_too(
    pipeline: Assemble, database: str
) -> None:
    first, second, _ = messages_of([*TWINS, "x"], each_ms=10)
    async with pipeline() as ready:
        assert await ready.processors[0].process([first]) == [Outcome.WRITTEN]
        with pytest.raises(FatalFault) as collision:
            await ready.processors[0].process([second])
    assert collision.value.code == "key_collision"
    assert all(name in collision.value.what for name in TWINS)
    assert rows(database, "SELECT message_id FROM sqs2pg.delivery") == [(TWINS[0],)]


async def test_of_named_events_two_ids_under_one_key_are_one_event(
    pipeline: Assemble, database: str
) -> None:
    async with pipeline(ledger={"dedupe_key": "user_id"}) as ready:
        messages = messages_of(ids_of_version_1(4))
        for message in messages:
            message.body = login(1)
        outcomes = await ready.processors[0].process(messages)
        assert outcomes == [Outcome.WRITTEN, *[Outcome.DUPLICATE] * 3]
        session = await Session.connect(database)
        report = await verify(session, ready.sink_plan.id, dedupe=True)
        await session.close()
    assert report.differences == []


FORMS = [
    "5fea7756-0ea4-451a-a703-a558b933e274",
    "c232ab00-9414-11ec-b3c8-9f6bdeced846",
    "5FEA7756-0EA4-451A-A703-A558B933E275",
    "7",
    "é🔑",
]


@pytest.mark.parametrize("forged", range(len(FORMS)))
async def test_verify_holds_each_form_of_id_to_its_key(
    pipeline: Assemble, database: str, forged: int
) -> None:
    messages = messages_of(FORMS)
    async with pipeline() as ready:
        assert await ready.processors[0].process(messages) == [Outcome.WRITTEN] * len(FORMS)
        assert (await books(database, ready.sink_plan.id)).differences == []
        # The key of another message of the same time: every count stays as it is.
        key = delivery_key(FORMS[forged], SENT_MS + forged)
        other = delivery_key("another", SENT_MS + forged)
        with psycopg.connect(database, autocommit=True) as connection:
            changed = connection.execute(
                "UPDATE sqs2pg.delivery SET key = %s WHERE key = %s", [other, key]
            )
            assert changed.rowcount == 1
        [difference] = (await books(database, ready.sink_plan.id)).differences
    assert difference.startswith("ledger entries whose key is not their message's: 1 found")


async def test_lines_of_archives_are_held_to_keys_of_their_own_that_rise(
    pipeline: Assemble, database: str, tmp_path: Path
) -> None:
    archive = tmp_path / "logins-2026-01-02.jsonl"
    archive.write_text("\n".join([*(login(i) for i in range(30)), "not json"]))
    async with pipeline() as ready:
        settings: Settings = ready.settings
        async with assemble_backfill(settings) as begin:
            done = await begin().run([str(archive)])
        assert (done.written, done.quarantined) == (30, 1)
        entries = rows(database, "SELECT message_id, key::text FROM sqs2pg.delivery ORDER BY 1")
        assert [key for _, key in entries] == sorted(key for _, key in entries)
        # A queue's message whose id looks like a line's is no line.
        looks = entries[0][0][:28] + "ffffffff"
        unknown = "01234567-89ab-8cde-8f01-234500000000"
        queued = messages_of([unknown, *ids_of_version_1(3)])
        assert await ready.processors[0].process(queued) == [Outcome.WRITTEN] * 4
        assert (await books(database, ready.sink_plan.id)).differences == []
        assert delivery_key(looks, SENT_MS)[15:] != looks[15:]
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(
                "UPDATE sqs2pg.delivery SET message_id = %s WHERE message_id = %s",
                [looks, entries[5][0]],
            )
        assert len((await books(database, ready.sink_plan.id)).differences) == 1
