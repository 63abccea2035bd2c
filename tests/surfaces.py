"""Every place that output of sqs2pg can reach, for the canary test to search.

A surface that is new (a command, a page, a runner) is one entry of SURFACES: how to read all of
it, and how to plant a leak there, by which the test proves that it would find one. What commands
print is covered without an entry: run them in `tests/acceptance/test_canary.py`, and their output
is part of the transcript.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import psycopg

from sqs2pg.mapping.encoder import CopyText
from sqs2pg.postgres.tap import Tap
from sqs2pg.postgres.target_copy import TargetTable
from sqs2pg.status.listener import status_server
from sqs2pg.telemetry.metrics import Metrics
from tests.shell import RUN_S_MAX, Ended, Shell

# Everything logs as much as it can: our own DEBUG, every library's, asyncio's debug mode. The
# patches are statements that run before the command, such as one that makes it crash.
_LOUD = """
import faulthandler, logging, os, sys
faulthandler.enable()
os.environ["PYTHONASYNCIODEBUG"] = "1"  # read by each event loop
from sqs2pg.telemetry import log
quiet = log.configure
def loud(**options):
    quiet(**{{**options, "level": "debug"}})
    logging.getLogger().setLevel(1)
    for logger in logging.getLogger().manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.setLevel(1)
    for name in (*log.PINNED, "botocore.parsers", "botocore.endpoint", "psycopg.pq"):
        logging.getLogger(name).setLevel(1)
log.configure = loud
import sqs2pg.pipeline.consumer
sqs2pg.pipeline.consumer.backoff_s = lambda attempt: 0.01
{patch}
from sqs2pg.cli import main
arguments, code = sys.argv[1:], 0
while arguments:
    end = arguments.index(";") if ";" in arguments else len(arguments)
    try:
        main(arguments[:end])
    except SystemExit as ended:
        code = max(code, ended.code)
    arguments = arguments[end + 1 :]
sys.exit(code)
"""


@dataclass
class World:
    """One pipeline with its database and all of its output."""

    shell: Shell
    database: str
    server_log: Callable[[], str]
    pages: list[bytes] = field(default_factory=list)
    """Answers of the status address."""
    tapped: list[bytes] = field(default_factory=list)
    """Rows that `/tap` and `sqs2pg tap` have shown."""
    exported: list[tuple[str, bytes]] = field(default_factory=list)
    """What the OTLP collector was sent: spans and metrics."""
    planted: list[str] = field(default_factory=list)

    def loud(self, *arguments: str, patch: str = "", code: int = 0, **environment: str) -> Ended:
        """Run a command with all logging at its most verbose; its output joins the transcript.

        Several commands with ";" between them run one after the other in one process.
        """
        return self.python(_LOUD.format(patch=patch), *arguments, code=code, **environment)

    def python(self, text: str, *arguments: str, code: int = 0, **environment: str) -> Ended:
        """Run a Python text as the shell would run sqs2pg."""
        assert self.shell.forks is not None
        done = self.shell.forks.run(
            arguments,
            folder=self.shell.folder,
            environment=self.shell.environment | environment,
            stdin="",
            timeout_s=RUN_S_MAX,
            text=text,
        )
        self.shell.transcript += [done.stdout, done.stderr]
        assert done.returncode == code, f"exit {done.returncode}"
        return Ended(done.returncode, done.stdout, done.stderr)

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database, autocommit=True) as connection:
            cursor = connection.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []


@dataclass(frozen=True)
class Surface:
    """One place: how to read it, how to plant a leak in it, and a word that shows it was read."""

    name: str
    read: Callable[[World], bytes | str]
    plant: Callable[[World, str], None]
    sure: str
    """Stands there after every run: a surface that is never filled would never be found leaking."""
    sees_rows: bool = False
    """Kept fields, which the mapping declares not sensitive, may show here; masked ones never."""


def _transcript(world: World) -> str:
    return "".join(world.shell.transcript)


def _log_an_allowed_field(world: World, text: str) -> None:
    world.python(
        "import structlog; from sqs2pg.telemetry import log; log.configure();"
        f"structlog.get_logger().info('planted', code={text!r})"
    )


def _pages(world: World) -> bytes:
    return b"\n".join(world.pages)


def _count_under_a_value(world: World, text: str) -> None:
    import urllib.request

    metrics = Metrics()
    metrics.faults.labels("decode", text).inc()
    with (
        status_server("127.0.0.1:0", metrics.registry, lambda: (True, b"")) as address,
        urllib.request.urlopen(f"{address}/metrics", timeout=60) as answer,
    ):
        world.pages.append(answer.read())


def _say_it_to_the_server(world: World, text: str) -> None:
    world.sql("SELECT length(%s)", text)


def _every_table(world: World, *, ours: bool) -> str:
    which = "IN" if ours else "NOT IN"
    tables = world.sql(
        "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname "
        f"{which} ('sqs2pg', 'pii') AND schemaname NOT IN ('pg_catalog', 'information_schema')"
        " ORDER BY 1",
    )
    found = []
    for (table,) in tables:
        found += [table, *(row[0] for row in world.sql(f"SELECT t::text FROM {table} t"))]
    return "\n".join(found)


def _detail_of_a_quarantined_one(world: World, text: str) -> None:
    oldest = "(SELECT min(id) FROM sqs2pg.quarantine)"
    world.sql(f"UPDATE sqs2pg.quarantine SET detail = %s WHERE id = {oldest}", text)


def _a_token_of_a_row(world: World, text: str) -> None:
    world.sql("UPDATE events SET masked_ip = %s WHERE masked_ip IS NOT NULL", text)


def _files(world: World) -> bytes:
    found = []
    for folder, _, names in os.walk(world.shell.folder):
        for name in names:
            path = Path(folder) / name
            found += [str(path).encode(), path.read_bytes()]
    return b"\n".join(found)


def _bundles(world: World) -> bytes:
    found = []
    for path in sorted(world.shell.folder.glob("*.zip")):
        with zipfile.ZipFile(path) as bundle:
            found += [bundle.read(name) for name in bundle.namelist()]
    return b"\n".join(found)


def _bundle_a_value(world: World, text: str) -> None:
    with zipfile.ZipFile(world.shell.folder / "planted.zip", "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr("state.json", text)


def _export_a_value(world: World, text: str) -> None:
    world.exported.append(("/v1/traces", text.encode()))


def _show_it_as_a_row(world: World, text: str) -> None:
    tap = Tap()
    tap.read(0.0)
    target = TargetTable("public.events", ("user_id",), "public.events")
    tap.take([target], [CopyText(f"{text}\n".encode(), 1)])
    world.tapped.append(msgspec.json.encode(tap.read(0.0)))


def _leave_a_file(world: World, text: str) -> None:
    (world.shell.folder / "core").write_bytes(text.encode("utf-16-le"))


SURFACES = (
    Surface("stdout, stderr and logs", _transcript, _log_an_allowed_field, "withheld"),
    Surface(
        "the status page, its stream, metrics, health",
        _pages,
        _count_under_a_value,
        "sqs2pg_faults_total",
    ),
    Surface(
        "the server's own log",
        lambda world: world.server_log(),
        _say_it_to_the_server,
        "COPY sqs2pg.delivery",
        sees_rows=True,
    ),
    Surface(
        "our tables",
        lambda world: _every_table(world, ours=True),
        _detail_of_a_quarantined_one,
        "not_json",
    ),
    Surface(
        "the target",
        lambda world: _every_table(world, ours=False),
        _a_token_of_a_row,
        "public.events",
        sees_rows=True,
    ),
    Surface(
        "the tap",
        lambda world: b"\n".join(world.tapped),
        _show_it_as_a_row,
        "public.events",
        sees_rows=True,
    ),
    Surface("support bundles", _bundles, _bundle_a_value, "sqs2pg_messages_received_total"),
    Surface(
        "spans and metrics exported",
        lambda world: b"\n".join(body for _, body in world.exported),
        _export_a_value,
        "COPY events",
    ),
    Surface("files left behind", _files, _leave_a_file, "sqs2pg.toml"),
)
