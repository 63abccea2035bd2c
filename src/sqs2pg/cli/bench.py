"""`sqs2pg bench`: a short benchmark, on this machine and, if asked for, on the user's database.

In a checkout the suite in `benchmarks/` measures, in a process of its own: its queue server is fast
enough not to be the limit, and it has the scripts to compare with. Elsewhere the SQS emulator of
the extra `local` is the queue. It is slower than the pipeline, so the throughput says little and
the CPU time says much; there are no ratios.

On the user's server it works only in a scratch database, which it makes and drops.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import click
import msgspec

import sqs2pg
from sqs2pg.cli.embedded import servers
from sqs2pg.cli.embedded.local_environment import pointed_at, prepare
from sqs2pg.cli.embedded.sample_logins import logins
from sqs2pg.cli.options import config_option, json_option, print_json, read_settings, run_async
from sqs2pg.errors import FatalFault, SettingsError
from sqs2pg.keys import provider_file
from sqs2pg.settings import Settings, load

if TYPE_CHECKING:
    from sqs2pg.runners.pipeline import Pipeline

_UNAVAILABLE = 69  # the suite cannot run here: no C compiler
_EMULATED_MESSAGES = 3_000  # a longer backlog slows the emulator down
_FROM_ENVIRONMENT = "application_name=sqs2pg"  # libpq's PG* variables say the rest
_CHECK_S = 0.005


class BenchResult(msgspec.Struct):
    """The flat object that `--json` prints; None is what could not be measured."""

    messages_per_second: float | None
    cpu_us_per_message: float | None
    ratio_plain_script: float | None = None
    ratio_tuned_script: float | None = None


@click.command()
@config_option
@click.option(
    "--database",
    type=click.Choice(["embedded", "configured"]),
    default="embedded",
    show_default=True,
    help="configured: a scratch database on the server of the settings; needs CREATEDB.",
)
@click.option("--runs", default=3, show_default=True, type=click.IntRange(1, 20))
@click.option(
    "--seconds",
    default=6.0,
    show_default=True,
    type=click.FloatRange(0.1, 15),
    help="How long each run should take.",
)
@json_option
def bench(config: Path | None, database: str, runs: int, seconds: float, as_json: bool) -> int:
    """Measure throughput and CPU on this machine, in a few minutes."""
    from sqs2pg.postgres.dsn import resolve_dsn

    dsn = ""
    if database == "configured":
        dsn = resolve_dsn(read_settings(config).sink.dsn) or _FROM_ENVIRONMENT
    result = _in_checkout(dsn, runs, seconds)
    emulated = result is None
    if result is None:
        result = _on_emulator(dsn, runs)
    if as_json:
        print_json(msgspec.to_builtins(result))
    else:
        print(_in_words(result, emulated=emulated))
    return 0


def _in_words(result: BenchResult, *, emulated: bool) -> str:
    lines = [f"one worker: {result.messages_per_second or 0:,.0f} messages/s"]
    if result.cpu_us_per_message is not None:
        lines[0] += f", {result.cpu_us_per_message:.1f} µs CPU of the pipeline per message"
    for title, ratio in (
        ("plain", result.ratio_plain_script),
        ("tuned", result.ratio_tuned_script),
    ):
        if ratio is not None:
            lines.append(f"{ratio:,.1f} times the {title} script, measured in turns with it")
    if emulated:
        lines.append(
            "the SQS emulator is the limit of this throughput; `make bench` in a checkout of "
            "sqs2pg with a C compiler measures the pipeline's own, and the ratios to scripts"
        )
    return "\n".join(lines)


# -- in a checkout -------------------------------------------------------------------------


def _in_checkout(dsn: str, runs: int, seconds: float) -> BenchResult | None:
    """Run the short form of the suite; None if there is no suite, or it cannot run."""
    root = Path(sqs2pg.__file__).resolve().parents[2]
    if not (root / "benchmarks" / "run.py").is_file():
        return None
    command = [sys.executable, "-m", "benchmarks.run", "--short", "--json"]
    command += ["--runs", str(runs), "--seconds", str(seconds), "--limit-s", "30"]
    # In the environment, not on the command line, where every user of the machine can read it.
    environment = os.environ | {"BENCH_DATABASE_URL": dsn}
    done = subprocess.run(  # noqa: S603  our own command
        command,
        cwd=root,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode == _UNAVAILABLE:
        return None
    if done.returncode:
        raise FatalFault("the benchmark failed", code="bench", hint="its own error is above")
    return msgspec.convert(json.loads(done.stdout.strip().splitlines()[-1]), BenchResult)


# -- elsewhere -----------------------------------------------------------------------------


def _on_emulator(dsn: str, runs: int) -> BenchResult:
    """Measure the pipeline between the SQS emulator and a database, without ratios."""
    with tempfile.TemporaryDirectory(prefix="sqs2pg-bench-") as folder, _pointed_at(dsn) as url:
        key_file = Path(folder) / "sqs2pg.keys"
        provider_file.create(key_file)
        measured = run_async(_measure(url, key_file, runs))
    rates, cpu_us = zip(*measured, strict=True)
    return BenchResult(round(statistics.median(rates), 2), round(statistics.median(cpu_us), 2))


@contextmanager
def _pointed_at(dsn: str) -> Iterator[str]:
    """Start the emulator, and PostgreSQL where `dsn` is empty; yield the database's URL."""
    with (
        servers(postgres=not dsn, durable=True) as running,
        pointed_at(running, keeps=lambda name: bool(dsn) and name.startswith("PG")),
    ):
        yield running.database_url or dsn


async def _measure(url: str, key_file: Path, runs: int) -> list[tuple[float, float]]:
    async with _scratch_database(url) as scratch:
        overrides = {"sink": {"dsn": scratch}, "keys": {"file": str(key_file)}}
        settings = load(environ={}, overrides=overrides, discover=False)
        await prepare(settings)
        return [await _drain(settings, seed) for seed in range(runs)]


@asynccontextmanager
async def _scratch_database(dsn: str) -> AsyncIterator[str]:
    """Yield the connection string of a fresh database beside the given one; drop it after."""
    from sqs2pg.postgres.identifiers import quote_identifier
    from sqs2pg.runners.connect import connected

    settings = load(environ={}, overrides={"sink": {"dsn": dsn}}, discover=False)
    async with connected(settings) as admin:
        [(may_create,)] = await admin.execute(
            "SELECT rolcreatedb OR rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user"
        )
        if not may_create:
            raise SettingsError(
                "the database's user may not create a scratch database",
                code="bench_privilege",
                hint="ALTER ROLE … CREATEDB, or leave out --database configured",
            )
        name = f"sqs2pg_bench_{secrets.token_hex(4)}"
        await admin.execute(f"CREATE DATABASE {quote_identifier(name)} TEMPLATE template0")
        try:
            yield _with_database(dsn, name)
        finally:
            await admin.execute(f"DROP DATABASE {quote_identifier(name)} WITH (FORCE)")


def _with_database(dsn: str, name: str) -> str:
    if dsn.startswith(("postgresql://", "postgres://")):
        return urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))
    return f"{dsn} dbname={name}"  # libpq takes the last one


async def _drain(settings: Settings, seed: int) -> tuple[float, float]:
    """Drain a small backlog in this process; return messages/s and CPU µs per message, from the
    first receive to the last delete.
    """
    from sqs2pg.runners.pipeline import Pipeline
    from sqs2pg.runners.queue_client import queue_client
    from sqs2pg.sqs.producer import send_all

    count = _EMULATED_MESSAGES
    async with queue_client() as client:
        queue_url = await client.queue_url(settings.source.queue)
        await send_all(client, queue_url, logins(count, seed=seed, bad_share=0.0))
    async with Pipeline(settings) as pipeline:
        totals = pipeline.consumer.totals
        running = asyncio.create_task(pipeline.consumer.run())
        await _reach(running, lambda: totals.received > 0)
        began, cpu_began = time.perf_counter(), time.process_time()
        await _reach(running, lambda: totals.settled >= count)
        await pipeline.source.acknowledged()
        took_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
        await _stop(pipeline, running)
    return count / took_s, cpu_s * 1e6 / count


async def _reach(running: asyncio.Task[object], there: Callable[[], bool]) -> None:
    while not there():
        if running.done():
            running.result()
            raise FatalFault("the pipeline stopped by itself", code="bench")
        await asyncio.sleep(_CHECK_S)


async def _stop(pipeline: Pipeline, running: asyncio.Task[object]) -> None:
    pipeline.consumer.stop()
    await running
