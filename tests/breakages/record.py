"""noticed.md: what noticed each breakage, for readers, and the first test to run again."""

from __future__ import annotations

import datetime
import subprocess
from collections.abc import Mapping
from typing import NamedTuple

from tests.breakages.table import BREAKAGES
from tests.checkout import ROOT

RECORD = ROOT / "tests/breakages/noticed.md"
_HEAD = """# What noticed each breakage

`make breakages BREAKAGES_ARGS=--record` writes this page. {how}

| Broken file | Breakage | Noticed by | s |
|---|---|---|---|
"""


class Noticed(NamedTuple):
    """Which test noticed a breakage, as `tests/….py::test_…`, and after how many seconds."""

    by: str
    seconds: int


def recorded() -> dict[str, Noticed]:
    """Return what the last recorded run says of each breakage, by its words."""
    if not RECORD.is_file():
        return {}
    rows = [line.split(" | ") for line in RECORD.read_text(encoding="utf-8").splitlines()]
    return {
        row[1]: Noticed(row[2].strip("`"), int(row[3].removesuffix(" |")))
        for row in rows
        if len(row) == 4 and row[3].removesuffix(" |").isdecimal()
    }


def write_record(seen: Mapping[str, Noticed], began: str, minutes: float, workers: int) -> None:
    """Write the page after a whole run that began at `began`, as `present` gave it.

    `seen` has each breakage that was noticed, by its words.
    """
    how = (
        f"On {began}: {len(seen)} of {len(BREAKAGES)} noticed in "
        f"{minutes:.0f} minutes,\n{workers} at a time. Seconds include the start of the tests' "
        "servers."
    )
    _write(_HEAD.format(how=how), seen)


def add_to_record(seen: Mapping[str, Noticed]) -> None:
    """Add what noticed some breakages to the page of the last whole run."""
    head = RECORD.read_text(encoding="utf-8").partition("\n|---|")[0] + "\n|---|---|---|---|\n"
    _write(head, recorded() | dict(seen))


def _write(head: str, seen: Mapping[str, Noticed]) -> None:
    rows = [
        f"| `{one.file.removeprefix('src/sqs2pg/')}` | {one.what} | `{noticed.by}` | "
        f"{noticed.seconds} |\n"
        for one in BREAKAGES
        if (noticed := seen.get(one.what)) is not None
    ]
    RECORD.write_text(head + "".join(rows), encoding="utf-8")


def present() -> str:
    """Return the date in UTC and the commit that is checked out, in words."""
    commit = subprocess.run(
        ["git", "log", "-1", "--format=%h"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    return f"{datetime.datetime.now(datetime.UTC).date()}, commit {commit}"
