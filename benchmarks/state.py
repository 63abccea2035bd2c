"""State tables beside a log: how fast the same logins become one row per person.

    python -m benchmarks.state --messages 1000000 --runs 5

Each turn drains the queue with `mode = "append"`, with the same into a table with a rule, whose
rows go by INSERT, with `"upsert"` where one message in five updates a row, with `"upsert"` where
every message does, and with `"ignore"`; then a log and the first of the upserts again, while a
digest of the rows is kept. A share is the median of the
ratios to the log of the same turn. Prints one line of JSON at the end.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from .contenders import Contender, Launch, RunTarget
from .contenders import pipeline as ours
from .machine import commit, machine
from .measure import Backlog, Run, drain
from .rig import Rig, open_rig, run_command
from .shapes import login_fields

PEOPLE_PER_MESSAGE = 2.155
"""Of so many people, drawn at random, one message in five is about somebody who came before."""
LIMIT_S = 600.0


@dataclasses.dataclass(frozen=True)
class Way:
    """One way to write the logins, and how many of them are about somebody who has a row."""

    name: str
    sink: str
    """TOML of `[sink]`, besides the table."""
    change: str = ""
    """What is done to the table before the drain."""
    filled: bool = False
    """Whether everybody has a row before the drain begins."""


KEY = '\nkey = ["user_id"]'
DIGEST = f"{KEY}\ndigest = true"
INDEX = "ALTER TABLE state SET (fillfactor = 80); CREATE UNIQUE INDEX ON state (user_id)"
RULE = "CREATE RULE adds_nothing AS ON INSERT TO state DO ALSO NOTHING"
WAYS = (
    Way("append", 'mode = "append"'),
    Way("insert", 'mode = "append"', RULE),
    Way("upsert_20", f'mode = "upsert"{KEY}', INDEX),
    Way("upsert_100", f'mode = "upsert"{KEY}', INDEX, filled=True),
    Way("ignore", f'mode = "ignore"{KEY}', INDEX),
    Way("append_digest", f'mode = "append"{DIGEST}'),
    Way("upsert_20_digest", f'mode = "upsert"{DIGEST}', INDEX),
)


def _contender(way: Way) -> Contender:
    def launch(target: RunTarget) -> Launch:
        file = str(_settings(way, target.folder))
        return Launch([*ours.command("run", "--drain")[:-1], file], ours.environment(target))

    return Contender(way.name, way.name, way.name, 0, launch)


def _settings(way: Way, folder: Path) -> Path:
    file = folder / f"{way.name}.toml"
    file.write_text(f'[sink]\ntable = "state"\n{way.sink}\n{login_fields()}', encoding="utf-8")
    return file


def _measure(rig: Rig, way: Way, messages: int) -> Run:
    """Drain once, after the way's change of the table. Raises BenchmarkError."""
    backlog = Backlog(
        messages, table="state", people=round(messages * PEOPLE_PER_MESSAGE), counted=False
    )
    with rig.stand() as stand:
        run_command(stand.target, "migrate", settings=str(_settings(way, stand.target.folder)))
        if way.change:
            stand.query(way.change)
        if way.filled:
            drain(stand, _contender(way), backlog, LIMIT_S)
            stand.query("VACUUM ANALYZE state")
            stand.query("CHECKPOINT")
        done = drain(stand, _contender(way), backlog, LIMIT_S)
        verify = run_command(
            stand.target, "verify", settings=str(_settings(way, stand.target.folder))
        )
        assert "the books balance" in verify
        return done


def figures(runs: Mapping[str, list[Run]]) -> dict[str, float]:
    """Return the median rate of each way, its share of the log's, and CPU per message.

    The CPU is that of pipeline and PostgreSQL together, in microseconds.
    """
    rates = {name: [run.rate for run in of] for name, of in runs.items()}
    found: dict[str, float] = {
        f"{name}_per_second": round(statistics.median(of)) for name, of in rates.items()
    }
    found |= {
        f"{name}_cpu_us": round(
            statistics.median(
                1e6 * ((run.pipeline_cpu_s or 0) + (run.postgres_cpu_s or 0)) / run.messages
                for run in of
            ),
            1,
        )
        for name, of in runs.items()
    }
    shares = {
        f"{name}_share": round(
            statistics.median(a / b for a, b in zip(of, rates["append"], strict=True)), 3
        )
        for name, of in rates.items()
        if name != "append"
    }
    return found | shares


def main(arguments: list[str] | None = None) -> None:
    """Read the options, run, and print the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--messages", type=int, default=200_000, help="of each drain (200,000)")
    parser.add_argument(
        "--ways", default=",".join(way.name for way in WAYS), help="those beside append (all)"
    )
    parser.add_argument("--runs", type=int, default=3, help="turns (3)")
    options = parser.parse_args(arguments)
    stamp = {
        "measured": datetime.now(UTC).isoformat(timespec="minutes"),
        "commit": commit(),
        "machine": machine(),
        "load_before": round(os.getloadavg()[0], 2),
    }
    ways = [way for way in WAYS if way.name in ("append", *options.ways.split(","))]
    runs: dict[str, list[Run]] = {way.name: [] for way in ways}
    with open_rig(settings={}) as rig:
        for turn in range(options.runs):
            for way in ways:
                run = _measure(rig, way, options.messages)
                runs[way.name].append(run)
                print(
                    f"{turn + 1}/{options.runs} {way.name}: {run.rate:,.0f} messages/s", flush=True
                )
    print(json.dumps({"messages": options.messages, **figures(runs), **stamp}))


if __name__ == "__main__":
    main()
