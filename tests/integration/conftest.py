"""A pipeline assembled in the test's own process, on real servers."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sqs2pg.keys import provider_file
from sqs2pg.postgres.migrate import migrate
from sqs2pg.runners.connect import connect
from sqs2pg.runners.pipeline import Pipeline
from sqs2pg.settings import Settings, load
from tests.s3_events import made_bucket, removed_bucket

Assemble = Callable[..., AbstractAsyncContextManager[Pipeline]]


@pytest.fixture
def settings(
    tmp_path: Path, database: str, queue_url: str, aws_environment: None
) -> Callable[..., Settings]:
    """Settings for the test's database and queue; arguments are nested overrides."""
    keys = tmp_path / "sqs2pg.keys"
    provider_file.create(keys)

    def make(**overrides: Any) -> Settings:
        tree: dict[str, Any] = {
            # A poll ends by itself before a stop cuts it: the SQS server goes on with one that is
            # cut, takes messages for it, and may not delete the queue meanwhile.
            "source": {"queue": queue_url, "visibility_timeout_s": 30, "wait_time_s": 1},
            "sink": {"dsn": database},
            "keys": {"file": str(keys)},
        }
        for section, values in overrides.items():
            if isinstance(values, dict):
                tree[section] = tree.get(section, {}) | values
            else:
                tree[section] = values
        return load(environ={}, overrides=tree, discover=False)

    return make


@pytest.fixture
def pipeline(settings: Callable[..., Settings], migrated_database: str) -> Assemble:
    """Migrate and assemble: `async with pipeline(sink={…}) as ready`.

    The database has the built-in mapping's tables already; `migrate` adds what other settings need.
    A test about `migrate` itself calls it.
    """

    @asynccontextmanager
    async def make(**overrides: Any) -> AsyncIterator[Pipeline]:
        chosen = settings(**overrides)
        if not _migrated_for(chosen):
            session = await connect(chosen)
            await migrate(session, chosen)
            await session.close()
        async with Pipeline(chosen) as ready:
            yield ready

    return make


_BY_DEFAULT = load(environ={}, discover=False)
_NOT_MIGRATED = ("source", "keys", "status", "shutdown_grace_s")
_NOT_MIGRATED_OF_SINK = ("dsn", "connections", "batch_rows_max", "linger_ms", "statement_timeout_s")


def _migrated_for(chosen: Settings) -> bool:
    """Whether `migrated_database` is what these settings need: `migrate` reads nothing of the rest.

    It costs two tenths of a test, for nothing where the database has all.
    """
    sink = {name: getattr(_BY_DEFAULT.sink, name) for name in _NOT_MIGRATED_OF_SINK}
    rest = {name: getattr(_BY_DEFAULT, name) for name in _NOT_MIGRATED}
    return (
        msgspec.structs.replace(chosen, sink=msgspec.structs.replace(chosen.sink, **sink), **rest)
        == _BY_DEFAULT
    )


@pytest.fixture
def fifo_url(sqs_client: Any, queue_url: str) -> str:
    name = f"{queue_url.rsplit('/', 1)[-1]}.fifo"
    created = sqs_client.create_queue(QueueName=name, Attributes={"FifoQueue": "true"})
    url: str = created["QueueUrl"]
    return url


@pytest.fixture
def bucket(emulator_endpoint: str, aws_environment: None) -> Iterator[Any]:
    """A bucket without versions (boto3 Bucket); deleted at the end with all that is in it."""
    made = made_bucket(emulator_endpoint, f"events-{secrets.token_hex(6)}")
    yield made
    removed_bucket(made)


@pytest.fixture
def versioned(emulator_endpoint: str, aws_environment: None) -> Iterator[Any]:
    """A bucket that keeps versions."""
    made = made_bucket(emulator_endpoint, f"versions-{secrets.token_hex(6)}", versions=True)
    yield made
    removed_bucket(made)
