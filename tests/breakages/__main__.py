"""Apply each breakage to a copy of the checkout and run the tests that should notice it.

    make breakages                        # python -m tests.breakages
    make breakages BREAKAGES_ARGS='--only ledger'

Exit 0 only if every breakage was noticed. One that no longer applies is an error, and so is one
whose tests fail without it: `--sound` runs all of them on an unbroken copy first. The test that
noticed a breakage when `--record` last wrote noticed.md comes first; the others run if it passes.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

from tests.breakages.copies import FAILED, PASSED, Copy, Ran, copies_of_checkout
from tests.breakages.record import Noticed, add_to_record, recorded, write_record
from tests.breakages.table import BREAKAGES, Breakage
from tests.checkout import ROOT

_UNKNOWN_S = 60
"""Taken for one that was not recorded. The slowest come first, so that all workers end together."""


def unfit(breakage: Breakage) -> str:
    """Return why a breakage cannot be applied; "" where it can."""
    path = ROOT / breakage.file
    count = path.read_text(encoding="utf-8").count(breakage.before) if path.is_file() else 0
    missing = [one for one in breakage.files if not (ROOT / one).is_file()]
    if count != 1:
        return f"its text stands {count} times in {breakage.file}"
    return f"there is no {missing[0]}" if missing else ""


def run(copy: Copy, breakage: Breakage, first: str) -> Ran:
    """Run the tests of a breakage: the one that noticed it last, and all if it does not."""
    text = (copy.root / breakage.file).read_text(encoding="utf-8")
    before = 0.0
    with copy.changed(breakage.file, text.replace(breakage.before, breakage.after)):
        if first.partition("::")[0] in breakage.files:
            ran = copy.pytest("-x", first)
            if ran.code == FAILED:
                return ran
            before = ran.seconds
        ran = copy.pytest("-x", *breakage.files)
    return ran._replace(seconds=before + ran.seconds)


def check(wanted: list[Breakage], copies: list[Copy]) -> dict[str, Noticed]:
    """Run the breakages, print what noticed each, and return it by their words."""
    last = recorded()
    wanted = sorted(wanted, key=lambda one: -last.get(one.what, Noticed("", _UNKNOWN_S)).seconds)
    noticed: dict[str, Noticed] = {}
    free: SimpleQueue[Copy] = SimpleQueue()
    for copy in copies:
        free.put(copy)

    def one(breakage: Breakage) -> None:
        copy = free.get()
        try:
            ran = run(copy, breakage, last.get(breakage.what, Noticed("", 0)).by)
        finally:
            free.put(copy)
        if ran.code == FAILED:
            noticed[breakage.what] = Noticed(ran.by.partition("[")[0], round(ran.seconds))
        word = "noticed" if ran.code == FAILED else "NOT NOTICED"
        print(f"{word:11}  {breakage.what}  [{ran.seconds:.0f} s: {ran.by}]", flush=True)

    with ThreadPoolExecutor(len(copies)) as pool:
        list(pool.map(one, wanted))
    return noticed


def main() -> int:
    """Run the chosen breakages and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.breakages")
    parser.add_argument("--only", default="", help="breakages whose words or file hold this text")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sound", action="store_true", help="first run the tests unbroken")
    parser.add_argument("--record", action="store_true", help="write noticed.md")
    chosen = parser.parse_args()
    wanted = [one for one in BREAKAGES if chosen.only in f"{one.what} {one.file}"]
    errors = [f"{one.what}: {why}" for one in wanted if (why := unfit(one))]
    if errors:
        print("\n".join(f"error: no longer applies: {error}" for error in errors))
        return 2
    began = time.monotonic()
    with copies_of_checkout(chosen.workers) as copies:
        if chosen.sound:
            ran = copies[0].pytest("-x", *sorted({file for one in wanted for file in one.files}))
            if ran.code != PASSED:
                print(f"error: without any breakage: {ran.by}")
                return 2
        noticed = check(wanted, copies)
    minutes = (time.monotonic() - began) / 60
    print(f"{len(noticed)} of {len(wanted)} noticed in {minutes:.0f} min")
    if chosen.record and chosen.only:
        add_to_record(noticed)
    elif chosen.record:
        write_record(noticed, minutes, chosen.workers)
    return 0 if len(noticed) == len(wanted) else 1


if __name__ == "__main__":
    sys.exit(main())
