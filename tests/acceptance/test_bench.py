"""`sqs2pg bench` and the suite behind it, in their smallest runs: the figures are not checked,
but what is recorded beside them is.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sqs2pg
from benchmarks import report
from tests.shell import bare_environment

ROOT = Path(__file__).parents[2]
KEYS = {"messages_per_second", "cpu_us_per_message", "ratio_plain_script", "ratio_tuned_script"}
QUICK = ("bench", "--runs", "1", "--seconds", "0.1")
SCRATCH = "SELECT count(*) FROM pg_database WHERE datname LIKE 'sqs2pg\\_bench%'"
BOOKS = "SELECT to_regnamespace('sqs2pg'), to_regclass('user_logins')"

Query = Callable[..., list[tuple[Any, ...]]]


def wheel(folder: Path) -> dict[str, str]:
    """A copy of the package without its checkout, as a wheel would bring it."""
    shutil.copytree(Path(sqs2pg.__file__).parent, folder / "site" / "sqs2pg")
    return {"PYTHONPATH": str(folder / "site")}


def test_bench_in_a_checkout_measures_ratios_and_leaves_the_database_as_it_was(
    shell: Any, query: Query
) -> None:
    result = shell(*QUICK, "--database", "configured", "--json").last
    assert set(result) == KEYS
    assert result["messages_per_second"] > result["ratio_plain_script"] > 0
    assert result["cpu_us_per_message"] > 0
    assert result["ratio_tuned_script"] > 0
    assert query(SCRATCH) == [(0,)]
    assert query(BOOKS) == [(None, None)]


def test_bench_outside_a_checkout_has_no_ratios(shell: Any, query: Query, tmp_path: Path) -> None:
    outside = wheel(tmp_path)
    ended = shell(*QUICK, "--database", "configured", "--json", **outside)
    assert set(ended.last) == KEYS
    assert ended.last["messages_per_second"] > 0
    assert ended.last["cpu_us_per_message"] > 0
    assert ended.last["ratio_plain_script"] is None
    assert ended.last["ratio_tuned_script"] is None
    assert query(SCRATCH) == [(0,)]
    assert query(BOOKS) == [(None, None)]


def test_bench_on_embedded_servers_says_that_the_emulator_is_the_limit(
    bare_shell: Any, tmp_path: Path
) -> None:
    said = bare_shell(*QUICK, **wheel(tmp_path)).out
    assert "one worker: " in said
    assert "µs CPU of the pipeline per message" in said
    assert "the SQS emulator is the limit" in said
    assert "times the" not in said


def test_bench_needs_createdb_and_says_so(
    shell: Any, query: Query, database: str, tmp_path: Path
) -> None:
    role = "bench_" + database[-8:]
    query(f"CREATE ROLE {role} LOGIN PASSWORD 'p'")
    try:
        login = f"postgresql://{role}:p@{database.partition('@')[2]}"
        arguments = (*QUICK, "--database", "configured")
        said = shell.error(*arguments, code=2, DATABASE_URL=login, **wheel(tmp_path))
        assert "CREATEDB" in said
        ended = shell(*arguments, code=1, DATABASE_URL=login)
        assert "CREATEDB" in ended.err
    finally:
        query(f"DROP ROLE {role}")


@pytest.mark.long
def test_the_suite_keeps_its_runs_and_writes_the_tables(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-m", "benchmarks.run", "--no-fsync", "--runs", "1"]
    command += ["--only", "drain,idle,steady,ledger", "--contenders", "plain,sqs2pg,vector"]
    command += ["--messages", "plain=20", "--messages", "sqs2pg=500", "--seconds", "0.3"]
    command += ["--rate", "500", "--ledger-rows", "600", "--ledger-step", "300"]
    command += ["--results", str(tmp_path)]
    environment = bare_environment() | {"PATH": os.defpath}  # as if an optional tool were absent
    before = report.RESULTS.read_bytes()
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr
    assert report.RESULTS.read_bytes() == before

    drain = json.loads((tmp_path / "drain.json").read_text())
    assert [run["contender"] for run in drain["runs"]] == ["plain", "sqs2pg"]
    assert [run["messages"] for run in drain["runs"]] == [20, 500]
    assert all(run["complete"] for run in drain["runs"])
    assert drain["missing"] == {"vector": "no `vector` on PATH"}
    assert "fsync off" in drain["stamp"]["postgres"]
    ledger = json.loads((tmp_path / "ledger.json").read_text())
    assert [run["rows_before"] for run in ledger["runs"]] == [0, 300]
    idle = json.loads((tmp_path / "idle.json").read_text())
    latencies = idle["figures"]
    assert 0 < latencies["commit_ms"]["p50"] < latencies["delete_ms"]["p50"] + 2

    page, picture = tmp_path / "page.md", tmp_path / "page.svg"
    shutil.copy(report.RESULTS, page)
    report.publish(tmp_path, page, picture)
    text = page.read_text()
    assert "| sent to COMMIT |" in text
    assert "Vector: not measured, no `vector` on PATH." in text
    assert "Not measured yet" in text.partition("<!-- bench:tls -->")[2].partition("<!-- /")[0]
    assert "plain script" in picture.read_text()


def test_a_database_that_is_not_there_is_said_without_its_password() -> None:
    url = "postgresql://u:hunter2@127.0.0.1:1/x"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.run", "--short"],
        cwd=ROOT,
        env=bare_environment() | {"BENCH_DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "hunter2" not in done.stderr + done.stdout
