"""The servers of the suite: one PostgreSQL, and for each run a fresh database and queue server.

PostgreSQL is the embedded one with fsync on, as a child of ours, or the one that
BENCH_DATABASE_URL names; there each run has a scratch database, dropped after it. The tables are
migrated once, into a template. The queue server is our C one, a process of its own.
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

from .contenders import Target
from .contenders import pipeline as ours
from .queue_server import QueueServer

QUEUE = "login-queue"
POSTGRES_OPTIONS: Mapping[str, str] = {"track_commit_timestamp": "on"}
"""For exact latencies; everything else is PostgreSQL's default, or the embedded server's."""


class BenchmarkError(RuntimeError):
    """A run did not do what it should have; its figures are worth nothing."""


@dataclasses.dataclass
class Stand:
    """One run's queue server and database."""

    server: QueueServer
    database_url: str
    target: Target
    postgres_pid: int | None
    rows: int = 0
    """Rows that earlier runs on this stand left in the target."""

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Run one of the suite's own statements; return its rows."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            return connection.execute(statement.encode()).fetchall()


@dataclasses.dataclass
class Rig:
    """What all runs share."""

    admin_url: str
    postgres_pid: int | None
    """None where PostgreSQL is not ours: its CPU time is not known then."""
    folder: Path
    settings: Mapping[str, str]
    ambient: bool = False
    """The user's own PG* variables complete `admin_url`."""
    name: str = dataclasses.field(default_factory=lambda: f"sqs2pg_bench_{secrets.token_hex(4)}")

    @property
    def keys(self) -> Path:
        """The key file of our pipeline."""
        return self.folder / "sqs2pg.keys"

    def create(self) -> None:
        """Make the template database, empty. Raises BenchmarkError."""
        try:
            self._admin("CREATE DATABASE {} TEMPLATE template0", self.name)
        except psycopg.errors.InsufficientPrivilege:
            raise BenchmarkError(
                "the database's user may not create the scratch databases: "
                "give it CREATEDB, or another user in BENCH_DATABASE_URL"
            ) from None

    def prepare(self) -> None:
        """Make the keys, and migrate the template. Raises BenchmarkError."""
        nowhere = self._target("http://127.0.0.1:9", QUEUE, self.name)
        for arguments in (("keys", "init"), ("migrate",)):
            done = subprocess.run(
                ours.command(*arguments),
                env=ours.environment(nowhere),
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise BenchmarkError(f"sqs2pg {arguments[0]}: {done.stderr.strip()}")

    def close(self) -> None:
        """Drop the template."""
        self._admin("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name)

    @contextlib.contextmanager
    def stand(self, *, tls: bool = False) -> Iterator[Stand]:
        """Make a fresh database and a fresh queue server with an empty queue."""
        database = f"{self.name}_{secrets.token_hex(3)}"
        self._admin("CREATE DATABASE {} TEMPLATE {}", database, self.name)
        # What one run left to be written must not be the next one's burden.
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
    ) -> Target:
        return Target(
            endpoint_url=endpoint_url,
            queue_url=queue_url,
            database_url=with_database(self.admin_url, database),
            folder=self.folder,
            keys=self.keys,
            ca=self.folder / "ca.pem" if tls else None,
            settings=self.settings,
            ambient=self.ambient,
        )


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
    """Start or find PostgreSQL and prepare it; everything made is gone at the end.

    On the main thread only. Raises BenchmarkError, or what the servers raise.
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
