"""The progress of long commands: what it says, its rate, and log lines beside it."""

from __future__ import annotations

import asyncio
import io
import os
import pty
import re
import subprocess
import sys

import pytest
import structlog

from sqs2pg.cli import progress
from sqs2pg.cli.progress import RecentRate, Ticker, state_text
from sqs2pg.telemetry import log

LIVE = """
import asyncio
from sqs2pg.cli.progress import Ticker
from sqs2pg.telemetry import log
import structlog

async def main():
    log.configure()
    painted = asyncio.Event()
    count = 0

    def read():
        nonlocal count
        count += 1
        if count == 5:
            painted.set()
        return count, {total}, {{"written": count}}

    async with Ticker("consuming", read):
        structlog.get_logger().info("before")
        await painted.wait()
        structlog.get_logger().info("between", count=7)
        print("a result")

asyncio.run(main())
"""


def test_the_rate_is_that_of_the_last_seconds() -> None:
    now = 0.0
    rate = RecentRate(lambda: now)
    for second in range(1, 21):
        now = float(second)
        rate(second * 1000)
    now = 22.0
    assert rate(20_000) == pytest.approx(3000 / 5)
    now = 30.0
    assert rate(20_000) == 0.0


def test_the_state_says_how_many_of_how_many_and_how_long_it_takes() -> None:
    assert state_text(12_300, 20_000, {}, 1100.0) == "12,300 of 20,000, 1,100/s, about 7 s left"
    assert state_text(20_000, 20_000, {}, 13_623.0) == "20,000 of 20,000, 13,623/s"
    counts = {"written": 98, "quarantined": 2, "still_bad": 0}
    assert state_text(1, None, {}, 0.24) == "1 done, 0.2/s"
    assert state_text(1, None, {}, 0.01) == state_text(1, None, {}, 0.0) == "1 done, 0/s"
    assert state_text(100, None, counts, 50.0) == "100 done, 50/s, written 98, quarantined 2"


async def test_off_a_terminal_lines_go_to_whoever_tells_the_story(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "_EVERY_S", 0.01)
    said: list[str] = []
    enough = asyncio.Event()

    def say(line: str) -> None:
        said.append(line)
        enough.set()

    async with Ticker("sending", lambda: (5, 10, {}), say):
        await asyncio.wait_for(enough.wait(), 10)
    assert said[0].startswith("sending 5 of 10, ")


async def test_off_a_terminal_an_idle_time_is_told_once_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "_EVERY_S", 0.0)
    monkeypatch.setattr(progress, "_RATE_OVER_S", 0.0)
    monkeypatch.setattr(progress, "_IDLE_TURNS", 5)
    turns, said = 0, []
    enough = asyncio.Event()

    def read() -> tuple[int, None, dict[str, int]]:
        nonlocal turns
        turns += 1
        if turns == 20:
            enough.set()
        return min(turns, 3), None, {}

    async with Ticker("consuming", read, said.append):
        await asyncio.wait_for(enough.wait(), 10)
    assert [line.split()[1] for line in said[:3]] == ["1", "2", "3"]
    # The fall of the rate to 0 is told at once; from there on it is once a minute.
    assert [line for line in said[3:] if ", 0/s" not in line] == []
    assert 3 <= len(said[3:]) <= 5


def test_log_lines_go_to_what_is_stderr_at_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    log.configure()
    later = io.StringIO()
    monkeypatch.setattr(sys, "stderr", later)
    structlog.get_logger().info("consuming", table="user_logins")
    assert '"event": "consuming"' in later.getvalue()


@pytest.mark.parametrize("total", ["None", "20"])
def test_on_a_terminal_log_lines_and_results_have_lines_of_their_own(total: str) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", LIVE.format(total=total)],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80"},
    ) as command:
        os.close(theirs)
        shown = b""
        while True:
            try:
                read = os.read(ours, 65_536)
            except OSError:  # the other end is closed
                break
            if not read:
                break
            shown += read
    os.close(ours)
    assert command.returncode == 0
    for line in ("info    between count=7", "a result"):
        [found] = re.findall(rf"[^\n]*{line}", shown.decode())
        # From the last erased line on there is only the line itself.
        assert re.fullmatch(r"([\d:]{8} )?" + line, re.split(r"\x1b\[2K|\r", found)[-1])


async def test_a_result_for_a_pipe_does_not_go_to_the_terminal_of_the_progress() -> None:
    ours, theirs = pty.openpty()
    command = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        LIVE.format(total="20"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(theirs)
    out, _ = await command.communicate()
    os.close(ours)
    assert out == b"a result\n"
