"""Profiles one drain with cProfile or perf, and shows the 25 most expensive functions.

cProfile counts calls, and distinguishes Python functions from the C functions that they call. It
slows functions down unevenly: use it to find expensive functions, not to compare them. perf samples
the whole process, including native code and kernel, at little cost; it shows the names of Python
functions from Python 3.12 on.
"""

from __future__ import annotations

import dataclasses
import os
import pstats
import shutil
import subprocess
import sys
from pathlib import Path

from .contenders import ONE, Contender, Launch, RunTarget
from .measure import Backlog, Run, drain
from .rig import BenchmarkError, Rig

TOP = 25
TOOLS = ("cprofile", "perf")
_WATCHED = """import cProfile, sys
import sqs2pg.cli.run
from sqs2pg.cli import main
profile = cProfile.Profile()
try:
    profile.runcall(main, sys.argv[2:])
finally:
    profile.dump_stats(sys.argv[1])
"""
_SAMPLES_A_SECOND = "997"


def profile(rig: Rig, tool: str, messages: int, limit_s: float) -> str:
    """Drain under a profiler; return a table of the 25 functions with the most own time."""
    if tool == "perf" and not shutil.which("perf"):
        raise BenchmarkError("no `perf` on PATH: use --profile cprofile")
    data = rig.folder / f"profile.{tool}"
    watched = dataclasses.replace(ONE, launch=lambda target: _launch(target, tool, data))
    with rig.stand() as stand:
        run = drain(stand, watched, Backlog(messages), limit_s)
    body = _perf(data) if tool == "perf" else _cprofile(data, run.messages)
    return f"{_head(watched, run, tool)}\n\n{body}"


def _head(contender: Contender, run: Run, tool: str) -> str:
    us = run.cpu_us("pipeline")
    spent = "" if us is None else f", {us:.1f} us CPU per message"
    return f"{contender.title} under {tool}: {run.messages:,} messages, {run.rate:,.0f}/s{spent}"


def _launch(target: RunTarget, tool: str, data: Path) -> Launch:
    launch = ONE.launch(target)
    python, *rest = launch.argv
    if tool == "cprofile":
        _, _, *arguments = rest  # -m sqs2pg
        return Launch([python, "-c", _WATCHED, str(data), *arguments], launch.environment)
    record = ["perf", "record", "-q", "-F", _SAMPLES_A_SECOND, "-o", str(data), "--"]
    named = {"PYTHONPERFSUPPORT": "1"} if sys.version_info >= (3, 12) else {}
    return Launch([*record, *launch.argv], launch.environment | named)


def _cprofile(data: Path, messages: int) -> str:
    stats = pstats.Stats(str(data))
    rows = sorted(
        (
            (own_s, total_s, calls, _place(where))
            for where, (_, calls, own_s, total_s, _) in stats.stats.items()  # type: ignore[attr-defined]
        ),
        reverse=True,
    )
    lines = [
        "| own µs per message | with callees | calls per message | function |",
        "|---:|---:|---:|---|",
    ]
    lines += [
        f"| {own_s * 1e6 / messages:.2f} | {total_s * 1e6 / messages:.2f} "
        f"| {calls / messages:.3f} | `{place}` |"
        for own_s, total_s, calls, place in rows[:TOP]
    ]
    lines.append(
        "\nWall time. `run.py consume` includes the event loop's own work and its waiting: about a "
        "second at the end, until the queue has stayed empty."
    )
    return "\n".join(lines)


def _place(where: tuple[str, int, str]) -> str:
    file, line, name = where
    if file == "~":  # a C function
        return name
    short = file.rpartition("/site-packages/")[2].rpartition("/src/")[2]
    return f"{os.path.relpath(short, sys.base_prefix) if short == file else short}:{line} {name}"


def _perf(data: Path) -> str:
    # fmt: off
    done = subprocess.run(
        ["perf", "report", "--stdio", "--no-children", "-i", str(data),
         "--fields", "overhead,sym,dso", "--field-separator", "\t"],
        capture_output=True, text=True, check=False,
    )
    # fmt: on
    found = [line.split("\t") for line in done.stdout.splitlines() if line and line[0] != "#"]
    if done.returncode or not found:
        raise BenchmarkError(f"perf reported nothing: {done.stderr.strip()[-500:]}")
    lines = ["| share | function | in |", "|---:|---|---|"]
    lines += [
        f"| {share.strip()} | `{symbol.strip()}` | {place.strip()} |"
        for share, symbol, place in found[:TOP]
    ]
    return "\n".join(lines)
