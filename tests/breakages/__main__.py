"""Apply each breakage to a copy of the checkout and run the tests that should notice it.

    make breakages                        # python -m tests.breakages
    make breakages BREAKAGES_ARGS='--only ledger'

Exit 0 only if every breakage was noticed. One that no longer applies is an error. The test that
noticed a breakage when `--record` last wrote noticed.md comes first; the others run if it passes.
At the end all tests that noticed something run on an unbroken copy: one that fails there, too, has
noticed nothing.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.breakages.copies import (
    FAILED,
    Copy,
    Ran,
    copies_of_checkout,
    failing_unbroken,
    on_each,
)
from tests.breakages.record import Noticed, add_to_record, present, recorded, write_record
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
    unknown = Noticed("", _UNKNOWN_S)

    def tried(copy: Copy, breakage: Breakage) -> tuple[str, Ran]:
        ran = run(copy, breakage, last.get(breakage.what, unknown).by)
        word = "noticed" if ran.code == FAILED else "NOT NOTICED"
        print(f"{word:11}  {breakage.what}  [{ran.seconds:.0f} s: {ran.by}]", flush=True)
        return breakage.what, ran

    wanted = sorted(wanted, key=lambda one: -last.get(one.what, unknown).seconds)
    runs = dict(on_each(copies, tried, wanted))
    noticed = {
        what: Noticed(ran.by, round(ran.seconds))
        for what, ran in runs.items()
        if ran.code == FAILED
    }
    failing = failing_unbroken(copies[0], len(copies), {one.by for one in noticed.values()})
    for what in [what for what, one in noticed.items() if one.by in failing]:
        print(f"NOT NOTICED  {what}  [{noticed.pop(what).by} fails without it, too]")
    return noticed


def main() -> int:
    """Run the chosen breakages and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.breakages")
    parser.add_argument("--only", default="", help="breakages whose words or file hold this text")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--record", action="store_true", help="write noticed.md")
    chosen = parser.parse_args()
    wanted = [one for one in BREAKAGES if chosen.only in f"{one.what} {one.file}"]
    errors = [f"{one.what}: {why}" for one in wanted if (why := unfit(one))]
    if errors:
        print("\n".join(f"error: no longer applies: {error}" for error in errors))
        return 2
    began, began_s = present(), time.monotonic()
    with copies_of_checkout(chosen.workers) as copies:
        noticed = check(wanted, copies)
    minutes = (time.monotonic() - began_s) / 60
    print(f"{len(noticed)} of {len(wanted)} noticed in {minutes:.0f} min")
    if chosen.record and chosen.only:
        add_to_record(noticed)
    elif chosen.record:
        write_record(noticed, began, minutes, chosen.workers)
    return 0 if len(noticed) == len(wanted) else 1


if __name__ == "__main__":
    sys.exit(main())
