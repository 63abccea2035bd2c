"""A start is quick because it loads only what it uses. Held by what is loaded, not by time."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.logins import login

_LOADED = re.compile(r"import time: .*\| +(\S+)$", re.MULTILINE)
"""A line of -X importtime."""

_EVERY_HELP = """
import contextlib, io, json, sys
import click
from sqs2pg.cli import cli

def helps(group, path):
    with contextlib.redirect_stdout(io.StringIO()):
        cli.main([*path, "--help"], standalone_mode=False)
    loaded[" ".join(path)] = list(sys.modules)
    if isinstance(group, click.Group):
        context = click.Context(group)
        for name in group.list_commands(context):
            helps(group.get_command(context, name), [*path, name])

loaded = {}
helps(cli, [])
print(json.dumps(loaded))
"""

DRIVER_AND_AWS = ("psycopg", "botocore", "boto3", "sqs2pg.postgres", "sqs2pg.sqs")
FOR_WORK = (*DRIVER_AND_AWS, "sqs2pg.pipeline", "sqs2pg.runners", "rich", "uvloop")
NOT_FOR_A_START = (
    *("botocore", "boto3", "urllib3", "rich.console", "pygments", "opentelemetry", "ray"),
    *("cryptography.x509", "sqs2pg.cli.embedded", "sqs2pg.pipeline.replay", "sqs2pg.sqs.s3"),
    *("difflib", "jmespath", "ctypes", "importlib.metadata", "importlib.resources"),
    *("email", "http.client", "urllib.request", "zipfile", "wsgiref"),
    *("structlog.dev", "structlog.tracebacks", "sqs2pg.telemetry.otlp", "sqs2pg.telemetry.traces"),
    *("sqs2pg.vault.target_rows", "sqs2pg.vault.token_map"),
    *("http.server", "prometheus_client.exposition", "sqs2pg.status.server"),
)
FOR_ARCHIVES_OR_VAULT = (
    *("backports.zstd", "sqs2pg.pipeline.archive_lines", "sqs2pg.pipeline.archive_reader"),
    *("sqs2pg.pipeline.s3_objects", "sqs2pg.vault.seal", "tempfile"),
)
FOR_QUEUES = (
    *("httptools", "sqs2pg.sqs", "sqs2pg.pipeline", "sqs2pg.status"),
    *("sqs2pg.mapping.compile", "sqs2pg.mapping.decode", "sqs2pg.mapping.documents"),
)


def _of(loaded: Iterable[str], unwanted: tuple[str, ...]) -> list[str]:
    """Return what is one of the unwanted modules, or inside one."""
    return [name for name in loaded if f"{name}.".startswith(tuple(f"{u}." for u in unwanted))]


def test_no_help_loads_the_driver_aws_or_what_stands_on_them() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _EVERY_HELP], capture_output=True, text=True, check=True
    )
    loaded: dict[str, list[str]] = json.loads(done.stdout)
    assert {"", "run", "verify", "quarantine list", "keys rotate", "check"} <= set(loaded)
    # They run in one process, in this order: the first one that is named is the one to look at.
    assert {name: found for name, m in loaded.items() if (found := _of(m, FOR_WORK))} == {}


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_the_command_lines_own_help_loads_no_command(bare_shell: Any, arguments: list[str]) -> None:
    loaded = _LOADED.findall(bare_shell.afresh(*arguments, PYTHONPROFILEIMPORTTIME="1").err)
    assert "click" in loaded
    assert _of(loaded, (*FOR_WORK, "sqs2pg.settings", "msgspec", "structlog", "asyncio")) == []


@pytest.mark.usefixtures("migrated_database")
def test_a_pipeline_loads_neither_botocore_nor_what_it_does_not_use(shell: Any) -> None:
    ended = shell.afresh("run", "--drain", "-c", os.devnull, PYTHONPROFILEIMPORTTIME="1")
    loaded = _LOADED.findall(ended.err)
    assert {"psycopg", "sqs2pg.sqs.client", "sqs2pg.status.listener"} <= set(loaded)
    assert _of(loaded, (*NOT_FOR_A_START, *FOR_ARCHIVES_OR_VAULT)) == []


@pytest.mark.usefixtures("migrated_database")
@pytest.mark.parametrize("words", ["verify", "migrate", "quarantine list", "pause --reason noise"])
def test_a_command_of_the_database_loads_no_queue_and_no_pipeline(shell: Any, words: str) -> None:
    ended = shell.afresh(*words.split(), "-c", os.devnull, PYTHONPROFILEIMPORTTIME="1")
    assert ended.code == 0
    loaded = _LOADED.findall(ended.err)
    assert {"psycopg", "sqs2pg.runners.connect"} <= set(loaded)
    assert _of(loaded, (*NOT_FOR_A_START, *FOR_ARCHIVES_OR_VAULT, *FOR_QUEUES)) == []


def test_sending_loads_no_driver(shell: Any, tmp_path: Path) -> None:
    lines = tmp_path / "logins.jsonl"
    lines.write_text(login("u1") + "\n")
    ended = shell.afresh(
        "send", "--file", str(lines), "-c", os.devnull, PYTHONPROFILEIMPORTTIME="1"
    )
    assert ended.code == 0
    loaded = _LOADED.findall(ended.err)
    assert {"sqs2pg.sqs.client", "sqs2pg.sqs.producer"} <= set(loaded)
    assert (
        _of(loaded, (*NOT_FOR_A_START, "psycopg", "sqs2pg.postgres", "sqs2pg.mapping.compile"))
        == []
    )


@pytest.mark.usefixtures("migrated_database")
def test_a_backfill_of_files_loads_neither_botocore_nor_a_queue(shell: Any, tmp_path: Path) -> None:
    archive = tmp_path / "logins.jsonl"
    archive.write_text(login("u1") + "\n")
    ended = shell.afresh("backfill", str(archive), PYTHONPROFILEIMPORTTIME="1")
    loaded = _LOADED.findall(ended.err)
    assert {"psycopg", "sqs2pg.pipeline.backfill"} <= set(loaded)
    assert _of(loaded, NOT_FOR_A_START) == []
