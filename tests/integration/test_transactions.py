"""`Session.transaction`: how it begins, commits, rolls back, and what it costs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest

from sqs2pg.errors import KeyFault
from sqs2pg.postgres.connection import READ_COMMITTED, Session
from tests.integration.support import rows

NOTES = "SELECT text FROM note ORDER BY text"


@pytest.fixture
async def session(database: str) -> AsyncIterator[Session]:
    """A session on a database with one empty table, `note`."""
    session = await Session.connect(database)
    await session.execute("CREATE TABLE note (text text NOT NULL)")
    yield session
    await session.close()


async def idle(session: Session) -> bool:
    """Whether the session is open and outside a transaction."""
    return not session.broken and not session.in_transaction


async def test_opening_statements_go_with_begin_and_final_ones_with_commit(
    session: Session, database: str
) -> None:
    before = session.statements
    opening = "SELECT current_setting('transaction_isolation'), 7"
    async with session.transaction("SET LOCAL lock_timeout = '1s'", opening) as transaction:
        assert transaction.opened == [("read committed", 7)]
        await transaction.commit("INSERT INTO note VALUES ('a')", "INSERT INTO note VALUES ('b')")
        assert await idle(session)
    assert rows(database, NOTES) == [("a",), ("b",)]
    assert session.statements - before == 6  # BEGIN, two to open; two to end, COMMIT


async def test_a_mode_is_the_transactions_own(session: Session) -> None:
    async with session.transaction(mode="ISOLATION LEVEL REPEATABLE READ READ ONLY"):
        [(level,)] = await session.execute("SELECT current_setting('transaction_isolation')")
        assert level == "repeatable read"
    async with session.transaction(mode=READ_COMMITTED):
        await session.execute("INSERT INTO note VALUES ('a')")


@pytest.mark.parametrize("fault", [KeyFault("no", code="no"), psycopg.OperationalError("no")])
async def test_a_body_that_raises_is_rolled_back_and_its_session_stays(
    session: Session, database: str, fault: Exception
) -> None:
    async def insert_and_fail() -> None:
        async with session.transaction():
            await session.execute("INSERT INTO note VALUES ('a')")
            raise fault

    with pytest.raises(type(fault)):
        await insert_and_fail()
    assert await idle(session)
    assert rows(database, NOTES) == []


async def test_a_failed_statement_is_rolled_back(session: Session, database: str) -> None:
    with pytest.raises(psycopg.errors.NotNullViolation):
        async with session.transaction() as transaction:
            await transaction.commit(
                "INSERT INTO note VALUES ('a')", "INSERT INTO note VALUES (NULL)"
            )
    assert await idle(session)
    assert rows(database, NOTES) == []


async def test_a_body_may_undo_everything_and_go_on(session: Session, database: str) -> None:
    async with session.transaction() as transaction:
        await session.execute("INSERT INTO note VALUES ('a')")
        await transaction.rollback()
        assert await idle(session)
    assert rows(database, NOTES) == []


async def test_a_cancelled_body_closes_the_session(session: Session, database: str) -> None:
    began = asyncio.Event()

    async def hang() -> None:
        async with session.transaction():
            await session.execute("INSERT INTO note VALUES ('a')")
            began.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hang())
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert session.broken
    assert rows(database, NOTES) == []
