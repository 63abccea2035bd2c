"""An exception that nobody catches prints its type and its place, never its text."""

from __future__ import annotations

import subprocess
import sys

import pytest

CANARY = "593-47-5928"
HOOKS = "from sqs2pg import cli; cli._install_hooks()\n"
CASES = {
    "the process": f"int({CANARY!r})",
    "a thread": "import threading\nt = threading.Thread(target=int, args=[{canary!r}])\n"
    "t.start(); t.join()",
    "a finalizer": "class Last:\n    def __del__(self): int({canary!r})\nLast()",
    "a group": "raise ExceptionGroup({canary!r}, [ValueError({canary!r})])",
    "a cause": "try:\n    int({canary!r})\nexcept ValueError as e:\n"
    "    raise KeyError({canary!r}) from e",
}


@pytest.mark.parametrize("case", CASES)
def test_only_the_type_and_place_of_an_uncaught_exception_are_printed(case: str) -> None:
    text = CASES[case].replace("{canary!r}", repr(CANARY))
    done = subprocess.run(
        [sys.executable, "-c", HOOKS + text], capture_output=True, text=True, check=False
    )
    assert "error: unexpected " in done.stderr
    assert "hint: this is a fault of sqs2pg" in done.stderr
    assert CANARY not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_without_the_hooks_python_prints_the_value() -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"int({CANARY!r})"], capture_output=True, text=True, check=False
    )
    assert CANARY in done.stderr
