"""One pipeline's world for the fault tests: its servers, with a fault proxy before each.

The consumer reaches PostgreSQL and SQS through the proxies; the test itself goes around them. The
queue server's manifest and counters are the sender's book: what was sent, how often each message
was delivered, and when it was deleted, which the consumer does only after a durable COMMIT.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest

import sqs2pg.postgres.connection
import sqs2pg.postgres.sink
import sqs2pg.postgres.sqlstate
import sqs2pg.telemetry.metrics
from benchmarks.queue_server import ManifestLine, QueueServer
from sqs2pg.cli.embedded import Postgres
from sqs2pg.errors import Sqs2pgError, Stage
from sqs2pg.pipeline.totals import Totals
from sqs2pg.postgres.migrate import migrate, pipeline_id
from sqs2pg.postgres.sqlstate import DatabaseFault
from sqs2pg.postgres.verify import verify
from sqs2pg.runners.connect import connect
from sqs2pg.runners.pipeline import Pipeline
from sqs2pg.settings import Settings, load
from tests.forked_commands import ForkServer
from tests.local_aws import aws_variables
from tests.logins import login, send_in_batches
from tests.shell import bare_environment

from .proxy import FaultProxy

T = TypeVar("T")

QUEUE = "logins"
VISIBILITY_S = 4
"""Short, so that what a killed consumer held comes back soon; and long enough that a busy machine
extends leases, at a third of it, in time."""
WAIT_S = 120.0
"""Longest wait for an event: for a busy machine, not for the event."""
FIRST_STATEMENTS = b"set_config('statement_timeout', '60000'"
"""In the message that begins a batch's transaction. Neither the upkeep's has it nor that of the
rehearsal before the first batch, which has a shorter timeout."""
COPY_TARGET = b'"create_date") FROM STDIN\0d'
"""Where the COPY of a batch's rows has begun, and the rows come; a rehearsal has none."""
LAST_STATEMENTS = b"rows_deleted) VALUES"
"""In the message that holds a batch's COMMIT; its reply comes when COMMIT is done. A rehearsal
enters no values."""
RECEIVE = b"AmazonSQS.ReceiveMessage"
DELETE = b"AmazonSQS.DeleteMessageBatch"
EXTEND = b"AmazonSQS.ChangeMessageVisibilityBatch"


def users(count: int, prefix: str = "u") -> list[str]:
    """`count` user ids, one per message."""
    return [f"{prefix}{number}" for number in range(count)]


class Met:
    """Codes of the faults that the code under test met, and a wait for one.

    A fault of the database is `postgres_` and its SQLSTATE, noted as it is diagnosed, even where
    the batch goes on by itself; `connect_53300` is a refused connection, one too many. Every code
    is noted as it is counted for the metrics, too.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.codes: collections.Counter[str] = collections.Counter()
        self._waiters: dict[str, list[asyncio.Event]] = {}
        diagnose, connect_fault = (
            sqs2pg.postgres.sqlstate.diagnose,
            sqs2pg.postgres.sqlstate.connect_fault,
        )
        count = sqs2pg.telemetry.metrics.Metrics.count_fault

        def diagnose_noting(error: psycopg.Error) -> DatabaseFault:
            fault = diagnose(error)
            self._note(f"postgres_{fault.sqlstate}")
            return fault

        def count_noting(metrics: Any, stage: Stage, code: str, times: int = 1) -> None:
            self._note(code)
            count(metrics, stage, code, times)

        def connect_noting(error: psycopg.Error, where: str) -> Sqs2pgError:
            if "too many connections" in str(error):  # libpq has no SQLSTATE for it
                self._note("connect_53300")
            return connect_fault(error, where)

        patch.setattr(sqs2pg.postgres.sink, "diagnose", diagnose_noting)
        patch.setattr(sqs2pg.postgres.connection, "connect_fault", connect_noting)
        patch.setattr(sqs2pg.telemetry.metrics.Metrics, "count_fault", count_noting)

    def _note(self, code: str) -> None:
        self.codes[code] += 1
        for waiter in self._waiters.pop(code, []):
            waiter.set()

    async def __call__(self, code: str, times: int = 1) -> None:
        """Wait until it was met `times` times in all."""
        async with asyncio.timeout(WAIT_S):
            while self.codes[code] < times:
                event = asyncio.Event()
                self._waiters.setdefault(code, []).append(event)
                await event.wait()


@dataclass
class Running:
    """A consumer in the test's own process."""

    ready: Pipeline
    task: asyncio.Task[Totals]

    @property
    def totals(self) -> Totals:
        """What it did so far."""
        return self.ready.consumer.totals

    async def until(self, event: Awaitable[T]) -> T:
        """Wait for an event; if the consumer ends first, raise its exception."""
        waiting = asyncio.ensure_future(event)
        await asyncio.wait({waiting, self.task}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            waiting.cancel()
            self.task.result()
            raise AssertionError("the consumer ended by itself")
        return await waiting


@dataclass
class World:
    """Servers and proxies, with methods to control and check them."""

    folder: Path
    database: str
    """URL that goes around the proxy."""
    server: QueueServer
    postgres: FaultProxy
    sqs: FaultProxy
    keys: Path
    forks: ForkServer
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    # -- the pipeline ----------------------------------------------------------------------

    def dsn(self) -> str:
        """URL of the database through the proxy."""
        return psycopg.conninfo.make_conninfo(self.database, port=self.postgres.port)

    def aws(self) -> dict[str, str]:
        """The AWS environment that leads through the proxy. A call is tried twice."""
        return {
            **aws_variables(f"http://127.0.0.1:{self.sqs.port}"),
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_MAX_ATTEMPTS": "2",
        }

    def settings(self, **overrides: Any) -> Settings:
        """Settings of this world; arguments are keys or sections that override ours."""
        tree: dict[str, Any] = {
            "shutdown_grace_s": 10,
            "source": {
                "queue": QUEUE,
                "visibility_timeout_s": VISIBILITY_S,
                "wait_time_s": 1,
                "drain_settle_s": 0,
            },
            "sink": {"dsn": self.dsn()},
            "keys": {"file": str(self.keys)},
        }
        for name, value in overrides.items():
            tree[name] = tree.get(name, {}) | value if isinstance(value, dict) else value
        return load(environ={}, overrides=tree, discover=False)

    @contextlib.asynccontextmanager
    async def consuming(self, **overrides: Any) -> AsyncIterator[Running]:
        """Run a consumer in this process while the block lasts; it must end in good order."""
        async with Pipeline(self.settings(**overrides)) as ready:
            running = Running(ready, asyncio.create_task(ready.consumer.run()))
            try:
                yield running
                ready.consumer.stop()
                await asyncio.wait({running.task}, timeout=WAIT_S)
            finally:
                running.task.cancel()
                await asyncio.wait({running.task})
            running.task.result()

    async def drain(self, **overrides: Any) -> Totals:
        """Run a consumer in this process until the queue is empty."""
        async with Pipeline(self.settings(**overrides)) as ready, asyncio.timeout(WAIT_S):
            return await ready.consumer.run(drain_settle_s=0)

    def spawn(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start `sqs2pg run` as a process; stdout is a pipe, stderr a file `stderr-N`."""
        ours = {
            "SQS2PG_SOURCE__QUEUE": QUEUE,
            "SQS2PG_SOURCE__VISIBILITY_TIMEOUT_S": str(VISIBILITY_S),
            "SQS2PG_SOURCE__WAIT_TIME_S": "1",
            "SQS2PG_SOURCE__DRAIN_SETTLE_S": "0",
            "SQS2PG_SINK__DSN": self.dsn(),
            "SQS2PG_KEYS__FILE": str(self.keys),
        }
        with self.stderr_of(len(self.processes)).open("w") as log:
            process = self.forks.start(
                ["run", "--json", *arguments],
                environment=bare_environment() | self.aws() | ours | environment,
                folder=self.folder,
                stderr=log,
            )
        self.processes.append(process)
        return process

    def stderr_of(self, number: int) -> Path:
        """The file with the stderr of the process spawned as number `number`, from 0."""
        return self.folder / f"stderr-{number}"

    def finish(self, process: subprocess.Popen[str], timeout_s: float = WAIT_S) -> dict[str, Any]:
        """Wait for a process to exit 0; return the totals it printed."""
        code, output = self.end_of(process, timeout_s)
        assert code == 0, output
        totals: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
        return totals

    def end_of(self, process: subprocess.Popen[str], timeout_s: float = WAIT_S) -> tuple[int, str]:
        """Wait for a process; return its exit code, and its stdout or else its stderr."""
        output, _ = process.communicate(timeout=timeout_s)
        said = self.stderr_of(self.processes.index(process)).read_text()
        return process.returncode, output if process.returncode == 0 else said

    def kill(self, process: subprocess.Popen[str]) -> None:
        """kill -9, and wait until it is gone."""
        process.kill()
        process.communicate(timeout=WAIT_S)
        assert process.returncode == -signal.SIGKILL

    # -- the queue -------------------------------------------------------------------------

    def queue(self, name: str = QUEUE, **attributes: str) -> str:
        """Make a queue; return its URL."""
        made = self.server.call("CreateQueue", {"QueueName": name, "Attributes": attributes})
        return str(made["QueueUrl"])

    def send(self, bodies: Sequence[str]) -> list[str]:
        """Send bodies to the queue, around the proxy; return their MessageIds, in order."""
        return send_in_batches(
            lambda entries: self.server.call(
                "SendMessageBatch", {"QueueUrl": QUEUE, "Entries": entries}
            ),
            bodies,
        )

    def send_logins(self, names: Iterable[str]) -> list[str]:
        """Send a healthy login of each user."""
        return self.send([login(name) for name in names])

    async def reached(self, counter: str, at_least: int, **options: Any) -> bool:
        """Wait for a counter of the queue server; whether it got there in time."""
        call: Callable[..., Any] = self.server.wait
        options = {"timeout_s": WAIT_S} | options
        stats = await asyncio.to_thread(call, counter, at_least=at_least, **options)
        return bool(stats["reached"])

    async def deleted(self, count: int) -> None:
        """Wait until `count` messages were deleted in all, so were settled."""
        reached = await self.reached("deleted", count)
        assert reached, f"{self.server.stats()['deleted']} of {count} messages deleted"

    def manifest(self) -> list[ManifestLine]:
        """The sender's book."""
        return list(self.server.manifest())

    def fired(self, call: str, kind: str) -> int:
        """How often a fault of the queue server fired."""
        return int(self.server.faults()["calls"][call]["fired"][kind])

    # -- the database ----------------------------------------------------------------------

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run SQL around the proxy, committed at once."""
        return _run(self.database, statement, *values)

    def administer(self, statement: str) -> None:
        """Run SQL from outside of the database; `{name}` in it stands for the database."""
        _run(self.database.rpartition("/")[0] + "/postgres", statement.format(name=self.name))

    @property
    def name(self) -> str:
        """The database's name."""
        return self.database.rpartition("/")[2]

    def terminate(self) -> int:
        """pg_terminate_backend on every other session of the database; return how many."""
        return len(
            self.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )

    # -- the end ---------------------------------------------------------------------------

    async def check(self, names: Iterable[str], *, malformed: Sequence[str] = ()) -> None:
        """Every user's login is there once and nothing else is; the books balance.

        `malformed` are MessageIds that must be in quarantine, each once, and no others.
        """
        found = [row[0] for row in self.sql("SELECT user_id FROM user_logins ORDER BY 1")]
        expected = sorted(names)
        counted = collections.Counter(found)
        assert [name for name, count in counted.items() if count > 1] == [], "doubled"
        assert sorted(set(expected) - set(found)) == [], "lost"
        assert found == expected
        aside = self.sql("SELECT message_id FROM sqs2pg.quarantine ORDER BY 1")
        assert [row[0] for row in aside] == sorted(malformed)
        ledger = dict(self.sql("SELECT outcome::text, count(*) FROM sqs2pg.delivery GROUP BY 1"))
        assert ledger.get("written", 0) == len(expected)
        assert ledger.get("quarantined", 0) == len(malformed)
        session = await connect(self.settings(sink={"dsn": self.database}))
        try:
            report = await verify(session, await pipeline_id(session, self.settings()))
        finally:
            await session.close()
        assert report.ok, report.differences

    def check_queue_empty(self) -> None:
        """No message is left on the queue, in any state."""
        stats = self.server.stats()
        assert (stats["visible"], stats["in_flight"], stats["delayed"]) == (0, 0, 0)


def _run(url: str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement, values or None)
        return cursor.fetchall() if cursor.description else []


async def prepare(world: World) -> None:
    """Make the tables."""
    chosen = world.settings(sink={"dsn": world.database})
    session = await connect(chosen)
    await migrate(session, chosen)
    await session.close()


def emptied(server: Postgres) -> str:
    """Start a server that may be down, drop what tests made there; return its database's URL."""
    server.start()
    with psycopg.connect(server.url, autocommit=True) as admin:
        admin.execute("DROP SCHEMA IF EXISTS sqs2pg, pii CASCADE; DROP TABLE IF EXISTS user_logins")
    return server.url
