"""Drift: the target table is altered while messages arrive, and none of them is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest
from structlog.testing import capture_logs

from sqs2pg.mapping.encoder import CopyText
from sqs2pg.message import Outcome
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.target_copy import TargetCopy
from sqs2pg.postgres.verify import verify
from tests.integration.support import Assemble, receive, rows, send
from tests.logins import login
from tests.waiting import until

MESSAGES = 400

CHANGES = {
    "a column added": ("ALTER TABLE user_logins ADD COLUMN note text DEFAULT 'x'", ""),
    "a column added that must be filled": (
        (
            "ALTER TABLE user_logins ADD COLUMN n integer; UPDATE user_logins SET n = 1;"
            "ALTER TABLE user_logins ALTER COLUMN n SET NOT NULL"
        ),
        "ALTER TABLE user_logins ALTER COLUMN n SET DEFAULT 0",
    ),
    "a column dropped": (
        "ALTER TABLE user_logins DROP COLUMN locale",
        "ALTER TABLE user_logins ADD COLUMN locale varchar(32)",
    ),
    "a column renamed": (
        "ALTER TABLE user_logins RENAME COLUMN device_type TO device",
        "ALTER TABLE user_logins RENAME COLUMN device TO device_type",
    ),
    "the table renamed": (
        "ALTER TABLE user_logins RENAME TO moved",
        "ALTER TABLE moved RENAME TO user_logins",
    ),
    "a column narrowed": (
        "ALTER TABLE user_logins ALTER COLUMN user_id TYPE varchar(4) USING left(user_id, 4)",
        "",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_every_message_is_accounted_for(
    pipeline: Assemble, database: str, change: str
) -> None:
    """Messages arrive while the table is changed, and changed back."""
    there, back = CHANGES[change]
    async with pipeline(sink={"batch_rows_max": 20, "linger_ms": 0}) as ready:
        consumer = ready.consumer
        running = asyncio.create_task(consumer.run())
        await send(ready, [login(i) for i in range(MESSAGES // 2)])
        await until(lambda: consumer.totals.settled >= 50)
        await asyncio.to_thread(alter, database, there)
        await send(ready, [login(i) for i in range(MESSAGES // 2, MESSAGES)])
        if back:
            await until(lambda: consumer.liveness.paused or consumer.totals.settled == MESSAGES)
            await asyncio.to_thread(alter, database, back)
        await until(lambda: consumer.totals.settled == MESSAGES)
        consumer.stop()
        totals = await running
        assert totals.written + totals.quarantined == MESSAGES
        assert totals.released == 0
        aside = rows(database, "SELECT DISTINCT reason, split_part(detail, ' ', 1)"
                               " FROM sqs2pg.quarantine")  # fmt: skip
        if change == "a column narrowed":
            # u0 to u999: four characters still fit.
            assert totals.quarantined == 0
        assert aside == []
        session = await Session.connect(database)
        report = await verify(session, ready.sink_plan.id)
        await session.close()
        assert report.ok, report.differences


ALTER = "ALTER TABLE user_logins"
NAMED = {
    "dropped": (f"{ALTER} DROP COLUMN locale", "locale"),
    "renamed": (f"{ALTER} RENAME COLUMN device_type TO device", "device_type"),
    "of another type": (f"{ALTER} ALTER COLUMN app_version TYPE date USING NULL", "app_version"),
    "generated": (
        f"{ALTER} DROP COLUMN locale, ADD COLUMN locale text GENERATED ALWAYS AS ('x') STORED",
        "locale",
    ),
    "too short for a mask": (
        f"{ALTER} ALTER COLUMN masked_ip TYPE varchar(8) USING NULL",
        "masked_ip",
    ),
    "added and wanted": (
        f"{ALTER} ADD COLUMN n integer NOT NULL DEFAULT 0; {ALTER} ALTER COLUMN n DROP DEFAULT",
        "n",
    ),
}


@pytest.mark.parametrize("change", NAMED)
async def test_the_fault_names_the_column_and_what_to_do(
    pipeline: Assemble, database: str, change: str
) -> None:
    statements, column = NAMED[change]
    async with pipeline() as ready:
        processor = ready.processors[0]
        await send(ready, [login(i, app_version="1.2.3") for i in range(10)])
        messages = await receive(ready, 10)
        alter(database, statements)
        for _ in range(2):
            assert set(await processor.process(messages)) == {Outcome.RELEASED}
        fault = processor.last_fault
        assert fault is not None
        assert (fault.code, fault.column) == ("target_column", column)
        assert "user_logins" in fault.table
        assert fault.hint


async def test_the_log_names_the_column_that_holds_messages(
    pipeline: Assemble, database: str
) -> None:
    async with pipeline() as ready:
        alter(database, f"{ALTER} DROP COLUMN locale")
        running = asyncio.create_task(ready.consumer.run())
        with capture_logs() as logs:
            await send(ready, [login(i) for i in range(10)])
            await until(lambda: any(line.get("column") for line in logs))
        alter(database, f"{ALTER} ADD COLUMN locale varchar(32)")
        await until(lambda: ready.consumer.totals.written == 10)
        ready.consumer.stop()
        await running
    [told, *_] = [line for line in logs if line.get("column")]
    assert told["event"] == "write failed; messages are held"
    assert (told["code"], told["column"]) == ("target_column", "locale")
    assert told["hint"].startswith("ALTER TABLE")


async def test_a_narrowed_column_sets_aside_what_no_longer_fits(
    pipeline: Assemble, database: str
) -> None:
    async with pipeline() as ready:
        processor = ready.processors[0]
        await send(ready, [login(i) for i in range(30)])
        assert set(await processor.process(await receive(ready, 30))) == {Outcome.WRITTEN}
        alter(database, "ALTER TABLE user_logins ALTER COLUMN user_id TYPE varchar(3)")
        bodies = [login(i) for i in range(30)] + [login(5000 + i) for i in range(5)]
        await send(ready, bodies)
        outcomes = await processor.process(await receive(ready, 35))
        assert outcomes.count(Outcome.QUARANTINED) == 5
        # Every row is too long: that is not the queue's fault, so nothing is quarantined.
        await send(ready, [login(5000 + i) for i in range(20)])
        outcomes = await processor.process(await receive(ready, 20))
        assert set(outcomes) == {Outcome.QUARANTINED}
        reasons = "SELECT reason, detail, count(*) FROM sqs2pg.quarantine GROUP BY 1, 2"
        assert rows(database, reasons) == [("too_long", "user_id", 25)]


@pytest.mark.parametrize("count", [1, 5])
async def test_few_rows_are_held_while_a_column_wants_what_they_lack(
    pipeline: Assemble, database: str, count: int
) -> None:
    """These are all rejected alike, but too few to blame the table."""
    async with pipeline() as ready:
        processor = ready.processors[0]
        await send(ready, [login(i) for i in range(count)])
        messages = await receive(ready, count)
        alter(database, "ALTER TABLE user_logins ADD COLUMN n integer NOT NULL")
        for _ in range(2):
            assert set(await processor.process(messages)) == {Outcome.RELEASED}
            assert processor.last_fault is not None
            assert processor.last_fault.code == "target_column"
        alter(database, "ALTER TABLE user_logins ALTER COLUMN n SET DEFAULT 0")
        assert set(await processor.process(messages)) == {Outcome.WRITTEN}
        assert rows(database, "SELECT count(*) FROM sqs2pg.quarantine") == [(0,)]


async def test_a_column_repaired_during_the_search_does_not_split_a_batch(
    pipeline: Assemble, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table waits for the transaction that is being searched, and not the other way round."""
    async with pipeline() as ready:
        processor = ready.processors[0]
        await send(ready, [login(i) for i in range(30)])
        messages = await receive(ready, 30)
        alter(database, "ALTER TABLE user_logins ADD COLUMN n integer NOT NULL")
        tries: list[int] = []
        copy = TargetCopy.copy
        mending: list[asyncio.Task[None]] = []

        async def mended_meanwhile(
            self: TargetCopy, session: Session, texts: Sequence[CopyText], *more: Any
        ) -> bool:
            tries.append(len(texts))
            if len(tries) == 4:  # the batch, then a part of it twice
                mend = "ALTER TABLE user_logins ALTER COLUMN n SET DEFAULT 0"
                mending.append(asyncio.create_task(asyncio.to_thread(alter, database, mend)))
                await until(lambda: waits_for_a_lock(database))
            return await copy(self, session, texts, *more)

        monkeypatch.setattr(TargetCopy, "copy", mended_meanwhile)
        assert set(await processor.process(messages)) <= {Outcome.RELEASED, Outcome.WRITTEN}
        await mending[0]
        assert set(await processor.process(messages)) <= {Outcome.WRITTEN, Outcome.DUPLICATE}
        assert rows(database, "SELECT count(*) FROM sqs2pg.quarantine") == [(0,)]
        assert rows(database, "SELECT count(*) FROM user_logins") == [(30,)]


def waits_for_a_lock(database: str) -> bool:
    waiting = (
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'user_logins'::regclass"
    )
    return rows(database, waiting) == [(1,)]


def alter(database: str, statements: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(statements)
