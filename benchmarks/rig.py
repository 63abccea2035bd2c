"""The servers of the suite: one PostgreSQL, and a new database and queue server for each run.

PostgreSQL is either the embedded server with fsync on, as a child process, or the server in
BENCH_DATABASE_URL. Each run has its own database, which is dropped afterwards. The tables are
migrated once, in a template database. The queue server is our C server, in its own process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import conninfo, sql

from sqs2pg.cli.embedded import servers

from .contenders import RunTarget
from .contenders import pipeline as ours
from .queue_server import QueueServer

QUEUE = "login-queue"
POSTGRES_OPTIONS: Mapping[str, str] = {"track_commit_timestamp": "on"}
"""For exact latencies; all other options are the defaults of PostgreSQL or the embedded server."""


class BenchmarkError(RuntimeError):
    """A run failed or gave wrong results; its figures are not valid."""


@dataclasses.dataclass
class Stand:
    """One run's queue server and database."""

    server: QueueServer
    database_url: str
    target: RunTarget
    postgres_pid: int | None
    rows: int = 0
    """Rows in the target from earlier runs on this stand."""

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Run one of the suite's own statements; return its rows, if it gives any."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []


@dataclasses.dataclass
class Rig:
    """The PostgreSQL server, folder and settings that all runs share."""

    admin_url: str
    postgres_pid: int | None
    """None if the suite did not start PostgreSQL; its CPU time is then unknown."""
    folder: Path
    settings: Mapping[str, str]
    ambient: bool = False
    """Whether the user's PG* variables complete `admin_url`."""
    name: str = dataclasses.field(default_factory=lambda: f"sqs2pg_bench_{secrets.token_hex(4)}")

    @property
    def keys(self) -> Path:
        """The pipeline's key file."""
        return self.folder / "sqs2pg.keys"

    def create(self) -> None:
        """Create an empty template database. Raises BenchmarkError."""
        try:
            self._admin("CREATE DATABASE {} TEMPLATE template0", self.name)
        except psycopg.errors.InsufficientPrivilege:
            raise BenchmarkError(
                "the database user may not create the scratch databases: "
                "grant CREATEDB, or use another user in BENCH_DATABASE_URL"
            ) from None

    def prepare(self) -> None:
        """Create the keys and migrate the template. Raises BenchmarkError."""
        nowhere = self._target("http://127.0.0.1:9", QUEUE, self.name)
        for arguments in (("keys", "init"), ("migrate",)):
            run_command(nowhere, *arguments)

    def close(self) -> None:
        """Drop the template database."""
        self._admin("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name)

    @contextlib.contextmanager
    def stand(self, *, tls: bool = False) -> Iterator[Stand]:
        """Create a new database and a new queue server with an empty queue."""
        database = f"{self.name}_{secrets.token_hex(3)}"
        self._admin("CREATE DATABASE {} TEMPLATE {}", database, self.name)
        # A run must not have to write pages that the previous run left dirty.
        with contextlib.suppress(psycopg.errors.InsufficientPrivilege):
            self._admin("CHECKPOINT")
        try:
            with self._queue_server(tls=tls) as server:
                created = server.call("CreateQueue", {"QueueName": QUEUE})
                target = self._target(server.endpoint_url, created["QueueUrl"], database, tls=tls)
                yield Stand(server, target.database_url, target, self.postgres_pid)
        finally:
            self._admin("DROP DATABASE IF EXISTS {} WITH (FORCE)", database)

    def _queue_server(self, *, tls: bool) -> QueueServer:
        if not tls:
            return QueueServer()
        certificate, key, ca = (self.folder / name for name in ("cert.pem", "key.pem", "ca.pem"))
        if not certificate.exists():
            import trustme

            authority = trustme.CA()
            issued = authority.issue_cert("127.0.0.1", "localhost")
            authority.cert_pem.write_to_path(str(ca))
            issued.private_key_pem.write_to_path(str(key))
            with certificate.open("wb") as file:
                file.writelines(blob.bytes() for blob in issued.cert_chain_pems)
        return QueueServer(certificate=certificate, key=key, ca=ca)

    def _admin(self, statement: str, *names: str) -> None:
        with psycopg.connect(self.admin_url, autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

    def _target(
        self, endpoint_url: str, queue_url: str, database: str, *, tls: bool = False
    ) -> RunTarget:
        return RunTarget(
            endpoint_url=endpoint_url,
            queue_url=queue_url,
            database_url=with_database(self.admin_url, database),
            folder=self.folder,
            keys=self.keys,
            ca=self.folder / "ca.pem" if tls else None,
            settings=self.settings,
            ambient=self.ambient,
        )


def run_command(
    target: RunTarget,
    *arguments: str,
    settings: Path | str = "/dev/null",
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a `sqs2pg` command on a target; return its stdout. Raises BenchmarkError.

    `settings`: the settings file, or a folder of them. `environment`: instead of the target's own.
    """
    done = subprocess.run(
        ours.command(*arguments, settings=settings),
        env=ours.environment(target) if environment is None else environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BenchmarkError(f"sqs2pg {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def with_database(dsn: str, database: str) -> str:
    """Return a connection string with another database; a URL stays a URL."""
    if not dsn.startswith(("postgresql://", "postgres://")):
        return conninfo.make_conninfo(dsn, dbname=database)
    parts = urlsplit(dsn)
    return urlunsplit(parts._replace(path=f"/{database}"))


@contextlib.contextmanager
def open_rig(
    *, database_url: str = "", settings: Mapping[str, str], fsync: bool = True
) -> Iterator[Rig]:
    """Start or connect to PostgreSQL and prepare it; remove everything created at the end.

    Call it on the main thread only. Raises BenchmarkError, or what the servers raise.
    """
    with contextlib.ExitStack() as stack:
        if database_url:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sqs2pg-bench-")))
            rig = Rig(database_url, None, folder, settings, ambient=True)
        else:
            local = stack.enter_context(
                servers(sqs=False, durable=fsync, postgres_options=POSTGRES_OPTIONS)
            )
            assert local.postgres is not None
            rig = Rig(local.database_url, local.postgres.pid, local.folder, settings)
        rig.create()
        stack.callback(rig.close)
        rig.prepare()
        yield rig
