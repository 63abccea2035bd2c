"""Each command once in an interpreter of its own; most other tests fork theirs (`Shell.forks`)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sqs2pg.cli import COMMANDS
from tests.logins import CANARIES, canary_login
from tests.shell import Shell

Query = Callable[..., list[tuple[Any, ...]]]
ELSEWHERE = {
    "bench": "test_bench.py",
    "demo": "test_operate.py",
    "tap": "test_tap.py",
    "top": "test_operate.py",
}
"""Commands that the test below leaves out -> the file with a test that starts them afresh."""


@pytest.mark.long
def test_every_command_in_an_interpreter_of_its_own(
    shell: Shell, query: Query, tmp_path: Path
) -> None:
    shell.environment["SQS2PG_VAULT__ENABLED"] = "true"
    ran: set[str] = set()

    def run(command: str, *arguments: str, **options: Any) -> str:
        ran.add(command)
        return shell.afresh(command, *arguments, **options).out

    lines = tmp_path / "logins.jsonl"
    lines.write_text("".join(canary_login(number) + "\n" for number in range(5)) + "not json\n")
    assert "created table user_logins" in run("migrate")
    assert "pseudonym" in run("keys", "list")
    assert json.loads(run("send", "--file", str(lines), "--json")) == {"sent": 6, "refused": 0}
    totals = json.loads(run("run", "--drain", "--json").splitlines()[-1])
    assert (totals["written"], totals["quarantined"]) == (5, 1)
    assert "the books balance" in run("verify")
    assert "1  not_json" in run("quarantine", "list")
    assert "0 failed" in run("check")
    [(token,)] = query("SELECT DISTINCT masked_ip FROM user_logins")
    assert CANARIES[1] in run("reveal", token, "--reason", "x")
    erased = json.loads(run("forget", f"{CANARIES[0]}-1", "--reason", "x", "--json"))
    assert erased["subjects"] == 1
    archive = tmp_path / "archive.jsonl"
    archive.write_text(canary_login(7) + "\n")
    assert json.loads(run("backfill", str(archive), "--json"))["written"] == 1
    assert "user_logins" in run("init", "--from-table", "user_logins")
    run("partition", code=None)
    assert "[source]" in run("config", "show")
    assert "paused" in run("pause", "--reason", "x")
    assert "resumed" in run("resume")
    run("support-bundle", "--out", str(tmp_path / "bundle.zip"))
    assert ran | ELSEWHERE.keys() == COMMANDS.keys()
