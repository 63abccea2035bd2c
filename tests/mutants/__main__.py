"""Mutate the package in places drawn at random, and count the mutants that some test notices.

    make mutants                          # python -m tests.mutants
    make mutants MUTANTS_ARGS='--seed 7 --count 20'

A first run of the tests on the sound code notes which of them reach each place. Each mutant is then
tried by the tests that reach it: those without servers, and if none fails up to OTHERS_MAX of the
others, those first that reach the fewest places. The exit code is 0 if every mutant that is not in
survivors.md was noticed.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from tests.breakages.copies import FAILED, Copy, copies_of_checkout
from tests.breakages.record import commit, today
from tests.checkout import ROOT
from tests.mutants.mutant import Mutant, draw
from tests.mutants.reach import FOLDER, place_notes, reached_by

SUITES = (
    ["tests/unit"],
    ["tests/properties", "tests/contract", "tests/integration", "tests/acceptance", "tests/faults"],
)
OTHERS_MAX = 150
_RUN_S = 400
_NOTHING_STARTS = (2, 3, 4)  # pytest's exit codes where the package cannot be imported
_REACH_S = 3600
SURVIVORS = ROOT / "tests/mutants/survivors.md"
RECORD = ROOT / "tests/mutants/noticed.md"


def tests_reaching(
    copy: Copy, mutants: Sequence[tuple[int, Mutant]], suites: Sequence[str], workers: int
) -> tuple[dict[int, set[str]], set[str]]:
    """Run suites on sound code; return the tests that reach each mutant, and those that failed."""
    folder = copy.root.with_name(f"{copy.root.name}-reached-{time.monotonic_ns()}")
    sound = {file: (copy.root / file).read_text(encoding="utf-8") for file in package(copy.root)}
    place_notes(copy.root, [(number, one.file, one.line) for number, one in mutants], folder)
    ran = copy.pytest(
        *("-n", str(workers), "--dist", "worksteal", "-m", "not system and not image"),
        *("-p", "tests.mutants.reach", *suites),
        variables={FOLDER: str(folder)},
        end_s=_REACH_S,
    )
    for file, text in sound.items():
        if (copy.root / file).read_text(encoding="utf-8") != text:
            copy.write(file, text)
    failed = set(re.findall(r"^(?:FAILED|ERROR) ([^\s\[]+)", ran.output, re.MULTILINE))
    print(f"{ran.by} in {ran.seconds:.0f} s for {' '.join(suites)}; without: {sorted(failed)}")
    reached = reached_by(folder)
    shutil.rmtree(folder, ignore_errors=True)
    return reached, failed


def package(root: Path) -> list[str]:
    """Return the package's modules, as paths in the checkout."""
    return [path.relative_to(root).as_posix() for path in (root / "src/sqs2pg").rglob("*.py")]


def try_mutants(
    copies: Sequence[Copy], mutants: Sequence[tuple[int, Mutant]], reach: dict[int, set[str]]
) -> dict[int, str]:
    """Run the tests that reach each mutant; print and return what noticed it."""
    reached_places = {test: 0 for tests in reach.values() for test in tests}
    for tests in reach.values():
        for test in tests:
            reached_places[test] += 1
    free: SimpleQueue[Copy] = SimpleQueue()
    for copy in copies:
        free.put(copy)
    noticed: dict[int, str] = {}

    def one(numbered: tuple[int, Mutant]) -> None:
        number, mutant = numbered
        tests = sorted(reach.get(number, ()), key=lambda test: (reached_places[test], test))
        if not tests:
            print(f"{number:3} not reached  {mutant.file}:{mutant.line}", flush=True)
            return
        copy = free.get()
        try:
            with copy.changed(mutant.file, mutant.text):
                ran = copy.pytest(
                    *("-x", "-p", "no:randomly"),
                    *tests[: OTHERS_MAX if "unit" not in tests[0] else None],
                    end_s=_RUN_S,
                )
        finally:
            free.put(copy)
        if ran.code in (FAILED, *_NOTHING_STARTS):
            noticed[number] = ran.by if ran.code == FAILED else "nothing starts"
        word = "noticed" if number in noticed else "PASSED"
        print(
            f"{number:3} {word:8}  {mutant.file}:{mutant.line}  {mutant.operator}  "
            f"{mutant.change}  [{len(tests)} tests, {ran.seconds:.0f} s: {ran.by}]",
            flush=True,
        )

    with ThreadPoolExecutor(len(copies)) as pool:
        list(pool.map(one, mutants))
    return noticed


def explained() -> set[tuple[str, str]]:
    """Return the file and the change of each mutant that survivors.md says no test can notice."""
    rows = [line.split(" | ") for line in SURVIVORS.read_text(encoding="utf-8").splitlines()]
    return {(row[0].removeprefix("| ").strip("`"), row[1]) for row in rows if len(row) == 3}


def write_record(seed: int, mutants: Sequence[Mutant], noticed: dict[int, str]) -> None:
    """Write noticed.md."""
    rows = [
        f"| {number} | `{one.file.removeprefix('src/sqs2pg/')}:{one.line}` | {one.change} | "
        f"{noticed.get(number, '**nothing**').partition('[')[0]} |\n"
        for number, one in enumerate(mutants)
    ]
    RECORD.write_text(
        f"""# What noticed each mutant

`make mutants MUTANTS_ARGS=--record` writes this page. On {today()}, commit {commit()}, seed {seed}:
{len(noticed)} of {len(mutants)} mutants noticed.
[survivors.md](survivors.md) says why no test can notice some of the others.

| No. | Place | Change | Noticed by |
|---|---|---|---|
"""
        + "".join(rows),
        encoding="utf-8",
    )


def main() -> int:
    """Draw mutants, try them, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--only", type=int, nargs="*", help="numbers of mutants, from 0")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--record", action="store_true", help="write noticed.md")
    chosen = parser.parse_args()
    began = time.monotonic()
    mutants = draw(chosen.seed, chosen.count)
    tried = [(n, one) for n, one in enumerate(mutants) if not chosen.only or n in chosen.only]
    noticed: dict[int, str] = {}
    with copies_of_checkout(chosen.workers) as copies:
        for suites in SUITES:
            left = [(n, one) for n, one in tried if n not in noticed]
            reach, failed = tests_reaching(copies[0], left, suites, chosen.workers)
            usable = {number: tests - failed for number, tests in reach.items()}
            noticed |= try_mutants(copies, left, usable)
    known = explained()
    survivors = [one for n, one in tried if n not in noticed]
    open_ = [one for one in survivors if (one.file, one.change) not in known]
    for one in open_:
        print(f"no test noticed {one.file}:{one.line}: {one.change}")
    print(
        f"seed {chosen.seed}: {len(noticed)} of {len(tried)} noticed, "
        f"{len(survivors) - len(open_)} that change nothing, "
        f"in {(time.monotonic() - began) / 60:.0f} min"
    )
    if chosen.record:
        write_record(chosen.seed, mutants, noticed)
    return 1 if open_ else 0


if __name__ == "__main__":
    sys.exit(main())
