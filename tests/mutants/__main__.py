"""Mutate the package in places drawn at random, and count the mutants that some test notices.

    make mutants                          # python -m tests.mutants
    make mutants MUTANTS_ARGS='--seed 7 --count 20'

A first run of the tests on the sound code notes which of them reach each place. Each mutant is then
tried by the tests that reach it: those without servers, and if none fails up to 150 of the others,
those first that reach the fewest places. A test that fails on the sound code, too, has noticed
nothing. The exit code is 0 if every mutant that is not in survivors.md was noticed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.breakages.copies import (
    FAILED,
    Copy,
    copies_of_checkout,
    failing_unbroken,
    on_each,
)
from tests.breakages.record import present
from tests.checkout import ROOT
from tests.mutants.mutant import Mutant, draw
from tests.mutants.reach import NOTES, place_notes, reached_by


class Suites(NamedTuple):
    """Tests that are tried together on the mutants that nothing noticed before."""

    folders: Sequence[str]
    most: int | None
    """How many tests are tried on one mutant; None: all that reach it."""


WITHOUT_SERVERS = Suites(["tests/unit"], None)
WITH_SERVERS = Suites(
    ["tests/properties", "tests/contract", "tests/integration", "tests/acceptance", "tests/faults"],
    150,
)
_RUN_S = 400
_NOTHING_STARTS = (2, 3, 4)  # pytest's exit codes where the package cannot be imported
FOLDER = ROOT / "tests/mutants"
Numbered = tuple[int, Mutant]


def tests_reaching(
    copy: Copy, mutants: Sequence[Numbered], folders: Sequence[str], workers: int
) -> dict[int, list[str]]:
    """Run tests on sound code; return those that reach each mutant and pass.

    Those that reach the fewest mutants come first.
    """
    notes = copy.root.with_name(f"{copy.root.name}-reached-{time.monotonic_ns()}")
    sound = {file: (copy.root / file).read_text(encoding="utf-8") for file in package(copy.root)}
    place_notes(copy.root, [(number, one.file, one.line) for number, one in mutants], notes)
    ran = copy.suite(
        workers,
        *("-m", "not system and not image", "-p", "tests.mutants.reach", *folders),
        variables={NOTES: str(notes)},
    )
    for file, text in sound.items():
        if (copy.root / file).read_text(encoding="utf-8") != text:
            copy.write(file, text)
    failed = sorted(ran.failed)
    print(f"{ran.by} in {ran.seconds:.0f} s: {' '.join(folders)}; without {failed}", flush=True)
    reached = {number: tests - ran.failed for number, tests in reached_by(notes).items()}
    shutil.rmtree(notes, ignore_errors=True)
    places = Counter(test for tests in reached.values() for test in tests)
    return {
        number: sorted(tests, key=lambda test: (places[test], test))
        for number, tests in reached.items()
    }


def package(root: Path) -> list[str]:
    """Return the package's modules, as paths in the checkout."""
    return [path.relative_to(root).as_posix() for path in (root / "src/sqs2pg").rglob("*.py")]


def try_mutants(
    copies: Sequence[Copy], mutants: Sequence[Numbered], suites: Suites
) -> dict[int, str]:
    """Run the tests that reach each mutant; print and return what noticed it."""
    reach = tests_reaching(copies[0], mutants, suites.folders, len(copies))

    def tried(copy: Copy, numbered: Numbered) -> tuple[int, str]:
        number, mutant = numbered
        place = f"{mutant.file}:{mutant.line}"
        tests = reach.get(number, [])
        if not tests:
            print(f"{number:3} not reached  {place}", flush=True)
            return number, ""
        with copy.changed(mutant.file, mutant.text):
            ran = copy.pytest("-x", "-p", "no:randomly", *tests[: suites.most], end_s=_RUN_S)
        by = "nothing starts" if ran.code in _NOTHING_STARTS else ran.by
        noticed = by if ran.code in (FAILED, *_NOTHING_STARTS) else ""
        print(
            f"{number:3} {'noticed' if noticed else 'PASSED':8}  {place}  {mutant.operator}  "
            f"{mutant.change}  [{len(tests)} tests, {ran.seconds:.0f} s: {by}]",
            flush=True,
        )
        return number, noticed

    noticed = {number: by for number, by in on_each(copies, tried, mutants) if by}
    failing = failing_unbroken(copies[0], len(copies), set(noticed.values()) - {"nothing starts"})
    for number in [number for number, by in noticed.items() if by in failing]:
        print(f"{number:3} PASSED    {noticed.pop(number)} fails without it, too")
    return noticed


def explained() -> set[tuple[str, str]]:
    """Return the file and the change of each mutant that survivors.md says no test can notice."""
    rows = [
        line.split(" | ")
        for line in (FOLDER / "survivors.md").read_text(encoding="utf-8").splitlines()
    ]
    return {(row[0].removeprefix("| ").strip("`"), row[1]) for row in rows if len(row) == 3}


def write_record(seed: int, began: str, mutants: Sequence[Mutant], noticed: dict[int, str]) -> None:
    """Write the page of a seed."""
    known = explained()

    def by(number: int, one: Mutant) -> str:
        if number in noticed:
            return f"`{noticed[number]}`"
        return "nothing: it changes nothing" if (one.file, one.change) in known else "**nothing**"

    rows = [
        f"| {number} | `{one.file.removeprefix('src/sqs2pg/')}:{one.line}` | {one.change} | "
        f"{by(number, one)} |\n"
        for number, one in enumerate(mutants)
    ]
    (FOLDER / f"seed-{seed}.md").write_text(
        f"""# What noticed each mutant of seed {seed}

`make mutants MUTANTS_ARGS='--seed {seed} --count {len(mutants)} --record'` wrote this page.
On {began}: {len(noticed)} of {len(mutants)} noticed.
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
    parser.add_argument("--record", action="store_true", help="write the page of the seed")
    chosen = parser.parse_args()
    began, began_s = present(), time.monotonic()
    mutants = draw(chosen.seed, chosen.count)
    tried = [(n, one) for n, one in enumerate(mutants) if not chosen.only or n in chosen.only]
    noticed: dict[int, str] = {}
    with copies_of_checkout(chosen.workers) as copies:
        for suites in (WITHOUT_SERVERS, WITH_SERVERS):
            if left := [(n, one) for n, one in tried if n not in noticed]:
                noticed |= try_mutants(copies, left, suites)
    known = explained()
    survivors = [one for n, one in tried if n not in noticed]
    open_ = [one for one in survivors if (one.file, one.change) not in known]
    for one in open_:
        print(f"no test noticed {one.file}:{one.line}: {one.change}")
    print(
        f"seed {chosen.seed}: {len(noticed)} of {len(tried)} noticed, "
        f"{len(survivors) - len(open_)} that change nothing, "
        f"in {(time.monotonic() - began_s) / 60:.0f} min"
    )
    if chosen.record:
        write_record(chosen.seed, began, mutants, noticed)
    return 1 if open_ else 0


if __name__ == "__main__":
    sys.exit(main())
