"""`make bench`: runs the suite, saves the results, and writes RESULTS.md and its picture.

    python -m benchmarks.run --only drain --runs 3

Loopback only. Progress goes to stderr, one line per run. Exit codes: 0 done, 1 a run failed,
2 wrong usage, 69 cannot run here (no C compiler).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg

from sqs2pg.errors import Sqs2pgError

from . import latency, machine, one_bad, profiling, recovery, report, results, shapes
from .contenders import CONTENDERS
from .queue_server import BuildError, build
from .rig import BenchmarkError, Rig, open_rig
from .workloads import DRAINS, FULL_S, ResultSection, SuitePlan, run_drains, run_growth

UNAVAILABLE = 69  # sysexits.h, EX_UNAVAILABLE
SECTIONS = (
    *(workload.name for workload in DRAINS),
    "mappings",
    "one_bad",
    "recovery",
    "idle",
    "steady",
    "ledger",
)
LONG = ("ledger", "mappings", "one_bad")
"""Sections that run only if `--only` names them."""
PROFILED = 200_000
"""Messages in a profiled drain."""
IDLE = 100
"""Messages per run on the idle pipeline."""
SHORT_CONTENDERS = ("plain", "tuned", "sqs2pg")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options; exits with 2 if they are wrong."""
    parser = argparse.ArgumentParser(prog="benchmarks.run", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add(
        "--only",
        type=_names(SECTIONS),
        default=(),
        metavar="SECTION[,…]",
        help=f"any of {', '.join(SECTIONS)}; {' and '.join(LONG)} take long and run only if named",
    )
    add(
        "--contenders",
        type=_names(CONTENDERS),
        default=(),
        metavar="NAME[,…]",
        help=f"any of {', '.join(CONTENDERS)}",
    )
    add("--runs", type=_at_least_one, default=5, help="runs of each contender, in turns (5)")
    add(
        "--seconds",
        type=float,
        default=6.0,
        help="length of each drain; below 5, nothing is published (6)",
    )
    add(
        "--messages",
        type=_count,
        action="append",
        default=[],
        metavar="CONTENDER=N",
        help="size of a contender's backlog",
    )
    add("--limit-s", type=float, default=60.0, help="longest drain, in seconds (60)")
    add(
        "--setting",
        type=_pair,
        action="append",
        default=[],
        metavar="SECTION__KEY=VALUE",
        help="a setting of our pipeline, such as SOURCE__RECEIVERS_MAX=64",
    )
    add("--rate", type=float, help="rate of `steady`, messages/s (default: half of the capacity)")
    add("--ledger-rows", type=_at_least_one, default=20_000_000)
    add(
        "--recovery-people",
        type=_at_least_one,
        default=1_000_000,
        help="returning people in `recovery` (1,000,000)",
    )
    add("--ledger-step", type=_at_least_one, default=500_000)
    add(
        "--no-fsync",
        action="store_true",
        help="run the embedded PostgreSQL without fsync; nothing is published",
    )
    add("--results", type=Path, help="folder for the JSON files; RESULTS.md is not changed")
    add(
        "--profile",
        nargs="?",
        const="cprofile",
        choices=profiling.TOOLS,
        help="instead, run one drain of our pipeline under a profiler; prints the top 25 functions",
    )
    add("--short", action="store_true", help="run the drain only, for `sqs2pg bench`")
    add("--json", action="store_true", help="print one line of JSON at the end (with --short)")
    return parser.parse_args(arguments)


def _names(known: Sequence[str] | dict[str, Any]) -> Any:
    def names(text: str) -> tuple[str, ...]:
        found = tuple(text.split(","))
        if unknown := set(found) - set(known):
            raise argparse.ArgumentTypeError(f"no such name: {', '.join(sorted(unknown))}")
        return found

    return names


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _count(text: str) -> tuple[str, int]:
    name, value = _pair(text)
    if name not in CONTENDERS:
        raise argparse.ArgumentTypeError(f"no such name: {name}")
    return name, _at_least_one(value)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError("NAME=VALUE")
    return name, value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the requested sections; return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parse(given)
    plan = SuitePlan(
        runs=options.runs,
        seconds=options.seconds,
        limit_s=options.limit_s,
        only=options.contenders,
        messages=dict(options.messages),
    )
    try:
        build()
    except BuildError as error:
        return _fail(str(error), UNAVAILABLE)
    try:
        with open_rig(
            database_url=os.environ.get("BENCH_DATABASE_URL", ""),
            settings=dict(options.setting),
            fsync=not options.no_fsync,
        ) as rig:
            if options.profile:
                messages = max(10, round(PROFILED * plan.share))
                print(profiling.profile(rig, options.profile, messages, options.limit_s))
            elif options.short:
                _short(rig, plan, as_json=options.json)
            else:
                stamp = machine.stamp(rig, _as_typed(given), fsync=not options.no_fsync)
                return _suite(rig, plan, options, stamp)
    except BenchmarkError as error:
        return _fail(str(error), 1)
    except psycopg.Error as error:
        # Without the driver's message, which may quote the connection string.
        state = f", SQLSTATE {error.sqlstate}" if error.sqlstate else ""
        where = "BENCH_DATABASE_URL" if os.environ.get("BENCH_DATABASE_URL") else "embedded server"
        return _fail(f"PostgreSQL ({where}): {type(error).__name__}{state}", 1)
    except Sqs2pgError as error:
        return _fail(f"{error.what}\nhint: {error.hint}", error.exit_code)
    return 0


def _as_typed(given: Sequence[str]) -> list[str]:
    return ["make", "bench", *([f"BENCH_ARGS={' '.join(given)}"] if given else [])]


def _fail(what: str, code: int) -> int:
    print(f"error: {what}", file=sys.stderr)
    return code


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _suite(rig: Rig, plan: SuitePlan, options: argparse.Namespace, stamp: dict[str, Any]) -> int:
    """Run the sections; save each when it is done, and continue after one that fails."""
    folder = options.results or results.FOLDER
    published = options.results is None and plan.seconds >= FULL_S and not options.no_fsync
    capacity: float | None = None
    failed: list[str] = []
    for name in options.only or [one for one in SECTIONS if one not in LONG]:
        try:
            section = _section(rig, name, plan, options, capacity)
        except BenchmarkError as error:
            failed.append(f"{name}: {error}")
            _tell(failed[-1])
            continue
        failed += [f"{name}, {contender}" for contender in section.failed]
        if name == "drain":
            capacity = section.rate("sqs2pg")
        section.stamp = stamp
        if published or options.results:
            results.save(section, folder)
        print(f"\n{section.title}\n\n{report.table(section)}\n", flush=True)
    if published:
        report.publish(folder)
        _tell(f"wrote {report.RESULTS} and {report.PICTURE}")
    elif not options.results:
        _tell("not published: short drains and --no-fsync give different figures")
    return _fail(f"failed: {'; '.join(failed)}", 1) if failed else 0


def _section(
    rig: Rig, name: str, plan: SuitePlan, options: argparse.Namespace, capacity: float | None
) -> ResultSection:
    match name:
        case "idle":
            return latency.run_idle(rig, plan, _tell, count=max(5, round(IDLE * plan.share)))
        case "steady":
            return latency.run_steady(rig, plan, _tell, options.rate, capacity)
        case "recovery":
            return recovery.run(rig, plan, options.recovery_people, _tell)
        case "one_bad":
            return one_bad.run(rig, plan, _tell)
        case "mappings":
            return shapes.run(rig, plan, _tell)
        case "ledger":
            return run_growth(rig, plan, options.ledger_rows, options.ledger_step, _tell)
        case _:
            [workload] = [one for one in DRAINS if one.name == name]
            return run_drains(rig, workload, plan, _tell)


def _short(rig: Rig, plan: SuitePlan, *, as_json: bool) -> None:
    """Run the drain of `sqs2pg bench`: one worker, and the two scripts if they can run."""
    if not plan.only:
        plan = dataclasses.replace(plan, only=SHORT_CONTENDERS)
    section = run_drains(rig, DRAINS[0], plan, _tell)
    if not section.of("sqs2pg"):
        raise BenchmarkError(section.missing.get("sqs2pg", "sqs2pg was not measured"))
    print(json.dumps(short_result(section)) if as_json else report.table(section))


def short_result(section: ResultSection) -> dict[str, float | None]:
    """Return the fields of `sqs2pg bench --json`; a field that was not measured is None."""

    def rounded(value: float | None) -> float | None:
        return None if value is None else round(value, 2)

    return {
        "messages_per_second": rounded(section.rate("sqs2pg")),
        "cpu_us_per_message": rounded(section.cpu_us("sqs2pg", "pipeline")),
        "ratio_plain_script": rounded(section.ratio("sqs2pg", "plain")),
        "ratio_tuned_script": rounded(section.ratio("sqs2pg", "tuned")),
    }


if __name__ == "__main__":
    raise SystemExit(main())
