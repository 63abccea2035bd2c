"""One bad row among five thousand: found and quarantined, and the statements that takes."""

from __future__ import annotations

import uuid

import psycopg
import pytest

from sqs2pg.message import Message, Outcome, SystemAttributes
from sqs2pg.postgres.reject_search import SAME_FAULT_MAX
from sqs2pg.runners.pipeline import Pipeline
from tests.integration.support import Assemble, rows
from tests.logins import login

SIZE = 5_000
MORE_MAX = 30  # statements more than a clean batch takes; the project promises this

CHECK = "ALTER TABLE user_logins ADD CONSTRAINT known CHECK (device_type <> 'fridge')"
DEFERRED = """CREATE TABLE device (name varchar PRIMARY KEY); INSERT INTO device VALUES ('phone');
ALTER TABLE user_logins ADD CONSTRAINT known FOREIGN KEY (device_type) REFERENCES device
    DEFERRABLE INITIALLY DEFERRED"""


def batch(bad: tuple[int, ...] = ()) -> list[Message]:
    """Messages in the order of their keys: the bad ones' places are places in the COPY."""
    return [
        Message(
            str(uuid.uuid4()),
            "-",
            login(number, device_type="fridge" if number in bad else "phone"),
            SystemAttributes(1_795_381_566_306 + number),
        )
        for number in range(SIZE)
    ]


async def cost(ready: Pipeline, messages: list[Message], bad: int) -> int:
    processor = ready.processors[0]
    before = processor.sink.session.statements
    outcomes = await processor.process(messages)
    assert outcomes.count(Outcome.QUARANTINED) == bad
    assert outcomes.count(Outcome.WRITTEN) == SIZE - bad
    return processor.sink.session.statements - before


@pytest.mark.parametrize("constraint", [CHECK, DEFERRED], ids=["check", "deferred"])
async def test_one_bad_row_costs_at_most_thirty_statements(
    pipeline: Assemble, database: str, constraint: str
) -> None:
    async with pipeline() as ready:
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(constraint)
        clean = await cost(ready, batch(), 0)
        more = [await cost(ready, batch((at,)), 1) - clean for at in (0, 1, 777, 2_500, 4_999)]
        print(f"a clean batch: {clean} statements; one bad row: {more} more")
        assert max(more) <= MORE_MAX
        assert min(more) > 0
        assert rows(database, "SELECT count(*) FROM sqs2pg.quarantine") == [(5,)]


async def test_many_bad_rows_are_each_found(pipeline: Assemble, database: str) -> None:
    bad = (0, 1, 2, 40, 41, 1_000, 2_499, 2_500, 4_998, 4_999)
    async with pipeline() as ready:
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(DEFERRED)
        messages = batch(bad)
        await cost(ready, messages, len(bad))
        set_aside = {row[0] for row in rows(database, "SELECT message_id FROM sqs2pg.quarantine")}
        assert set_aside == {messages[number].message_id for number in bad}
        ids = {f"u{number}" for number in bad}
        written = {row[0] for row in rows(database, "SELECT user_id FROM user_logins")}
        assert len(written) == SIZE - len(bad)
        assert not written & ids


async def test_a_batch_of_bad_rows_and_duplicates_at_once(
    pipeline: Assemble, database: str
) -> None:
    async with pipeline() as ready:
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(CHECK)
        old = batch()
        await cost(ready, old, 0)
        new = batch((17, 4_000))
        mixed = [old[i] if i % 3 == 0 else new[i] for i in range(SIZE)]
        outcomes = await ready.processors[0].process(mixed)
        duplicates = sum(1 for i in range(SIZE) if i % 3 == 0)
        assert outcomes.count(Outcome.DUPLICATE) == duplicates
        assert outcomes.count(Outcome.QUARANTINED) == 2
        assert outcomes.count(Outcome.WRITTEN) == SIZE - duplicates - 2


async def test_as_many_bad_rows_as_end_a_search_that_lie_apart_end_none(
    pipeline: Assemble, database: str
) -> None:
    """A search ends early for the first rows of a batch alone: those say that all are bad."""
    bad = tuple(range(100, 100 + 40 * SAME_FAULT_MAX, 40))
    async with pipeline() as ready:
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(CHECK)
        await cost(ready, batch(bad), len(bad))
        assert rows(database, "SELECT count(*) FROM user_logins") == [(SIZE - len(bad),)]
