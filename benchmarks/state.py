"""State tables beside a log: how fast the same logins become one row per person.

    python -m benchmarks.state --messages 1000000 --runs 5 --ways upsert_20,upsert_100,ignore

Each turn drains the queue with `mode = "append"`, and then in other ways (`--ways`; all):

- `insert`: the log has a rule, so its rows go by INSERT;
- `upsert_20`: an upsert with `newer`, where one message in five updates a row; `upsert_100`: every
  message does; `upsert_any`: as upsert_20, without `newer`; `ignore`;
- `deletes`: as upsert_20, and one message in twenty deletes, with a tombstone;
- `append_digest`, `upsert_20_digest`: while a digest of the rows is kept;
- `psql_20`, `psql_100`, `psql_ignore`: the lines that the log got, by psql: COPY to a staging table
  and the same INSERT, with one session. Nothing is received, masked, booked or deleted there.

A share is the median of the ratios to the log of the same turn; that of an upsert or ignore to its
psql twin is `…_to_psql`. With so many messages there are 0.8 times as many keys (upsert_20). Prints
one line of JSON at the end.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
from collections.abc import Mapping
from pathlib import Path

from . import state_psql
from .contenders import Contender, Launch, RunTarget
from .contenders import pipeline as ours
from .machine import short_stamp
from .measure import Backlog, Run, drain
from .rig import Rig, Stand, open_rig, run_command
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
    psql: bool = False
    """psql writes the lines, and not the pipeline."""


KEPT = '\nkey = ["user_id"]'
"""With a key a digest of the rows is kept."""
KEY = f"{KEPT}\ndigest = false"
NEWER = f'{KEY}\nnewer = "sent_at"'
DELETES = '\ndelete_when = { field = "locale", equals = "RU" }'
SENT = '[[field]]\ncolumn = "sent_at"\ntype = "bigint"\ndefault = "sent_time"\n'
INDEX = "ALTER TABLE state SET (fillfactor = 80); CREATE UNIQUE INDEX ON state (user_id)"
RULE = "CREATE RULE adds_nothing AS ON INSERT TO state DO ALSO NOTHING"
LOG = 'mode = "append"'
WAYS = (
    Way("append", LOG),
    Way("insert", LOG, RULE),
    Way("upsert_20", f'mode = "upsert"{NEWER}', INDEX),
    Way("psql_20", LOG, INDEX, psql=True),
    Way("upsert_100", f'mode = "upsert"{NEWER}', INDEX, filled=True),
    Way("psql_100", LOG, INDEX, filled=True, psql=True),
    Way("upsert_any", f'mode = "upsert"{KEY}', INDEX),
    Way("ignore", f'mode = "ignore"{KEY}', INDEX),
    Way("psql_ignore", LOG, INDEX, psql=True),
    Way("deletes", f'mode = "upsert"{NEWER}{DELETES}', INDEX),
    Way("append_digest", f"{LOG}{KEPT}"),
    Way("upsert_20_digest", f'mode = "upsert"{KEPT}\nnewer = "sent_at"', INDEX),
)
_TWINS = {"upsert_20": "psql_20", "upsert_100": "psql_100", "ignore": "psql_ignore"}


def _contender(way: Way) -> Contender:
    def launch(target: RunTarget) -> Launch:
        drains = ours.command("run", "--drain", settings=_settings(way, target.folder))
        return Launch(drains, ours.environment(target))

    return Contender(way.name, way.name, way.name, 0, launch)


def _settings(way: Way, folder: Path) -> Path:
    file = folder / f"{way.name}.toml"
    file.write_text(
        f'[sink]\ntable = "state"\n{way.sink}\n{login_fields()}{SENT}', encoding="utf-8"
    )
    return file


def _measure(rig: Rig, way: Way, messages: int) -> Run:
    """Drain once, after the way's change of the table. Raises BenchmarkError."""
    backlog = Backlog(
        messages, table="state", people=round(messages * PEOPLE_PER_MESSAGE), counted=False
    )
    with rig.stand() as stand:
        settings = _settings(way, stand.target.folder)
        run_command(stand.target, "migrate", settings=settings)
        if way.psql:
            return _measure_psql(stand, way, backlog)
        if way.change:
            stand.query(way.change)
        if way.filled:
            drain(stand, _contender(way), backlog, LIMIT_S)
            stand.query("VACUUM ANALYZE state")
            stand.query("CHECKPOINT")
        done = drain(stand, _contender(way), backlog, LIMIT_S)
        assert "the books balance" in run_command(stand.target, "verify", settings=settings)
        return done


def _measure_psql(stand: Stand, way: Way, backlog: Backlog) -> Run:
    """Let psql write the lines that the pipeline has written to the log."""
    drain(stand, _contender(way), backlog, LIMIT_S)
    ignore = way.name == "psql_ignore"
    script = state_psql.write_script(stand, ("user_id",), "sent_at", ignore=ignore)
    stand.query(f"TRUNCATE state; {way.change}")
    if way.filled:
        state_psql.run_script(stand, script)
        stand.query("UPDATE state SET sent_at = 0")
        stand.query("VACUUM FULL ANALYZE state")
    stand.query("CHECKPOINT")
    seconds = state_psql.run_script(stand, script)
    return Run(way.name, backlog.messages, seconds, None, None, None, None)


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
        if of[0].pipeline_cpu_s is not None
    }
    shares = {
        f"{name}_share": round(
            statistics.median(a / b for a, b in zip(of, rates["append"], strict=True)), 3
        )
        for name, of in rates.items()
        if name != "append"
    }
    twins = {
        f"{name}_to_psql": round(
            statistics.median(a / b for a, b in zip(rates[name], rates[twin], strict=True)), 3
        )
        for name, twin in _TWINS.items()
        if name in rates and twin in rates
    }
    return found | shares | twins


def main(arguments: list[str] | None = None) -> None:
    """Read the options, run, and print the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--messages", type=int, default=200_000, help="of each drain (200,000)")
    parser.add_argument(
        "--ways", default=",".join(way.name for way in WAYS), help="those beside append (all)"
    )
    parser.add_argument("--runs", type=int, default=3, help="turns (3)")
    options = parser.parse_args(arguments)
    stamp = short_stamp()
    names = ("append", *options.ways.split(","))
    if unknown := set(names) - {way.name for way in WAYS}:
        parser.error(f"no such way: {', '.join(sorted(unknown))}")
    ways = [way for way in WAYS if way.name in names]
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
