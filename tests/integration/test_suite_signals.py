"""The suite runs where SIGINT and SIGHUP are ignored, as under nohup and for `&` in a script."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

IGNORING = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
os.execv(sys.executable, [*pytest, sys.argv[1]])
"""


CHILD = """
import signal
raise SystemExit(signal.SIG_IGN in map(signal.getsignal, (signal.SIGINT, signal.SIGHUP)))
"""


def test_children_take_signals() -> None:
    subprocess.run([sys.executable, "-c", CHILD], check=True)


def test_children_take_signals_even_if_the_suite_was_started_without() -> None:
    other = f"{__file__}::{test_children_take_signals.__name__}"
    done = subprocess.run(
        [sys.executable, "-c", IGNORING, other],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
