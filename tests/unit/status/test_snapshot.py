"""Snapshots add up, rates come from two of them, and quantiles are Prometheus' own."""

from __future__ import annotations

import io
import math
import time
from typing import Any

import msgspec
import pytest
from rich.console import Console

from sqs2pg.cli.terminal_frame import frame
from sqs2pg.errors import Stage as Fault
from sqs2pg.message import Outcome
from sqs2pg.postgres.workers import Worker
from sqs2pg.settings import Settings
from sqs2pg.status.probes import ProbeResults
from sqs2pg.status.recorder import point_between
from sqs2pg.status.snapshot import (
    LAG_BOUNDS,
    About,
    Snapshot,
    StageTime,
    encode,
    join_gauge,
    lag_quantile,
    merge,
    take_snapshot,
)
from sqs2pg.telemetry.liveness import Liveness, ReadinessCheck
from sqs2pg.telemetry.metrics import Metrics


def taken(metrics: Metrics, **seen: Any) -> Snapshot:
    about = About("logins", "login-queue", "user_logins")
    return take_snapshot(
        metrics.registry, metrics.started_at, about, Liveness(Settings()), ProbeResults(**seen)
    )


def test_a_snapshot_says_what_the_metrics_say() -> None:
    metrics = Metrics()
    metrics.requests.reply(10, 0.5)
    metrics.requests.delete(7, 0.25)
    metrics.lag_seconds.observe(0.3)
    metrics.queue_visible.set(42)
    metrics.credential_expiry.set(math.inf)
    metrics.count_released(2)
    metrics.count_objects(["read"], [Outcome.WRITTEN, Outcome.QUARANTINED, Outcome.WRITTEN])
    snapshot = taken(metrics, database=ReadinessCheck(ok=True))
    assert snapshot.counts["received"] == 10
    assert snapshot.counts["deleted"] == 7
    assert snapshot.counts["released"] == 2
    assert snapshot.counts["object_lines"] == 3
    assert snapshot.stages["receive"] == StageTime(0.5, 1)
    assert snapshot.stages["acknowledge"] == StageTime(0.25, 1)
    assert len(snapshot.lag) == len(LAG_BOUNDS)
    assert snapshot.lag[-1] == 1
    assert snapshot.gauges["queue_visible_messages"] == 42
    assert snapshot.gauges["dlq_visible_messages"] is None, "not known"
    assert snapshot.gauges["credential_expiry_timestamp_seconds"] is None, "never"
    assert snapshot.ready["database"].ok
    assert not snapshot.ready["keys"].ok
    decoded = msgspec.json.decode(encode(snapshot), type=Snapshot)
    assert decoded == snapshot


def test_fault_codes_are_bounded() -> None:
    metrics = Metrics()
    for number in range(1_000):
        metrics.count_fault(Fault.DECODE, f"code{number}")
    assert len(taken(metrics).faults) <= 201
    assert sum(taken(metrics).faults.values()) == 1_000


def worker(at: float, **changes: Any) -> Snapshot:
    lag = [0.0] * len(LAG_BOUNDS)
    made = Snapshot(at, 50.0, counts={"received": 5.0}, stages={"write": StageTime(1, 2)}, lag=lag)
    return msgspec.structs.replace(made, **changes)


def test_merging_workers_adds_their_counts() -> None:
    one = worker(100, gauges={"queue_visible_messages": 7.0, "in_flight_messages": 3.0})
    other = worker(
        101,
        gauges={"queue_visible_messages": 9.0, "in_flight_messages": 4.0},
        faults={"decode x": 2.0},
        well=False,
        ready={"database": ReadinessCheck(ok=False, detail="postgres_08001")},
    )
    merged = merge([one, other])
    assert merged.processes == 2
    assert merged.counts == {"received": 10.0}
    assert merged.stages["write"] == StageTime(2, 4)
    assert merged.gauges["in_flight_messages"] == 7
    assert merged.gauges["queue_visible_messages"] == 9, "one queue, read twice"
    assert merged.faults == {"decode x": 2.0}
    assert not merged.well
    assert merged.ready["database"].detail == "postgres_08001"


@pytest.mark.parametrize(
    ("name", "values", "joined"),
    [
        ("sqs2pg_messages_received_total", [1, 2], 3),
        ("sqs2pg_queue_oldest_age_seconds", [1, math.nan, 5], 5),
        ("sqs2pg_credential_expiry_timestamp_seconds", [math.inf, 7], 7),
        ("sqs2pg_last_commit_timestamp_seconds", [math.nan, 7], 7),
        ("sqs2pg_database_up", [1, 0], 0),
        ("sqs2pg_receiving_paused", [1, 1], 1),
        ("sqs2pg_dlq_visible_messages", [math.nan], None),
    ],
)
def test_gauges_join_by_what_they_mean(
    name: str, values: list[float], joined: float | None
) -> None:
    result = join_gauge(name, values)
    assert math.isnan(result) if joined is None else result == joined


def test_a_point_is_the_difference_over_the_time_between() -> None:
    before = worker(100)
    after = worker(102, counts={"received": 25.0}, stages={"write": StageTime(2.5, 4)})
    point = point_between(before, after)
    assert point.received == 10
    assert point.busy == {"write": 0.75}
    assert point.lag_p50 is None
    long = worker(103, counts={"received": 25.0}, stages={"write": StageTime(287.5, 5)})
    assert point_between(after, long).busy == {"write": 1.0}, "no more than all of the second"
    restarted = worker(103, counts={"received": 1.0})
    assert point_between(after, restarted).received == 0, "never below zero"


def test_quantiles_are_linear_within_a_bucket() -> None:
    before = [0.0] * len(LAG_BOUNDS)
    after = [float(bound >= 0.5) * 10 for bound in LAG_BOUNDS]
    assert lag_quantile(before, after, 0.5) == pytest.approx(0.375)  # between 0.25 and 0.5
    assert lag_quantile(after, after, 0.5) is None
    over = [0.0] * (len(LAG_BOUNDS) - 1) + [1.0]
    assert lag_quantile(before, over, 0.5) == LAG_BOUNDS[-2]


def test_batches_under_way_are_work_of_the_seconds_that_they_take() -> None:
    moments = [worker(100 + at, writers=2, under_way_s=float(at)) for at in range(4)]
    done = worker(104, writers=2, stages={"write": StageTime(4.5, 3)})
    points = [point_between(*pair) for pair in zip(moments, [*moments[1:], done], strict=True)]
    assert [point.busy["write"] for point in points] == [0.5, 0.5, 0.5, 0.25]


def test_numbers_that_cannot_be_read_again_are_marked_and_leave_the_lines() -> None:
    gauges = {"queue_visible_messages": 7.0, "dlq_visible_messages": 1.0}
    fresh = worker(100, gauges=gauges)
    stale = worker(101, gauges=gauges, stale={"queue": 45.0})
    point = point_between(fresh, stale)
    assert (point.visible, point.dead_letters) == (None, 1.0)
    assert merge([stale, worker(102, stale={"queue": 12.0})]).stale == {"queue": 12.0}
    assert merge([stale, fresh]).stale == {}, "another worker has read the same queue"


def test_the_terminal_shows_the_oldest_message_or_since_when_it_is_not_known() -> None:
    gauges = {"queue_visible_messages": 7.0, "queue_oldest_age_seconds": 12.0}
    printed = io.StringIO()
    console = Console(width=120, file=printed)
    console.print(frame(worker(100, gauges=gauges), [], width=120))
    assert "oldest 12 s" in printed.getvalue()
    printed.truncate(0)
    console.print(frame(worker(100, gauges=gauges, stale={"queue": 45.0}), [], width=120))
    assert "45 s ago" in printed.getvalue()
    assert "oldest" not in printed.getvalue()


def test_the_heartbeats_of_workers_that_cannot_be_read_grow_old() -> None:
    beat = Worker("id", "host", 7, "1", 0.0, 0.5, "running", 1, 1, 0, 0, 0, 3.0, "")
    results = ProbeResults(workers=[beat], workers_at=time.monotonic() - 285)
    [shown] = results.fleet()
    assert shown.heartbeat_s == pytest.approx(285.5, abs=1)
    lost = worker(100, workers=[shown, shown], stale={"database": 285.0})
    printed = io.StringIO()
    Console(width=120, file=printed).print(frame(lost, [], width=120))
    text = printed.getvalue()
    assert "the database has not answered for 5 min" in text
    assert text.count("not known") == 2
    assert "running" not in text
