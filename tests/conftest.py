"""Fixtures that give every test a real PostgreSQL and a real SQS server.

One pair of servers a pytest process (so one an xdist worker); a fresh database and a fresh queue a
test. Nothing here is shared between tests but the servers.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import psycopg
import pytest
from hypothesis import HealthCheck, settings

from sqs2pg.cli.embedded import Servers, memory_folder
from sqs2pg.cli.embedded import servers as start_servers

# How long a draw or an example takes says how busy the machine is, and nothing of what is tested.
settings.register_profile(
    "untimed", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("untimed")

_NEED_BYTES = 2 * 2**30
"""Room in memory that the databases of one worker may take; without it they go to the disk."""


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """Both local servers. A test that stops one must start it again, or better use its own.

    PostgreSQL's programs are those of the folder SQS2PG_TEST_POSTGRES, where it is set.
    """
    chosen = os.environ.get("SQS2PG_TEST_POSTGRES")
    with start_servers(
        base=memory_folder(_NEED_BYTES), postgres_binaries=Path(chosen) if chosen else None
    ) as local:
        yield local


@pytest.fixture
def database(servers: Servers) -> Iterator[str]:
    """URL of a fresh, empty database, connected to as superuser; dropped at the end."""
    name = f"test_{secrets.token_hex(8)}"
    with psycopg.connect(servers.database_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    yield f"{servers.database_url.rpartition('/')[0]}/{name}"
    with psycopg.connect(servers.database_url, autocommit=True) as admin:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def sqs_endpoint(servers: Servers) -> str:
    """`http://127.0.0.1:port` of the SQS server."""
    return servers.sqs_endpoint


@pytest.fixture(scope="session")
def sqs_client(servers: Servers) -> Iterator[Any]:
    """A botocore SQS client of the local server, whatever the environment says."""
    with pytest.MonkeyPatch.context() as patch:
        _point_aws_at(servers, patch)
        client = botocore.session.Session().create_client("sqs")
    yield client
    client.close()


@pytest.fixture
def queue_url(sqs_client: Any) -> Iterator[str]:
    """URL of a fresh standard queue with a visibility timeout of 30 s; deleted at the end."""
    name = f"test-{secrets.token_hex(8)}"
    url: str = sqs_client.create_queue(QueueName=name, Attributes={"VisibilityTimeout": "30"})[
        "QueueUrl"
    ]
    yield url
    sqs_client.delete_queue(QueueUrl=url)


@pytest.fixture
def aws_environment(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Point the process's AWS environment at the local server, and only there; return it.

    Every AWS_* variable of the user is gone for the test, and so are the files in ~/.aws.
    """
    return _point_aws_at(servers, monkeypatch)


def _point_aws_at(servers: Servers, patch: pytest.MonkeyPatch) -> dict[str, str]:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        patch.delenv(name)
    local = {
        name: value for name, value in servers.environment().items() if name.startswith("AWS_")
    }
    local |= {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    for name, value in local.items():
        patch.setenv(name, value)
    return local
