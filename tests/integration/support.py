"""What integration tests share: messages on and off a queue, rows, metrics, and the books."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import psycopg

from sqs2pg.message import Message
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.verify import VerifyReport, verify
from sqs2pg.runners.connect import connect
from sqs2pg.runners.pipeline import Pipeline
from sqs2pg.settings import Settings
from sqs2pg.sqs.wire import OutgoingMessage

Assemble = Callable[..., AbstractAsyncContextManager[Pipeline]]


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Session]:
    """A session of the pipeline's database, closed at the end of the block."""
    session = await connect(settings)
    try:
        yield session
    finally:
        await session.close()


async def books(database: str, pipeline: int) -> VerifyReport:
    """Return what `verify` says of a pipeline."""
    session = await Session.connect(database)
    try:
        return await verify(session, pipeline)
    finally:
        await session.close()


async def assert_books_balance(settings: Settings, **expected: int) -> None:
    """Verify the first pipeline of the database: no difference, and the expected numbers."""
    async with opened(settings) as session:
        report = await verify(session, 1, dedupe=bool(settings.ledger.dedupe_key))
    assert report.differences == []
    assert {name: getattr(report, name) for name in expected} == expected


def metric(ready: Pipeline, name: str, **labels: str) -> float:
    """Return the value of a metric by its name without `sqs2pg_`; 0 where there is none."""
    return ready.metrics.registry.get_sample_value(f"sqs2pg_{name}", labels) or 0.0


async def send(ready: Pipeline, bodies: Sequence[str | OutgoingMessage]) -> None:
    """Put bodies on the pipeline's queue."""
    for start in range(0, len(bodies), 10):
        assert await ready.client.send(ready.source.queue_url, bodies[start : start + 10]) == []


async def receive(ready: Pipeline, count: int) -> list[Message]:
    """Receive until `count` different messages are held."""
    messages: list[Message] = []
    while len(messages) < count:
        fresh, _ = await ready.source.poll(wait_s=1)
        messages += fresh
    return messages


def rows(database: str, query: str) -> list[tuple[Any, ...]]:
    """Run a query on a connection of its own."""
    with psycopg.connect(database, autocommit=True) as connection:
        cursor = connection.execute(query)
        return cursor.fetchall() if cursor.description else []


def trigger_on(table: str, column: str, who: str, what: str) -> str:
    """Return the trigger that does `what`, in PL/pgSQL, for rows whose column matches `who`."""
    return f"""CREATE FUNCTION checks() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.{column} ~ '{who}' THEN {what}; END IF; RETURN NEW; END $$;
CREATE TRIGGER checks BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION checks()"""


def keep_ledger_days(database: str, days: int) -> None:
    """Record a retention of the ledger that the settings would refuse, because SQS keeps longer."""
    check = "ALTER TABLE sqs2pg.pipeline DROP CONSTRAINT pipeline_ledger_retention_days_check"
    rows(database, f"{check}; UPDATE sqs2pg.pipeline SET ledger_retention_days = {days}")
