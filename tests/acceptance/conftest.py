"""The command line as users run it: a process, an environment, a folder of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from sqs2pg.cli.embedded import Servers
from sqs2pg.keys import provider_file
from tests import logins
from tests.forked_commands import ForkServer
from tests.local_aws import aws_client, aws_variables
from tests.shell import Shell, bare_environment


@pytest.fixture
def bare_shell(tmp_path: Path, forks: ForkServer) -> Shell:
    """A shell in an empty folder, pointed at nothing."""
    return Shell(tmp_path, bare_environment(), forks=forks)


@pytest.fixture
def server_logs(servers: Servers, emulator: Servers) -> Callable[[], str]:
    """Read everything that both servers of this test run have logged."""
    return lambda: "".join(
        path.read_text(errors="replace")
        for local in (servers, emulator)
        for path in local.folder.rglob("*.log")
    )


@pytest.fixture
def shell(
    tmp_path: Path,
    database: str,
    sqs_endpoint: str,
    queue_url: str,
    forks: ForkServer,
) -> Shell:
    """A shell pointed at a fresh database and a fresh queue, with a key file of its own."""
    provider_file.create(tmp_path / "sqs2pg.keys")
    return Shell(
        tmp_path,
        bare_environment()
        | {
            "DATABASE_URL": database,
            **aws_variables(sqs_endpoint),
            "SQS2PG_SOURCE__QUEUE": queue_url.rsplit("/", 1)[-1],
            "SQS2PG_SOURCE__DRAIN_SETTLE_S": "0",  # the counts of the test's servers never lag
            "SQS2PG_KEYS__FILE": str(tmp_path / "sqs2pg.keys"),
        },
        forks=forks,
    )


@pytest.fixture
def query(database: str) -> Iterator[Callable[..., list[tuple[Any, ...]]]]:
    """Run SQL in the test's database."""
    with psycopg.connect(database, autocommit=True) as connection:

        def run(statement: str, *values: Any) -> list[tuple[Any, ...]]:
            cursor = connection.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

        yield run


@pytest.fixture
def sqs(sqs_endpoint: str) -> Any:
    """A boto3 client of the test's SQS server."""
    return aws_client(
        "sqs",
        sqs_endpoint,
    )


@pytest.fixture
def send(sqs: Any, queue_url: str) -> Callable[[list[str]], list[str]]:
    """Put bodies on the test's queue; return their MessageIds in order."""

    return lambda bodies: logins.send(sqs, queue_url, bodies)


@pytest.fixture
def kms_key(emulator_endpoint: str) -> str:
    """The id of a KMS key of the test's own."""
    kms = aws_client(
        "kms",
        emulator_endpoint,
    )
    key_id: str = kms.create_key()["KeyMetadata"]["KeyId"]
    return key_id
