"""Backfill's rate: lines per second and CPU per line, of this checkout and of another one.

    python -m benchmarks.backfill_rate --lines 1000000 --runs 3 --against ../other-checkout

Each turn runs every variant once, each into a new database of one PostgreSQL server: one gzip file,
one process; and the same lines in eight files with `--workers 2`, where the checkout knows it.
The other checkout runs its own code from its own `.venv`, with the same file and server. The rate
is from the command's start to its exit. Prints one line of JSON at the end: medians, and ratios.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from sqs2pg.cli.embedded.sample_logins import logins

from . import processes
from .contenders import pipeline as ours
from .machine import commit, machine
from .rig import BenchmarkError, Rig, open_rig

BAD_SHARE = 0.001
FILES = 8


@dataclasses.dataclass(frozen=True)
class Checkout:
    """One version of the code, with its databases."""

    name: str
    python: str
    rig: Rig

    def command(self, *arguments: str) -> list[str]:
        """Return a command line of this version that reads no settings file."""
        return [self.python, "-m", "sqs2pg", *arguments, "-c", "/dev/null"]

    def compile(self) -> None:
        """Compile the sources, as an installation does: some environments keep no byte code."""
        root = Path(self.python).parents[2]
        subprocess.run([self.python, "-m", "compileall", "-q", root / "src"], check=True)

    def prepare(self) -> None:
        """Create the template database, with this version's tables."""
        self.rig.create()
        target = self.rig._target("http://127.0.0.1:9", "none", self.rig.name)  # noqa: SLF001
        for arguments in (("keys", "init"), ("migrate",)):
            done = subprocess.run(
                self.command(*arguments),
                env=ours.environment(target),
                capture_output=True,
                check=False,
            )
            if done.returncode:
                raise BenchmarkError(f"{self.name}: {done.stderr.decode()}")


@dataclasses.dataclass(frozen=True)
class BackfillRun:
    """One run of the command."""

    lines_per_second: float
    cpu_us: float
    """Of the command's processes, per line."""
    postgres_us: float
    peak_mb: float


def main(arguments: list[str] | None = None) -> int:
    """Run and print the result; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3, help="turns; each runs every variant once")
    parser.add_argument("--against", type=Path, help="another checkout, with its .venv set up")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="sqs2pg-backfill-") as folder:
        one, eight = _files(Path(folder), options.lines)
        with open_rig(settings={}) as rig:
            here = Checkout("here", sys.executable, rig)
            checkouts = [here]
            if options.against:
                python = options.against.absolute() / ".venv/bin/python"
                keys = rig.folder / "other"
                keys.mkdir()
                other = dataclasses.replace(rig, name=f"{rig.name}_other", folder=keys)
                checkouts.append(Checkout("other", str(python), other))
                checkouts[-1].prepare()
            for checkout in checkouts:
                checkout.compile()
            try:
                runs = _turns(checkouts, one, eight, options)
            finally:
                for checkout in checkouts[1:]:
                    checkout.rig.close()
    print(json.dumps(_report(runs, options.lines)))
    return 0


def _files(folder: Path, lines: int) -> tuple[Path, Path]:
    """Write a gzip file, and a folder of FILES gzip files with the same lines."""
    one, eight = folder / "logins-2024-05-06.jsonl.gz", folder / "2024-05-06"
    eight.mkdir()
    made = logins(lines, seed=1, bad_share=BAD_SHARE)
    with gzip.open(one, "wt", compresslevel=6) as whole:
        for number in range(FILES):
            share = lines // FILES + (number < lines % FILES)
            with gzip.open(eight / f"{number}.jsonl.gz", "wt", compresslevel=6) as part:
                for line in islice(made, share):
                    whole.write(f"{line}\n")
                    part.write(f"{line}\n")
    return one, eight


def _turns(
    checkouts: list[Checkout], one: Path, eight: Path, options: argparse.Namespace
) -> dict[str, list[BackfillRun]]:
    runs: dict[str, list[BackfillRun]] = {}
    for _ in range(options.runs):
        for checkout in checkouts:
            for variant, arguments in _variants(checkout, one, eight):
                done = _run(checkout, arguments, options.lines)
                runs.setdefault(f"{checkout.name}_{variant}", []).append(done)
                print(
                    f"{checkout.name}, {variant}: {done.lines_per_second:,.0f} lines/s, "
                    f"{done.cpu_us:.1f} µs, PostgreSQL {done.postgres_us:.1f} µs a line, "
                    f"{done.peak_mb:.0f} MB, load {os.getloadavg()[0]:.1f}",
                    file=sys.stderr,
                    flush=True,
                )
    return runs


def _variants(checkout: Checkout, one: Path, eight: Path) -> Iterator[tuple[str, list[str]]]:
    yield "one_file", [str(one)]
    yield "eight_files", [str(eight)]
    known = subprocess.run(
        checkout.command("backfill", "--help"), capture_output=True, text=True, check=False
    )
    if "--workers" in known.stdout:
        yield "eight_files_two_workers", [str(eight), "--workers", "2"]


def _run(checkout: Checkout, arguments: list[str], lines: int) -> BackfillRun:
    with checkout.rig.stand() as stand, tempfile.TemporaryFile() as out:
        assert stand.postgres_pid is not None
        before = processes.cpu_s(stand.postgres_pid) or 0.0
        began = time.perf_counter()
        running = subprocess.Popen(
            checkout.command("backfill", *arguments, "--json"),
            env=ours.environment(stand.target),
            stdout=out,
            stderr=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(running.pid, 0)
        seconds = time.perf_counter() - began
        running.returncode = os.waitstatus_to_exitcode(status)
        if running.returncode:
            raise BenchmarkError(f"sqs2pg backfill ended with {running.returncode}")
        postgres = (processes.cpu_s(stand.postgres_pid) or 0.0) - before
        out.seek(0)
        result: dict[str, Any] = json.loads(out.read().splitlines()[-1])
        rows = stand.query("SELECT count(*) FROM user_logins")[0][0]
        if result["lines"] != lines or rows != result["written"]:
            raise BenchmarkError(f"{lines} lines were given; {rows} rows; {result}")
    cpu = (usage.ru_utime + usage.ru_stime) * 1e6 / lines
    return BackfillRun(lines / seconds, cpu, postgres * 1e6 / lines, usage.ru_maxrss / 1024)


def _report(runs: dict[str, list[BackfillRun]], lines: int) -> dict[str, Any]:
    medians = {
        name: {
            field.name: round(median(getattr(run, field.name) for run in several), 1)
            for field in dataclasses.fields(BackfillRun)
        }
        for name, several in runs.items()
    }
    rates = {name: one["lines_per_second"] for name, one in medians.items()}
    ratios = {}
    if "other_one_file" in rates:
        ratios["one_file"] = round(rates["here_one_file"] / rates["other_one_file"], 2)
        two = rates.get("here_eight_files_two_workers")
        if two:
            ratios["eight_files_two_workers"] = round(two / rates["other_eight_files"], 2)
    return {
        "lines": lines,
        "turns": len(runs["here_one_file"]),
        "medians": medians,
        "ratios": ratios,
        "measured": datetime.now(UTC).isoformat(timespec="minutes"),
        "commit": commit(),
        "machine": machine(),
    }


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
