"""What production has and the embedded default lacks: PostgreSQL 15 with TLS, and poolers.

One cluster and one pooler per pytest process, of the system's own programs, on free ports and on
data of their own; a fresh database per test. The pipeline's role owns its databases and nothing
else, and gets in by TLS only. If a program is missing, the tests fail: a skip proves nothing.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import psycopg
import pytest
import trustme
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from sqs2pg.cli.embedded import Postgres, memory_folder
from sqs2pg.cli.embedded.child_process import Child, reserve_port
from sqs2pg.cli.embedded.run_folder import RunFolder, new_run_folder
from tests.shell import Shell, bare_environment

BINARIES = Path("/usr/lib/postgresql/15/bin")
ROLE = "pipeline"
START_S_MAX = 60


@dataclass(frozen=True)
class Tls:
    """A certificate authority, and a server's certificate for 127.0.0.1 that it signed."""

    authority: Path
    other_authority: Path
    """Another one, which signed nothing."""
    certificate: Path
    key: Path


@dataclass(frozen=True)
class Cluster:
    """A PostgreSQL 15 that runs. `server` stops and starts it, on the same port and data."""

    server: Postgres
    tls: Tls
    password: str = field(repr=False)
    """The pipeline's role's."""

    def dsn(self, database: str, port: int | None = None, **options: str) -> str:
        """Connection string of the pipeline's role: verify-full, unless `options` say otherwise."""
        given = {"sslmode": "verify-full", "sslrootcert": str(self.tls.authority)} | options
        query = "&".join(f"{name}={value}" for name, value in given.items())
        address = f"127.0.0.1:{port or self.server.port}"
        return f"postgresql://{ROLE}:{self.password}@{address}/{database}?{query}"


@dataclass(frozen=True)
class Pooler:
    """A PgBouncer or pgpool-II that runs."""

    port: int
    child: Child = field(repr=False)
    size: ClassVar[int] = 3
    """Server connections a database in the fixture `pooler`: fewer than a drain with two workers
    has to the pooler."""


@pytest.fixture(scope="session")
def system_folder() -> Iterator[RunFolder]:
    """The run folder of the system servers, which says what user they run as."""
    with new_run_folder(memory_folder(2**30)) as folder:
        yield folder


@pytest.fixture(scope="session")
def tls(system_folder: RunFolder) -> Tls:
    """Fresh certificates; the key is readable by the servers' user alone."""
    folder = system_folder.make_private("tls")
    folder.chmod(0o711)  # clients read the authority by its path
    authority = trustme.CA()
    made = Tls(
        folder / "ca.pem", folder / "other.pem", folder / "server.pem", folder / "server.key"
    )
    authority.cert_pem.write_to_path(made.authority)
    trustme.CA().cert_pem.write_to_path(made.other_authority)
    issued = authority.issue_cert("127.0.0.1")
    made.certificate.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
    made.key.touch(0o600)
    issued.private_key_pem.write_to_path(made.key)
    system_folder.give(made.key)
    return made


@pytest.fixture(scope="session")
def cluster(system_folder: RunFolder, tls: Tls) -> Iterator[Cluster]:
    """The system's PostgreSQL 15: scram-sha-256, and TLS for everyone but the fixtures."""
    require(BINARIES / "postgres")
    access = system_folder.path / "pg_hba.conf"
    access.write_text(
        "local   all all                   scram-sha-256\n"
        "host    all postgres 127.0.0.1/32 scram-sha-256\n"
        "hostssl all all      127.0.0.1/32 scram-sha-256\n"
    )
    server = Postgres(
        system_folder,
        binaries=BINARIES,
        options={
            "hba_file": str(access),
            "password_encryption": "scram-sha-256",
            "ssl": "on",
            "ssl_cert_file": str(tls.certificate),
            "ssl_key_file": str(tls.key),
            "unix_socket_directories": str(system_folder.make_private("socket")),
        },
    )
    password = secrets.token_hex(16)
    try:
        server.start()
        with psycopg.connect(server.url, autocommit=True) as admin:
            admin.execute(
                sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(
                    sql.Identifier(ROLE), sql.Literal(password)
                )
            )
        yield Cluster(server, tls, password)
    finally:
        server.close()


@contextmanager
def pgbouncer_before(
    cluster: Cluster, folder: RunFolder, mode: str = "transaction", more: str = ""
) -> Iterator[Pooler]:
    """Run PgBouncer before the cluster. `more` are lines of its settings."""
    own = folder.make_private(f"pgbouncer_{secrets.token_hex(4)}")
    users, settings = own / "users.txt", own / "pgbouncer.ini"
    users.write_text(f'"{ROLE}" "{cluster.password}"\n')
    port = reserve_port()
    settings.write_text(
        f"""
[databases]
* = host=127.0.0.1 port={cluster.server.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port.getsockname()[1]}
unix_socket_dir =
pool_mode = {mode}
auth_type = scram-sha-256
auth_file = {users}
client_tls_sslmode = require
client_tls_cert_file = {cluster.tls.certificate}
client_tls_key_file = {cluster.tls.key}
server_tls_sslmode = verify-full
server_tls_ca_file = {cluster.tls.authority}
{more}
"""
    )
    with _running(cluster, folder, "pgbouncer", [settings], port, [users, settings]) as started:
        yield started


@contextmanager
def pgpool_before(cluster: Cluster, folder: RunFolder) -> Iterator[Pooler]:
    """Run pgpool-II before the cluster, with what it needs for one server and no cache."""
    own = folder.make_private(f"pgpool_{secrets.token_hex(4)}")
    settings, access, users = own / "pgpool.conf", own / "pool_hba.conf", own / "pool_passwd"
    users.write_text(f"{ROLE}:TEXT{cluster.password}\n")
    access.write_text("hostssl all all 127.0.0.1/32 scram-sha-256\n")
    port, control = reserve_port(), reserve_port()
    settings.write_text(
        f"""
backend_clustering_mode = 'streaming_replication'
sr_check_period = 0
sr_check_user = '{ROLE}'
sr_check_database = 'postgres'
search_primary_node_timeout = 5
listen_addresses = '127.0.0.1'
port = {port.getsockname()[1]}
pcp_listen_addresses = '127.0.0.1'
pcp_port = {control.getsockname()[1]}
socket_dir = '{own}'
pcp_socket_dir = '{own}'
pid_file_name = '{own}/pgpool.pid'
logdir = '{own}'
backend_hostname0 = '127.0.0.1'
backend_port0 = {cluster.server.port}
num_init_children = 12
enable_pool_hba = on
pool_passwd = '{users}'
ssl = on
ssl_cert = '{cluster.tls.certificate}'
ssl_key = '{cluster.tls.key}'
"""
    )
    arguments = ["-n", "-f", settings, "-a", access]
    files = [settings, access, users]
    try:
        with _running(cluster, folder, "pgpool", arguments, port, files) as started:
            yield started
    finally:
        control.close()


@contextmanager
def _running(
    cluster: Cluster,
    folder: RunFolder,
    program: str,
    arguments: list[str | Path],
    port: socket.socket,
    files: list[Path],
) -> Iterator[Pooler]:
    """Run a pooler that listens on `port` as the servers' user, who alone may read its files."""
    path = require(shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin"))
    child = Child(
        program,
        folder,
        log_file=folder.path / f"{files[0].parent.name}.log",
        environment={"PATH": os.environ["PATH"], "LC_ALL": "C"},
        death_signal=signal.SIGKILL,
        account=folder.account,
    )
    started = Pooler(port.getsockname()[1], child)
    for file in files:
        file.chmod(0o600)
        folder.give(file)
    try:
        child.start([path, *arguments])
        dsn = cluster.dsn("postgres", started.port)
        answered = child.wait_until(lambda: answers(dsn), deadline=time.monotonic() + START_S_MAX)
        assert answered, child.log_file.read_text()
        yield started
    finally:
        child.stop(signal.SIGTERM, grace_s=10)
        port.close()


@pytest.fixture(scope="session")
def pooler(cluster: Cluster, system_folder: RunFolder) -> Iterator[Pooler]:
    """PgBouncer before the cluster, with only the settings that transaction mode needs.

    Neither `ignore_startup_parameters` nor `max_prepared_statements` is set. `server_round_robin`
    hands the transactions of one client to each server connection in turn, so that whatever is
    left in a session between two of them is missed.
    """
    more = f"default_pool_size = {Pooler.size}\nserver_round_robin = 1"
    with pgbouncer_before(cluster, system_folder, more=more) as started:
        yield started


@pytest.fixture
def postgres15(cluster: Cluster) -> Iterator[str]:
    """Connection string of a fresh database on the cluster, which the pipeline's role owns."""
    name = f"test_{secrets.token_hex(8)}"
    with psycopg.connect(cluster.server.url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} OWNER {ROLE} TEMPLATE template0")
    yield cluster.dsn(name)
    with psycopg.connect(cluster.server.url, autocommit=True) as admin:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def pgbouncer(cluster: Cluster, pooler: Pooler, postgres15: str) -> str:
    """Connection string of the test's `postgres15` database through PgBouncer."""
    return cluster.dsn(str(conninfo_to_dict(postgres15)["dbname"]), pooler.port)


@pytest.fixture
def make_shell(
    tmp_path: Path, aws_environment: dict[str, str], queue_url: str
) -> Callable[[str], Shell]:
    """Make a shell pointed at a database and the test's queue; all have one key file."""
    keys = str(tmp_path / "sqs2pg.keys")

    def make(dsn: str) -> Shell:
        leading = {
            "DATABASE_URL": dsn,
            "SQS2PG_SOURCE__QUEUE": queue_url.rsplit("/", 1)[-1],
            "SQS2PG_KEYS__FILE": keys,
        }
        return Shell(tmp_path, bare_environment() | aws_environment | leading)

    make("")("keys", "init")
    return make


def require(program: str | Path | None) -> Path:
    """Return the program's path; fail the test where there is none."""
    if program is None or not Path(program).is_file():
        pytest.fail("a system program is missing: run `make test-system`, which installs it")
    return Path(program)


def answers(dsn: str) -> bool:
    """Whether a query gets through."""
    try:
        with psycopg.connect(dsn, connect_timeout=5, autocommit=True) as connection:
            connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True
