"""The suite runs where SIGINT is ignored, as under nohup and for `&` in a script."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

IGNORING = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
os.execv(sys.executable, [*pytest, sys.argv[1]])
"""


def test_children_take_sigint() -> None:
    child = "import signal; raise SystemExit(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    subprocess.run([sys.executable, "-c", child], check=True)


def test_children_take_sigint_even_if_the_suite_was_started_without() -> None:
    other = f"{__file__}::{test_children_take_sigint.__name__}"
    done = subprocess.run(
        [sys.executable, "-c", IGNORING, other],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
