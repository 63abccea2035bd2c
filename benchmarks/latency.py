"""Latencies of single messages on an idle pipeline, and of all messages at a steady rate.

A latency runs from SentTimestamp, which the queue server sets, to the COMMIT, whose time is
recorded by PostgreSQL itself (`track_commit_timestamp`). The key of a message's ledger row contains
the first time, and the row's xmin leads to the second. The latency is exact for every message, and
measuring adds nothing to the path. Both times are from the same machine's clock. SentTimestamp is
rounded down to whole milliseconds, so a latency can be up to 1 ms too long. PostgreSQL records the
time when it writes the commit record, before the flush. The second figure, from before the send to
the answer of the delete, includes that flush.

Source: PostgreSQL documentation, pg_xact_commit_timestamp; RFC 9562, section 5.7, for the key.
"""

from __future__ import annotations

import random
import statistics
import time
from typing import Any

from sqs2pg.cli.embedded.sample_logins import logins

from . import processes
from .contenders import ONE, Launch
from .measure import START_S, Backlog, drain, running, wait
from .rig import QUEUE, BenchmarkError, Rig, Stand
from .workloads import ResultSection, SuitePlan, Tell

_LAG = """extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000
- ('x' || left(replace(key::text, '-', ''), 12))::bit(48)::bigint"""
LAGS_MS = f"SELECT ({_LAG})::float8 FROM sqs2pg.delivery ORDER BY key"
PERCENTILES = (0.5, 0.95, 0.99, 0.999, 1.0)
PERCENTILES_MS = f"""SELECT percentile_disc(ARRAY{list(PERCENTILES)})
WITHIN GROUP (ORDER BY ({_LAG})::float8) FROM sqs2pg.delivery"""
_PAUSE_S = (0.02, 0.06)
"""Random pause between two messages, so that they arrive in any phase of the timers."""
TRIAL = 200_000
"""Messages of the drain that measures the capacity, if none was measured before."""


def percentile(values: list[float], share: float) -> float:
    """Return the smallest value that `share` of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    rank = max(1, -int(-share * len(ordered) // 1))
    return ordered[rank - 1]


def _launch(stand: Stand) -> Launch:
    """Return our pipeline as in production: without --drain, with its long polls of 20 s."""
    launch = ONE.launch(stand.target)
    return Launch([word for word in launch.argv if word != "--drain"], launch.environment)


def _exact(stand: Stand) -> bool:
    [(setting,)] = stand.query("SHOW track_commit_timestamp")
    return bool(setting == "on")


def run_idle(rig: Rig, plan: SuitePlan, tell: Tell, count: int = 100) -> ResultSection:
    """Send messages one by one to a pipeline that has nothing else to do."""
    section = ResultSection(
        "idle",
        "One message on an idle pipeline",
        f"{count} messages per run, each sent once the previous one is deleted and a poll waits",
    )
    commits: list[float] = []
    deletes: list[float] = []
    for turn in range(plan.runs):
        with rig.stand() as stand, running(_launch(stand), stand.target.folder) as process:
            for index, body in enumerate(logins(count, seed=turn, bad_share=0.0)):
                if not wait(stand, process, "waiting", 1, START_S):
                    raise BenchmarkError("the pipeline does not poll")
                time.sleep(random.uniform(*_PAUSE_S))
                began = time.perf_counter()
                arguments = {"QueueUrl": stand.target.queue_url, "MessageBody": body}
                stand.server.call("SendMessage", arguments)
                if not wait(stand, process, "deleted", index + 1, START_S):
                    raise BenchmarkError("a message was not deleted")
                deletes.append((time.perf_counter() - began) * 1000)
            if _exact(stand):
                commits += [lag for (lag,) in stand.query(LAGS_MS)]
        tell(
            f"idle {turn + 1}/{plan.runs} sent to deleted, p50 {statistics.median(deletes):.1f} ms"
        )
    section.figures = {
        "messages": len(deletes),
        "commit_ms": _summary(commits),
        "delete_ms": _summary(deletes),
    }
    return section


def _summary(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {f"p{share * 100:g}": round(percentile(values, share), 2) for share in PERCENTILES}


def run_steady(
    rig: Rig, plan: SuitePlan, tell: Tell, rate: float | None, capacity: float | None
) -> ResultSection:
    """Send at a steady rate, by default half of what one worker drains per second."""
    if rate is None:
        if capacity is None:
            with rig.stand() as stand:
                backlog = Backlog(max(10, round(TRIAL * plan.share)))
                capacity = drain(stand, ONE, backlog, plan.limit_s).rate
        rate = capacity / 2
    seconds = plan.seconds
    section = ResultSection(
        "steady", "Steady rate", f"{rate:,.0f} messages/s for {seconds:g} s per run"
    )
    turns: list[dict[str, Any]] = []
    for turn in range(plan.runs):
        with rig.stand() as stand, running(_launch(stand), stand.target.folder) as process:
            if not wait(stand, process, "waiting", 1, START_S):
                raise BenchmarkError("the pipeline does not poll")
            count = round(rate * seconds)
            cpu = processes.cpu_s(process.pid)
            began = time.perf_counter()
            stand.server.fill(QUEUE, count, rate_per_s=rate, seed=1, background=True)
            if not wait(stand, process, "deleted", count, seconds + plan.limit_s):
                raise BenchmarkError(f"it does not keep up with {rate:,.0f} messages/s")
            took_s = time.perf_counter() - began
            spent = processes.cpu_s(process.pid)
            figures: dict[str, Any] = {"seconds": round(took_s, 3)}
            if cpu is not None and spent is not None:
                figures["pipeline_cpu_us"] = round((spent - cpu) * 1e6 / count, 2)
            if _exact(stand):
                [(lags,)] = stand.query(PERCENTILES_MS)
                names = [f"p{share * 100:g}" for share in PERCENTILES]
                figures["commit_ms"] = {
                    name: round(lag, 1) for name, lag in zip(names, lags, strict=True)
                }
        turns.append(figures)
        tell(f"steady {turn + 1}/{plan.runs} {figures}")
    section.figures = {"rate": round(rate), "capacity": capacity, "turns": turns}
    return section
