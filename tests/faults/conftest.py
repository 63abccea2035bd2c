"""Fixtures of the fault suite: one world per test, and a record of the faults that it met."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from benchmarks.queue_server import QueueServer
from sqs2pg.cli.embedded import Postgres, memory_folder
from sqs2pg.cli.embedded import servers as start_servers
from sqs2pg.keys import provider_file
from tests.forked_commands import ForkServer
from tests.local_aws import SHORT_POLLS

from .proxy import FaultProxy
from .world import QUEUE, Met, World, prepare


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """A server that nobody else uses."""
    with start_servers(sqs=False, base=memory_folder(2**30)) as local:
        assert local.postgres is not None
        yield local.postgres


@pytest.fixture
def queue_server(request: pytest.FixtureRequest) -> Iterator[QueueServer]:
    """A queue server of the test's own. `indirect` parameters are options of its command line."""
    options = getattr(request, "param", ())
    with QueueServer("--manifest", *SHORT_POLLS, *options) as server:
        server.call("CreateQueue", {"QueueName": QUEUE})
        yield server


@pytest.fixture
async def world(
    tmp_path: Path,
    migrated_database: str,
    queue_server: QueueServer,
    forks: ForkServer,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[World]:
    """A migrated database and an empty queue, each behind a proxy."""
    keys = tmp_path / "sqs2pg.keys"
    provider_file.create(keys)
    port = urlsplit(migrated_database).port
    assert port is not None
    with (
        FaultProxy(("127.0.0.1", port)) as postgres,
        FaultProxy(("127.0.0.1", queue_server.port)) as sqs,
    ):
        made = World(tmp_path, migrated_database, queue_server, postgres, sqs, keys, forks)
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        for name, value in made.aws().items():
            monkeypatch.setenv(name, value)
        # Outages last minutes in production and a second or two here; waits shrink accordingly.
        monkeypatch.setattr("sqs2pg.pipeline.backoff.BACKOFF_MAX_S", 0.4)
        if made.sql("SELECT to_regnamespace('sqs2pg')") == [(None,)]:  # a server of the test's own
            await prepare(made)
        try:
            yield made
        finally:
            for process in made.processes:
                process.kill()
                process.communicate()


@pytest.fixture
def met(monkeypatch: pytest.MonkeyPatch) -> Met:
    """The faults that the consumer in this process met."""
    return Met(monkeypatch)
