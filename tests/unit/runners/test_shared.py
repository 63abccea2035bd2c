"""What the pipelines of one process share."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from sqs2pg.runners.shared import STARTS_AT_ONCE, Shared
from sqs2pg.settings import ProcessSettings, Settings, load


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> dict[str, Settings]:
    """Those of a pipeline in each of two databases."""
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }.items():
        monkeypatch.setenv(name, value)
    return {
        name: load(environ={"SQS2PG_SINK__DSN": f"postgresql://127.0.0.1:9/{name}"})
        for name in ("away", "other")
    }


async def test_starts_of_a_database_that_is_away_delay_no_other_database(
    settings: dict[str, Settings],
) -> None:
    away, other = settings["away"], settings["other"]
    shared = Shared(ProcessSettings(), [away, other])
    try:
        async with AsyncExitStack() as stack:
            for _ in range(STARTS_AT_ONCE):
                await stack.enter_async_context(shared.starting(away))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await stack.enter_async_context(shared.starting(away))
            assert await stack.enter_async_context(shared.starting(other))
    finally:
        await shared.close()
