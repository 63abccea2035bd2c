"""The cost of recovery: drains with the vault off and on, in turns, into one database.

First people log in until the vault knows most of them; this is not counted. Then drains with
recovery off and on take turns over logins of those people. Each drain is a new process, and the
vault's tables hold all these people. With recovery on, a process reads what is stored before it
receives, and the clock starts later: that cost is measured by itself, as one query for each slice.
Then come drains over logins of new people. Finally the rates of `keys rewrap` and `keys rekey` are
measured.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable

import psycopg

from sqs2pg.vault.batching import BATCH_ROWS_MAX
from sqs2pg.vault.known_values import VALUE_HASHES_READ_MAX
from sqs2pg.vault.seal import ESTIMATE, slice_bits

from . import processes
from .contenders import ONE, RECOVERY, Contender
from .measure import Backlog, Run, drain
from .rig import Rig, Stand, run_command
from .workloads import ResultSection, SuitePlan

TITLES = {"again": "returning people", "new": "every person new"}
"""Row titles by workload."""
ROTATIONS = (("vault", "rewrap", "rewrapped"), ("pseudonym", "rekey", "values"))
"""The root key to rotate, the command that follows, and the field with its count."""
BARE = {
    "rewrap": {
        "pii.subject_key": "wrapped_key = wrapped_key || ''::bytea, key_version = key_version + 0"
    },
    "rekey": {
        "pii.value": (
            "token = 'x' || token, sealed = sealed || ''::bytea,"
            " token_hash = hashtextextended('x' || token, 0)"
        ),
        "user_logins": "masked_ip = 'x' || masked_ip, masked_device_id = 'x' || masked_device_id",
    },
}
"""The least that a rotation's command must do, by command: which columns of which tables change."""
UNSEALED = """DELETE FROM user_logins t WHERE NOT EXISTS (
    SELECT FROM pii.value v WHERE v.token = t.masked_ip) AND NOT EXISTS (
    SELECT FROM pii.value v WHERE v.token = t.masked_device_id)"""
"""Rows that were written with recovery off, of people whom the vault does not know: no command
changes them."""
WARM_SHARE = 3
"""Logins per person, on average, before counting starts: the vault then knows 95 of 100."""
WARM_STEP = 500_000
NEW_MAX = 60_000
"""Most messages of a drain over new people, since every one of them stays in the vault."""

Tell = Callable[[str], None]


def run(rig: Rig, plan: SuitePlan, people: int, tell: Tell) -> ResultSection:
    """Measure; raises BenchmarkError if a drain fails."""
    people = max(100, round(people * plan.share))
    section = ResultSection(
        "recovery",
        "Recovery",
        f"{people:,} people, each with three addresses and two devices, known to the vault before",
    )
    section.figures = {"people": people, "runs": {what: {} for what in TITLES}, "rotation": {}}
    section.figures["bare"] = {}
    with rig.stand() as stand:
        _warm(stand, plan, people, tell)
        seeds = itertools.count(2)
        sizes: dict[str, int] = {}
        for turn in range(plan.runs):
            for contender in (ONE, RECOVERY):
                size = sizes.get(contender.name) or round(contender.trial * plan.share)
                backlog = Backlog(size, people=people)
                done = _drain(stand, contender, backlog, plan)
                if contender.name not in sizes:  # that was a trial; not counted
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
        section.figures["preload"] = _preload(stand, tell)
        _rotate(stand, section, tell)
    return section


def _warm(stand: Stand, plan: SuitePlan, people: int, tell: Tell) -> None:
    left = people * WARM_SHARE
    while left:
        size = min(left, WARM_STEP)
        done = _drain(stand, RECOVERY, Backlog(size, people=people), plan, limit_s=3_600)
        left -= size
        tell(f"recovery, warming up: {left:,} logins left, {done.rate:,.0f} messages/s")


def _drain(
    stand: Stand,
    contender: Contender,
    backlog: Backlog,
    plan: SuitePlan,
    limit_s: float | None = None,
) -> Run:
    return drain(stand, contender, backlog, limit_s or plan.limit_s)


def _keep(
    section: ResultSection, what: str, contender: Contender, done: Run, turn: int, tell: Tell
) -> None:
    """Add a run, and note its index: JSON keeps the order of the runs."""
    side = "on" if contender is RECOVERY else "off"
    section.figures["runs"][what].setdefault(side, []).append(len(section.runs))
    section.runs.append(done)
    cpu = sum(us for part in ("pipeline", "postgres") if (us := done.cpu_us(part)) is not None)
    tell(f"recovery {side}, {what} {turn + 1}: {done.rate:,.0f} messages/s, CPU {cpu:.1f} us")


def runs_of(section: ResultSection, what: str, *, on: bool) -> list[Run]:
    """Return the runs of a workload with recovery on or off, in order."""
    numbers = section.figures["runs"][what].get("on" if on else "off", [])
    return [section.runs[number] for number in numbers]


def ratio(section: ResultSection, what: str) -> float | None:
    """Return CPU per message with recovery on, divided by that with it off.

    Both are medians of pipeline and PostgreSQL together; None if either was not measured.
    """
    cost = [
        statistics.median(
            (run.cpu_us("pipeline") or 0.0) + (run.cpu_us("postgres") or 0.0) for run in runs
        )
        for on in (True, False)
        if (runs := runs_of(section, what, on=on))
    ]
    return cost[0] / cost[1] if len(cost) == 2 and cost[1] else None


def says(section: ResultSection) -> list[str]:
    """Return sentences with the ratios and the rates of rotation."""
    lines = [
        f"With recovery on, a message costs {found:.2f} times the CPU: {title}."
        for what, title in TITLES.items()
        if (found := ratio(section, what)) is not None
    ]
    if preload := section.figures.get("preload"):
        read, seconds = preload
        lines.append(
            "Not in these figures: a process that starts reads what is stored, "
            f"{read:,.0f} values in {seconds:.2f} s of PostgreSQL's CPU."
        )
    for name, (count, seconds) in section.figures["rotation"].items():
        lines.append(
            f"`sqs2pg keys {name}`: {count:,} in {seconds:,.1f} s, "
            f"{seconds * 1e6 / count:,.1f} s per million{_against_bare(section, name, seconds)}."
        )
    return lines


def _against_bare(section: ResultSection, name: str, seconds: float) -> str:
    bare = section.figures.get("bare", {}).get(name)
    return f", {seconds / bare:.2f} times as long as a bare UPDATE of the same rows" if bare else ""


def _rotate(stand: Stand, section: ResultSection, tell: Tell) -> None:
    """Time `rewrap`, which counts data keys, and `rekey`, which counts sealed values."""
    before = stand.target.keys.read_bytes()
    try:
        for series, name, unit in ROTATIONS:
            _declare(stand, series)
            began = time.perf_counter()
            printed = run_command(stand.target, "keys", name, "--json")
            seconds = time.perf_counter() - began
            count = json.loads(printed.splitlines()[-1])[unit]
            section.figures["rotation"][name] = [count, round(seconds, 3)]
            bare = section.figures["bare"][name] = _bare(stand, name)
            tell(f"recovery, keys {name}: {count:,} in {seconds:.1f} s; bare UPDATE {bare:.1f} s")
    finally:
        stand.target.keys.write_bytes(before)


def _bare(stand: Stand, name: str) -> float:
    """Return the seconds that bare UPDATEs of a command's rows take, after the command.

    They find the tables without the rows that it left behind, and commit as often: the vault's
    rows by as many as one of its batches has at most, those of a target by half of the table.
    """
    with psycopg.connect(stand.database_url, autocommit=True) as connection:
        if "user_logins" in BARE[name]:
            connection.execute(UNSEALED)
        for table in BARE[name]:
            connection.execute(f"VACUUM (FULL, ANALYZE) {table}".encode())
        began = time.perf_counter()
        for table, sets in BARE[name].items():
            [(pages, rows)] = connection.execute(
                f"SELECT pg_relation_size('{table}') / current_setting('block_size')::bigint,"
                f" count(*) FROM {table}".encode()
            ).fetchall()
            batches = 2 if table == "user_logins" else max(1, round(rows / BATCH_ROWS_MAX))
            bounds = [f"({pages * number // batches},0)" for number in range(batches + 1)]
            for first, end in itertools.pairwise(bounds):
                update = f"UPDATE {table} SET {sets} WHERE ctid >= '{first}' AND ctid < '{end}'"
                connection.execute(update.encode())
        return round(time.perf_counter() - began, 3)


def _preload(stand: Stand, tell: Tell) -> list[float]:
    """Return how many stored values a process reads when it starts, and PostgreSQL's CPU seconds.

    The latter 0 if they are not known. It is the first read of these pages for this session.
    """
    with psycopg.connect(stand.database_url, autocommit=True) as connection:
        backend = connection.info.backend_pid if stand.postgres_pid else 0
        began = (processes.cpu_s(backend) if backend else None) or 0.0
        read = 0
        [(estimate,)] = connection.execute(ESTIMATE).fetchall()
        bits = slice_bits(estimate)
        for number in range(1 << bits):
            slice_ = "SELECT pii.stored_slice(%s, %s)"
            [(hashes,)] = connection.execute(slice_, [number, bits], binary=True).fetchall()
            read = min(VALUE_HASHES_READ_MAX, read + len(hashes or b"") // 8)
            if read == VALUE_HASHES_READ_MAX:
                break
        ended = (processes.cpu_s(backend) if backend else None) or 0.0
    seconds = round(ended - began, 3)
    tell(f"recovery, a start reads {read:,} values: PostgreSQL, {seconds:.2f} s of CPU")
    return [read, seconds]


def _declare(stand: Stand, series: str) -> None:
    """Add version 2 of a root key and make it the active one."""
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
