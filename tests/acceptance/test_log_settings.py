"""The log and the last error of a command: their form on a terminal and off it, and `[log]`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.shell import Shell, told_error
from tests.terminal import on_terminal

NO_QUEUE = {"SQS2PG_SOURCE__QUEUE": "no-such-queue"}
JSON = {"SQS2PG_LOG__FORMAT": "json"}


def events(said: str) -> list[dict[str, Any]]:
    """Return the lines of stderr, each of which must be one JSON object."""
    return [json.loads(line) for line in said.splitlines()]


def on_a_terminal(shell: Shell, *arguments: str, **environment: str) -> str:
    """Run a command that fails with a terminal as stderr; return what it shows there."""
    code, shown = on_terminal(
        [shell.python, "-m", "sqs2pg", *arguments],
        environment=shell.environment | environment,
        cwd=shell.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    assert code != 0
    return shown


@pytest.mark.usefixtures("migrated_database")
def test_off_a_terminal_a_fatal_error_is_the_last_line_of_the_log(shell: Shell) -> None:
    ended = shell("run", code=1, **NO_QUEUE)
    last = events(ended.err)[-1]
    assert last.pop("timestamp").endswith("Z")
    assert "GetQueueUrl of queue no-such-queue at 127.0.0.1" in last.pop("event")
    assert last.pop("hint")
    assert last == {"level": "error", "code": "aws_queue_missing", "exit_code": 1}


@pytest.mark.parametrize(
    ("arguments", "environment", "code"),
    [
        (("run", "-c", "nowhere.toml"), {}, "settings"),
        (("run", "--drian"), {}, "usage"),
        (("run", "--workers", "0"), {}, "usage"),
        (("run",), {"SQS2PG_SINK__TABEL": "x"}, "unknown_setting"),
        (("run",), {"SQS2PG_LOG__LEVEL": "loud"}, "settings"),
        (("run",), {"DATABASE_URL": "postgresql://["}, "settings"),
        (("backfill", "nowhere.jsonl"), {"DATABASE_URL": "postgresql://["}, "settings"),
        (
            ("migrate",),
            {"DATABASE_URL": "postgresql://[", "SQS2PG_LOG__FORMAT": "json"},
            "settings",
        ),
    ],
)
def test_wrong_usage_and_settings_are_such_a_line_too(
    shell: Shell, arguments: tuple[str, ...], environment: dict[str, str], code: str
) -> None:
    [told] = events(shell(*arguments, code=2, **environment).err)
    assert (told["level"], told["code"], told["exit_code"]) == ("error", code, 2)
    assert told["hint"]


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (("run",), {"SQS2PG_LOG__FORMAT": "text"}),
        (("migrate",), {}),
        (("verify",), {"SQS2PG_LOG__FORMAT": "auto"}),
    ],
)
def test_text_where_it_is_wanted_and_for_commands_of_people(
    shell: Shell, arguments: tuple[str, ...], environment: dict[str, str]
) -> None:
    said = shell(*arguments, code=2, DATABASE_URL="postgresql://[", **environment).err
    assert [line.split(":")[0] for line in said.splitlines()] == ["error", "hint"]


def test_on_a_terminal_it_is_text_unless_json_is_set(shell: Shell, tmp_path: Path) -> None:
    wrong = {"DATABASE_URL": "postgresql://["}
    shown = on_a_terminal(shell, "run", **wrong)
    assert [line.split(":")[0] for line in shown.splitlines()] == ["error", "hint"]
    [told] = events(on_a_terminal(shell, "run", SQS2PG_LOG__FORMAT="JSON", **wrong))
    assert told["level"] == "error"
    file = tmp_path / "logged.toml"
    file.write_text('[log]\nformat = "json"\n')
    [told] = events(on_a_terminal(shell, "run", "-c", str(file), **wrong))
    assert told["level"] == "error"


@pytest.mark.usefixtures("migrated_database")
def test_the_level_is_a_setting(shell: Shell, tmp_path: Path) -> None:
    def levels(*arguments: str, **environment: str) -> set[str]:
        ended = shell("run", "--drain", *arguments, **environment)
        return {event["level"] for event in events(ended.err)}

    # A warning is no fault here: on a busy machine the status port may be another test's.
    assert levels() - {"warning"} == {"info"}
    assert levels(SQS2PG_LOG__LEVEL="WARNING") <= {"warning"}
    file = tmp_path / "logged.toml"
    file.write_text('name = "user_logins"\n[log]\nlevel = "error"\n')
    assert levels("-c", str(file)) == set()
    assert levels("-c", str(file), SQS2PG_LOG__LEVEL="info") - {"warning"} == {"info"}
    assert "info" in levels("-c", str(file), "-v")
    # What ends the process is said at each level.
    ended = shell("run", code=1, **NO_QUEUE, SQS2PG_LOG__LEVEL="error")
    [told] = events(ended.err)
    assert told["code"] == "aws_queue_missing"


@pytest.mark.usefixtures("migrated_database")
def test_the_line_of_a_database_that_is_away_names_it(shell: Shell) -> None:
    said = shell("run", code=1, DATABASE_URL="postgresql://u:pa55word@127.0.0.1:1/d").err
    told = told_error(said)
    assert "127.0.0.1:1" in told
    assert "pa55word" not in said


@pytest.mark.usefixtures("migrated_database")
@pytest.mark.parametrize(
    "endpoint", ["http://127.0.0.1:1", "http://no-such-host.invalid", "https://127.0.0.1:1"]
)
def test_the_line_of_a_queue_that_is_away_names_the_endpoint(shell: Shell, endpoint: str) -> None:
    told = told_error(shell("run", code=1, AWS_ENDPOINT_URL_SQS=endpoint).err)
    assert endpoint.partition("//")[2] in told
    assert "AWS_ENDPOINT_URL" in told
