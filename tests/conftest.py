"""Fixtures that give every test a real PostgreSQL and a real SQS server.

One PostgreSQL and one queue server for each pytest process (so for each xdist worker), a fresh
database and a fresh queue for each test. Tests share nothing but the servers, and a template that
databases are copied from.

The queue server is ours (benchmarks/queue_server), and a test whose subject is another service, or
a call that ours does not have, asks for the `emulator` in its place. Both pass one contract suite
(tests/contract). Ours answers in a tenth of the time, and notices when a poll is cut.
"""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import worker_reports
from tests.hypothesis_profiles import choose_profile
from tests.local_aws import REGION, SHORT_POLLS, aws_variables

# What needs the servers imports them when it is used: the controller of pytest-xdist never does,
# and its workers start after it.
if TYPE_CHECKING:
    import psycopg

    from benchmarks.queue_server import QueueServer
    from sqs2pg.cli.embedded import Servers
    from tests.forked_commands import ForkServer

# Under nohup, and for `&` in a script, SIGINT or SIGHUP is ignored, and every child inherits that.
# The tests are of processes that are started by a user or a supervisor. A signal that has a handler
# here has its default in a child that is executed. A hangup still does not end the suite.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)

choose_profile()

_TEMPORARY_BYTES = 2**30
"""Room in memory that `tmp_path` needs; only of a test that failed it is kept."""


def pytest_configure(config: pytest.Config) -> None:
    # A new folder costs ten microseconds in memory, and a millisecond or two on a journaling disk.
    # Workers get the choice with their environment.
    if "PYTEST_DEBUG_TEMPROOT" not in os.environ:
        from sqs2pg.cli.embedded import memory_folder

        if memory := memory_folder(_TEMPORARY_BYTES):
            os.environ["PYTEST_DEBUG_TEMPROOT"] = str(memory)
    worker_reports.install(config)


def pytest_collection() -> None:
    """Let no collection of garbage look through the tests and modules while their number grows."""
    gc.disable()


@pytest.hookimpl(trylast=True)  # after the shuffle
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_collection_finish() -> None:
    """Nor through the thousands of them once they are there."""
    gc.collect()
    gc.freeze()
    gc.enable()


_NEED_BYTES = 2 * 2**30
"""Room in memory that the databases of one worker may take; without it they go to the disk."""


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """PostgreSQL alone. A test that stops it must start it again, or better use its own.

    Its programs are those of the folder SQS2PG_TEST_POSTGRES, where it is set.
    """
    from sqs2pg.cli.embedded import memory_folder
    from sqs2pg.cli.embedded import servers as start_servers

    chosen = os.environ.get("SQS2PG_TEST_POSTGRES")
    with start_servers(
        sqs=False,
        base=memory_folder(_NEED_BYTES),
        postgres_binaries=Path(chosen) if chosen else None,
    ) as local:
        yield local


@pytest.fixture(scope="session")
def emulator() -> Iterator[Servers]:
    """The emulator of AWS that users get by default. It has S3, SNS, KMS and others beside SQS.

    For a test that asks for it, `sqs_endpoint` and `queue_url` are the emulator's.
    """
    from sqs2pg.cli.embedded import memory_folder
    from sqs2pg.cli.embedded import servers as start_servers

    with start_servers(postgres=False, base=memory_folder(2**28)) as local:
        yield local


@pytest.fixture(scope="session")
def emulator_endpoint(emulator: Servers) -> str:
    """`http://127.0.0.1:port` of the emulator, for every AWS service."""
    return emulator.sqs_endpoint


@pytest.fixture(scope="session")
def shared_queue_server() -> Iterator[QueueServer]:
    """Our queue server. A test that has faults set, or reads the counters, uses one of its own."""
    from benchmarks.queue_server import QueueServer

    with QueueServer(*SHORT_POLLS) as server:
        yield server


class Administrator:
    """The superuser's one session of the server, for what is done before and after each test."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._session = self._connect()
        self._version = self._session.info.server_version

    def _connect(self) -> psycopg.Connection[Any]:
        import psycopg

        return psycopg.connect(self._servers.database_url, autocommit=True)

    def __call__(self, statement: str) -> None:
        """Run a statement, in a new session where a test has ended this one."""
        import psycopg

        try:
            self._session.execute(statement)
        except psycopg.OperationalError:
            if not self._session.broken:
                raise
            self.close()
            self._session = self._connect()
            self._session.execute(statement)

    def copy(self, template: str, name: str) -> None:
        """Make a database. Files are copied, which is half the work of writing it to the log."""
        how = " STRATEGY file_copy" if self._version >= 150_000 else ""  # older ones always do it
        self(f"CREATE DATABASE {name} TEMPLATE {template}{how}")

    def hasten_logins(self) -> None:
        """Let the server take passwords that are quick to check: that is half of a connection."""
        if self._version >= 160_000:
            assert self._servers.postgres is not None
            self("ALTER SYSTEM SET scram_iterations = 1")
            self("SELECT pg_reload_conf()")
            self("SET scram_iterations = 1")
            self(f"ALTER ROLE postgres PASSWORD '{self._servers.postgres.password}'")

    def close(self) -> None:
        self._session.close()


@pytest.fixture(scope="session")
def administrator(servers: Servers) -> Iterator[Administrator]:
    """A session of the superuser."""
    made = Administrator(servers)
    made.hasten_logins()
    yield made
    made.close()


@pytest.fixture(scope="session")
def migrated_template(servers: Servers, administrator: Administrator) -> str:
    """Name of a database as `sqs2pg migrate` leaves it with the built-in mapping; only to copy."""
    from sqs2pg.postgres.migrate import migrate
    from sqs2pg.runners.connect import connect
    from sqs2pg.settings import load

    name = "test_migrated"
    administrator.copy("template0", name)

    async def bring_up() -> None:
        chosen = load(environ={}, overrides={"sink": {"dsn": _url(servers, name)}}, discover=False)
        session = await connect(chosen)
        await migrate(session, chosen)
        await session.close()

    # In a thread, so that it leaves no trace in the event loops of the tests.
    with ThreadPoolExecutor() as thread:
        thread.submit(asyncio.run, bring_up()).result()
    administrator(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")  # none stops a copy
    return name


@pytest.fixture(scope="session")
def forks() -> Iterator[ForkServer]:
    """What commands are forked from."""
    from tests.forked_commands import ForkServer

    server = ForkServer()
    yield server
    server.close()


@pytest.fixture
def database(
    servers: Servers, administrator: Administrator, request: pytest.FixtureRequest
) -> Iterator[str]:
    """URL of the test's own database, connected to as superuser; dropped at the end.

    It is empty, unless the test or one of its fixtures asks for `migrated_database`.
    """
    template = "template0"
    if "migrated_database" in request.fixturenames:
        template = request.getfixturevalue("migrated_template")
    name = f"test_{secrets.token_hex(8)}"
    administrator.copy(template, name)
    yield _url(servers, name)
    administrator(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def migrated_database(database: str) -> str:
    """The test's `database`, with what `sqs2pg migrate` makes for the built-in mapping.

    It is copied from a template, a third of the work of migrating. A test about `migrate`, or of
    another mapping, table or pipeline name, starts from an empty `database`.
    """
    return database


def _url(servers: Servers, name: str) -> str:
    return f"{servers.database_url.rpartition('/')[0]}/{name}"


@pytest.fixture
def sqs_endpoint(request: pytest.FixtureRequest) -> str:
    """`http://127.0.0.1:port` of the test's SQS server."""
    if "emulator" in request.fixturenames:
        emulator: Servers = request.getfixturevalue("emulator")
        return emulator.sqs_endpoint
    ours: QueueServer = request.getfixturevalue("shared_queue_server")
    return ours.endpoint_url


@pytest.fixture(scope="session")
def _sqs_clients() -> Iterator[Callable[[str], Any]]:
    """Gives the botocore SQS client of an endpoint, whatever the environment says."""
    import botocore.session

    clients: dict[str, Any] = {}

    def client(endpoint: str) -> Any:
        if endpoint not in clients:
            with pytest.MonkeyPatch.context() as patch:
                _point_aws_at(endpoint, patch)
                clients[endpoint] = botocore.session.Session().create_client("sqs")
        return clients[endpoint]

    yield client
    for made in clients.values():
        made.close()


@pytest.fixture
def sqs_client(_sqs_clients: Callable[[str], Any], sqs_endpoint: str) -> Any:
    """A botocore client of the test's SQS server."""
    return _sqs_clients(sqs_endpoint)


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
def aws_environment(sqs_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Point the process's AWS environment at the test's server, and only there; return it.

    Every AWS_* variable of the user is gone for the test, and so are the files in ~/.aws.
    """
    return _point_aws_at(sqs_endpoint, monkeypatch)


def _point_aws_at(endpoint: str, patch: pytest.MonkeyPatch) -> dict[str, str]:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        patch.delenv(name)
    local = aws_variables(endpoint) | {
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    for name, value in local.items():
        patch.setenv(name, value)
    return local
