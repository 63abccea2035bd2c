"""Signals to a process that runs: each test's process does nothing but wait to be stopped."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

GRACE_S = 1.0
WORK = """
import asyncio, sys
from sqs2pg.cli.run_process import run_process
from sqs2pg.pipeline.totals import Totals
from sqs2pg.telemetry import log

class Work:
    totals = Totals()

    def __init__(self):
        self.stopped = asyncio.Event()

    async def run(self, *, drain_settle_s=None):
        print("runs", flush=True)
        await self.stopped.wait()
        return self.totals

    def request_stop(self):
        if "hangs" not in sys.argv:
            self.stopped.set()

async def main():
    reload = lambda: print("reload", flush=True)
    await run_process(
        Work(), reload=reload if "reloads" in sys.argv else None, exit_within_s=float(sys.argv[1])
    )
    print("ended", flush=True)

log.configure()
asyncio.run(main())
"""


@contextmanager
def working(*options: str, **streams: Any) -> Iterator[subprocess.Popen[str]]:
    """The process, once it runs."""
    with subprocess.Popen(
        [sys.executable, "-c", WORK, str(GRACE_S), *options],
        stdout=subprocess.PIPE,
        text=True,
        **({"stdin": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | streams),
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "runs\n"
            yield process
        finally:
            process.kill()


def lines_of(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    return process.stdout.read().splitlines()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_that_hangs_ends_a_second_after_its_grace_period(number: int) -> None:
    with working("hangs") as process:
        asked = time.monotonic()
        process.send_signal(number)
        assert process.wait(60) == 1
        assert GRACE_S < time.monotonic() - asked <= GRACE_S + 1


@pytest.mark.parametrize(("options", "said"), [(["reloads"], ["reload", "ended"]), ([], ["ended"])])
def test_sighup_ends_no_process(options: list[str], said: list[str]) -> None:
    with working(*options) as process:
        process.send_signal(signal.SIGHUP)
        if options:
            assert process.stdout is not None
            assert process.stdout.readline() == f"{said.pop(0)}\n"
        process.terminate()
        assert lines_of(process) == said
        assert process.wait(60) == 0


def test_a_process_whose_terminal_is_gone_ends_in_good_order() -> None:
    ours, theirs = pty.openpty()
    with working("reloads", stdin=theirs, stderr=theirs) as process:
        os.close(theirs)
        os.close(ours)  # hangs the terminal up; the kernel tells only those that it controls
        process.send_signal(signal.SIGHUP)
        assert process.wait(60) == 0
