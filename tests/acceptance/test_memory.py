"""Memory: what a batch of messages expands to is never in memory all at once.

Small sizes of cases of `benchmarks/memory.py`, in a process of its own.
"""

from __future__ import annotations

import base64
import gzip
import itertools
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.logins import whole_login
from tests.shell import RUN_S_MAX, Shell

BODIES = 12
BYTES = 20_000_000
RECORDS = 60_000
PEAK_MB_MAX = 150
"""75 MB of it are the process without any message. All bodies of a case together are far more."""
# In the process itself, at its end: a peak that the parent reads may be that of the fork.
SCRIPT = """
import atexit, re, sys
from pathlib import Path
from sqs2pg.cli import main

def tell():
    [peak] = re.findall("VmHWM:\\\\s*(\\\\d+) kB", Path("/proc/self/status").read_text())
    print("peak_kb", peak, file=sys.stderr)

atexit.register(tell)
sys.argv = ["sqs2pg", "run", "--drain", "--json"]
main()
"""

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the peak is read from /proc, which only Linux has"
)


def packed(content: str) -> str:
    return base64.b64encode(gzip.compress(content.encode(), 6, mtime=0)).decode()


def many() -> itertools.islice[str]:
    some = [whole_login(user_id=f"u{number}") for number in range(50)]
    return itertools.islice(itertools.cycle(some), RECORDS)


def document() -> str:
    return packed(whole_login().removesuffix("}") + ', "note": "' + "x" * BYTES + '"}')


def lines() -> str:
    return packed("\n".join(many()))


CASES: dict[str, tuple[str, Callable[[], str], int]] = {
    "document": ('[envelope]\nlayers = ["gzip"]\n', document, 1),
    "lines": ('[envelope]\nlayers = ["gzip"]\nrecords = "lines"\n', lines, RECORDS),
}


@pytest.mark.parametrize(
    ("case", "native"),
    [("document", "1"), ("document", "0"), ("lines", "1")],
)
def test_bodies_that_expand_far_are_not_in_memory_together(
    shell: Shell,
    send: Callable[[list[str]], list[str]],
    query: Callable[..., Any],
    case: str,
    native: str,
) -> None:
    settings, body, rows = CASES[case]
    (shell.folder / "sqs2pg.toml").write_text(settings)
    shell("migrate")
    send([body()] * BODIES)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=shell.folder,
        env=shell.environment | {"SQS2PG_NATIVE": native},
        capture_output=True,
        text=True,
        timeout=RUN_S_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert query("SELECT count(*) FROM user_logins") == [(BODIES * rows,)]
    peak_mb = int(done.stderr.rsplit("peak_kb", 1)[1]) / 1024
    print(f"{case}, native {native}: {peak_mb:.0f} MB")
    assert peak_mb < PEAK_MB_MAX
