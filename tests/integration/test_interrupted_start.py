"""A start that loses its database at any statement ends with one of our own faults."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from sqs2pg.errors import Sqs2pgError
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.migrate import migrate, target_tables
from sqs2pg.runners.connect import connect
from sqs2pg.runners.pipeline import Pipeline
from tests.integration.support import Assemble


class Cut:
    """Ends the server's side of a session just before its statement number `at`, from 0."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
        self._left = at
        execute = Session.execute

        async def cut(session: Session, *arguments: Any) -> Any:
            self._left -= 1
            if self._left == -1:
                with contextlib.suppress(Exception):
                    await execute(session, "SELECT pg_terminate_backend(pg_backend_pid())")
            return await execute(session, *arguments)

        monkeypatch.setattr(Session, "execute", cut)

    @property
    def met(self) -> bool:
        """Whether it came to that statement."""
        return self._left < 0


@pytest.mark.parametrize("overrides", [{}, {"vault": {"enabled": True}}], ids=["plain", "vault"])
async def test_a_database_that_goes_away_at_any_statement_of_the_start_is_a_known_fault(
    settings: Any, monkeypatch: pytest.MonkeyPatch, overrides: dict[str, Any]
) -> None:
    chosen = settings(**overrides)
    session = await connect(chosen)
    await migrate(session, chosen)
    await session.close()
    for at in range(100):
        with monkeypatch.context() as patch:
            cut = Cut(patch, at)
            with contextlib.suppress(Sqs2pgError):
                async with Pipeline(chosen):
                    pass
            if not cut.met:
                break
    assert 5 < at < 99, "every statement was met, and then none"


async def test_a_target_that_cannot_be_read_again_is_a_known_fault(
    pipeline: Assemble, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A running pipeline reads a target again when the table may have changed."""
    async with pipeline():
        chosen = settings()
        for at in range(20):
            session = await connect(chosen)
            with monkeypatch.context() as patch:
                cut = Cut(patch, at)
                with contextlib.suppress(Sqs2pgError):
                    await target_tables(session, chosen)
                met = cut.met
            await session.close()
            if not met:
                break
    assert 2 < at < 19
