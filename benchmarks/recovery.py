"""What recovery costs: drains with the vault off and on, in turns, into one database.

First every person logs in until most of them are known to the vault, which is not counted. Then
drains with recovery off and on take turns, over logins of those people: each is a new process, so
its cache is empty, and the vault's tables are as large as the people are many. Then drains over
logins of people who were never seen. Then the rates of `keys rewrap` and `keys rekey`.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable

import psycopg

from .contenders import ONE, RECOVERY, Contender
from .contenders import pipeline as ours
from .measure import Backlog, Run, drain
from .rig import BenchmarkError, Rig, Stand
from .workloads import Plan, Section

TITLES = {"again": "people who come back", "new": "every person new"}
"""By the workload: what the figures' rows are called."""
ROTATIONS = (("vault", "rewrap", "rewrapped"), ("pseudonym", "rekey", "values"))
"""The root that is rotated, the command that follows, and what its result counts."""
WARM_SHARE = 3
"""Logins a person, on average, before anything is counted: 95 of 100 are known then."""
WARM_STEP = 500_000
NEW_MAX = 60_000
"""Messages of a drain over new people: each stays in the vault."""

Tell = Callable[[str], None]


def run(rig: Rig, plan: Plan, people: int, tell: Tell) -> Section:
    """Measure; raises BenchmarkError where a drain fails."""
    people = max(100, round(people * plan.share))
    section = Section(
        "recovery",
        "Recovery",
        f"{people:,} people, each with three addresses and two devices, known to the vault before",
    )
    section.figures = {"people": people, "runs": {what: {} for what in TITLES}, "rotation": {}}
    with rig.stand() as stand:
        _warm(stand, plan, people, tell)
        seeds = itertools.count(2)
        sizes: dict[str, int] = {}
        for turn in range(plan.runs):
            for contender in (ONE, RECOVERY):
                size = sizes.get(contender.name) or round(contender.trial * plan.share)
                backlog = Backlog(size, people=people)
                done = _drain(stand, contender, backlog, plan)
                if contender.name not in sizes:  # a trial; not counted
                    sizes[contender.name] = max(10, round(done.rate * plan.seconds))
                    backlog = Backlog(sizes[contender.name], people=people)
                    done = _drain(stand, contender, backlog, plan)
                _keep(section, "again", contender, done, turn, tell)
        for turn in range(plan.runs):
            for contender in (ONE, RECOVERY):
                size = min(NEW_MAX, sizes[contender.name])
                backlog = Backlog(size, people=10**9, seed=next(seeds))
                done = _drain(stand, contender, backlog, plan)
                _keep(section, "new", contender, done, turn, tell)
        _rotate(stand, section, tell)
    return section


def _warm(stand: Stand, plan: Plan, people: int, tell: Tell) -> None:
    left = people * WARM_SHARE
    while left:
        size = min(left, WARM_STEP)
        done = _drain(stand, RECOVERY, Backlog(size, people=people), plan, limit_s=3_600)
        left -= size
        tell(f"recovery, before it counts: {left:,} logins left, {done.rate:,.0f} messages/s")


def _drain(
    stand: Stand, contender: Contender, backlog: Backlog, plan: Plan, limit_s: float | None = None
) -> Run:
    return drain(stand, contender, backlog, limit_s or plan.limit_s)


def _keep(
    section: Section, what: str, contender: Contender, done: Run, turn: int, tell: Tell
) -> None:
    """Note which of the section's runs it is; the order of runs is kept in JSON."""
    side = "on" if contender is RECOVERY else "off"
    section.figures["runs"][what].setdefault(side, []).append(len(section.runs))
    section.runs.append(done)
    cpu = sum(us for part in ("pipeline", "postgres") if (us := done.cpu_us(part)) is not None)
    tell(f"recovery {side}, {what} {turn + 1}: {done.rate:,.0f} messages/s, CPU {cpu:.1f} us")


def runs_of(section: Section, what: str, *, on: bool) -> list[Run]:
    """Return the runs of a workload with recovery on or off."""
    numbers = section.figures["runs"][what].get("on" if on else "off", [])
    return [section.runs[number] for number in numbers]


def ratio(section: Section, what: str) -> float | None:
    """Return how many times the CPU a message, pipeline and PostgreSQL together, on against off."""
    cost = [
        statistics.median(
            (run.cpu_us("pipeline") or 0.0) + (run.cpu_us("postgres") or 0.0) for run in runs
        )
        for on in (True, False)
        if (runs := runs_of(section, what, on=on))
    ]
    return cost[0] / cost[1] if len(cost) == 2 and cost[1] else None


def says(section: Section) -> list[str]:
    """Return the ratios and the rates of rotation in words."""
    lines = [
        f"Recovery on costs {found:.2f} times the CPU a message: {title}."
        for what, title in TITLES.items()
        if (found := ratio(section, what)) is not None
    ]
    for name, (count, seconds) in section.figures["rotation"].items():
        lines.append(
            f"`sqs2pg keys {name}`: {count:,} in {seconds:,.1f} s, "
            f"{seconds * 1e6 / count:,.1f} s a million."
        )
    return lines


def _rotate(stand: Stand, section: Section, tell: Tell) -> None:
    """Time rewrap, in data keys, and rekey, in sealed values."""
    before = stand.target.keys.read_bytes()
    try:
        for series, name, unit in (
            ("vault", "rewrap", "rewrapped"),
            ("pseudonym", "rekey", "values"),
        ):
            _declare(stand, series)
            began = time.perf_counter()
            done = subprocess.run(
                ours.command("keys", name, "--json"),
                env=ours.environment(stand.target),
                capture_output=True,
                text=True,
                check=False,
            )
            seconds = time.perf_counter() - began
            if done.returncode:
                raise BenchmarkError(f"keys {name}: {done.stderr.strip()}")
            count = json.loads(done.stdout.splitlines()[-1])[unit]
            section.figures["rotation"][name] = [count, round(seconds, 3)]
            tell(f"recovery, keys {name}: {count:,} in {seconds:.1f} s")
    finally:
        stand.target.keys.write_bytes(before)


def _declare(stand: Stand, series: str) -> None:
    """Add version 2 of a root to the keys and make it the active one."""
    from sqs2pg.keys import provider_file

    content = json.loads(stand.target.keys.read_bytes())
    content[series]["2"] = base64.b64encode(os.urandom(32)).decode()
    stand.target.keys.write_text(json.dumps(content))
    mark = provider_file.load(stand.target.keys).fingerprints(series)[2]
    with psycopg.connect(stand.database_url) as connection:
        connection.execute("UPDATE sqs2pg.key SET active = false WHERE series = %s", [series])
        connection.execute(
            "INSERT INTO sqs2pg.key (series, version, fingerprint, active)"
            " VALUES (%s, 2, %s, true)",
            [series, mark],
        )
