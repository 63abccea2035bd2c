"""Processes that end early by their user's will: no traceback, no fault of ours."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PRINTS = """
from sqs2pg import cli

cli.cli.main = lambda **_: print("one line, which waits in the buffer until the end")
cli.main()
"""
INTERRUPTED = """
import sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "sqs2pg.cli":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
from sqs2pg.__main__ import main
main()
"""


def _run(*arguments: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[bytes]:
    # Unbuffered, nothing would wait until the end.
    environment = {name: at for name, at in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(
        [sys.executable, *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        check=False,
        timeout=60,
        env=environment,
    )


@pytest.mark.parametrize(
    "arguments", [("-c", PRINTS), ("-m", "sqs2pg", "--help"), ("-m", "sqs2pg", "--version")]
)
def test_a_reader_that_has_gone_is_no_fault(arguments: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ended = _run(*arguments, stdout=writer)
    finally:
        os.close(writer)
    assert ended.stderr == b""
    assert ended.returncode in {0, 1}


def test_an_error_is_told_though_the_reader_of_stdout_has_gone() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ended = _run("-m", "sqs2pg", "nonsense", stdout=writer)
    finally:
        os.close(writer)
    assert ended.stderr.startswith(b"error: no such command 'nonsense'")
    assert ended.returncode == 2


def test_ctrl_c_while_modules_load_leaves_no_traceback() -> None:
    ended = _run("-c", INTERRUPTED)
    assert (ended.returncode, ended.stderr) == (130, b"")
