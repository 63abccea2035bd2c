"""One moment of a pipeline in numbers, from which the page, `top` and the live view are drawn.

A snapshot has counts since the start, not rates: two snapshots give rates over any span, and those
of several workers can be added. It is made from the registry's own samples, so that it always
agrees with `/metrics`, and from the results of the probes. It has no value of a message.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

import msgspec

from sqs2pg import __version__
from sqs2pg.message import RowChanges
from sqs2pg.postgres.pauses import Pause
from sqs2pg.postgres.unknown_fields import UnknownField
from sqs2pg.postgres.workers import Reason, Worker
from sqs2pg.status.probes import ProbeResults
from sqs2pg.telemetry.lean_prometheus import CollectorRegistry
from sqs2pg.telemetry.liveness import Liveness, ReadinessCheck
from sqs2pg.telemetry.metrics import LAG_SECONDS, STAGES

COUNTS = (
    *("received", "written", "duplicate", "quarantined", "released", "deleted"),
    *("lease_extensions", "leases_lost", "deletes_failed"),
    *(f"rows_{name}" for name in RowChanges._fields),
    "object_lines",
)
GAUGES = (
    *("in_flight_messages", "in_flight_bytes", "last_poll_timestamp_seconds"),
    *("last_commit_timestamp_seconds", "queue_visible_messages", "queue_in_flight_messages"),
    *("queue_delayed_messages", "queue_oldest_age_seconds", "dlq_visible_messages"),
    *("credential_expiry_timestamp_seconds", "certificate_expiry_timestamp_seconds"),
    *("database_connections", "database_connections_max", "database_size_bytes"),
    "isolated_messages",
)
_NAMES = {
    "sqs2pg_messages_received_total": "received",
    "sqs2pg_messages_deleted_total": "deleted",
    "sqs2pg_lease_extensions_total": "lease_extensions",
    "sqs2pg_leases_lost_total": "leases_lost",
    "sqs2pg_deletes_failed_total": "deletes_failed",
    **{f"sqs2pg_rows_{name}_total": f"rows_{name}" for name in RowChanges._fields},
}
LAG_BOUNDS = (*map(float, LAG_SECONDS), math.inf)


class StageTime(msgspec.Struct):
    """Time spent in a stage, and the number of batches or requests."""

    seconds: float = 0.0
    count: float = 0.0


class Restart(msgspec.Struct, frozen=True):
    """The last fault of a pipeline that starts again by itself."""

    code: str
    attempt: int
    """How often it failed in a row."""
    again_s: float
    """Seconds until it starts again; 0 if it is starting, or never does."""


class Snapshot(msgspec.Struct):
    """See the module. Times in seconds; `at` and `started_at` since the epoch."""

    at: float
    started_at: float
    pipeline: str = ""
    queue: str = ""
    table: str = ""
    version: str = __version__
    processes: int = 1
    """How many worker processes answer behind this address."""
    writers: int = 1
    """How many batches may be under way at a time."""
    under_way_s: float = 0.0
    """How long the batches under way have taken so far, all together."""
    paused: bool = False
    pause: Pause | None = None
    """The pause on record that is in force."""
    rate_max: float | None = None
    """The most messages per second that each process receives; None: no limit."""
    well: bool = True
    """The answer of `/livez`."""
    ready: dict[str, ReadinessCheck] = {}
    """The answer of `/readyz`, by check."""
    counts: dict[str, float] = {}
    """By the names of `COUNTS`, in messages; `rows_…` in rows, `object_lines` in lines of S3
    objects."""
    stages: dict[str, StageTime] = {}
    """By the names of `STAGES`, and `commit`, which is part of `write`."""
    lag: list[float] = []
    """How many batches had at most this lag, for each of `LAG_BOUNDS`."""
    faults: dict[str, float] = {}
    """By stage and code, with a blank between them."""
    gauges: dict[str, float | None] = {}
    """By the names of `GAUGES`; None means not known."""
    workers: list[Worker] = []
    """All workers of the fleet, from the database."""
    quarantine: list[Reason] = []
    unknown: list[UnknownField] = []
    """Fields of messages that no mapping names, from the database."""
    state: str = "running"
    """`starting`, `running`, `failed`, `stopping` or `ended`."""
    restart: Restart | None = None
    stale: dict[str, float] = {}
    """How old the numbers are of each reading that fails or takes long, such as `queue` and
    `database`, in seconds. A reading that is not named here is fresh."""
    resting: dict[str, float] = {}
    """How old the numbers are of each reading that is made less often because the queue is empty
    and polls bring nothing, in seconds."""


TakeSnapshot = Callable[[], Snapshot]


class About(msgspec.Struct, frozen=True):
    """The names of a pipeline, its queue and its table."""

    pipeline: str = ""
    queue: str = ""
    table: str = ""


def take_snapshot(
    registry: CollectorRegistry,
    started_at: float,
    about: About,
    liveness: Liveness,
    results: ProbeResults,
    *,
    writers: int = 1,
    pause: Pause | None = None,
    rate_max: float | None = None,
    stale: dict[str, float] | None = None,
    resting: dict[str, float] | None = None,
) -> Snapshot:
    """Return the present moment of one process; the options are as in `Snapshot`."""
    snapshot = Snapshot(time.time(), started_at, about.pipeline, about.queue, about.table)
    snapshot.counts = dict.fromkeys(COUNTS, 0.0)
    snapshot.stages = {name: StageTime() for name in (*STAGES, "commit")}
    snapshot.gauges = dict.fromkeys(GAUGES)
    for family in registry.collect():
        for sample in family.samples:
            _add_sample(snapshot, sample.name, sample.labels, sample.value)
    snapshot.paused = liveness.paused
    snapshot.well = liveness.report().ok
    snapshot.ready = results.checks(paused=liveness.paused)
    snapshot.writers, snapshot.under_way_s = writers, liveness.under_way_s()
    snapshot.workers, snapshot.quarantine = results.fleet(), results.quarantine
    snapshot.unknown = results.unknown
    snapshot.pause, snapshot.rate_max = pause, rate_max
    snapshot.stale, snapshot.resting = stale or {}, resting or {}
    return snapshot


def _add_sample(snapshot: Snapshot, name: str, labels: dict[str, str], value: float) -> None:
    match name:
        case "sqs2pg_messages_outcome_total":
            snapshot.counts[labels["outcome"]] = value
        case "sqs2pg_object_lines_total":
            snapshot.counts["object_lines"] += value
        case "sqs2pg_faults_total":
            snapshot.faults[f"{labels['stage']} {labels['code']}"] = value
        case "sqs2pg_batch_seconds_sum":
            snapshot.stages[labels["stage"]].seconds = value
        case "sqs2pg_batch_seconds_count":
            snapshot.stages[labels["stage"]].count = value
        case "sqs2pg_commit_seconds_sum":
            snapshot.stages["commit"].seconds = value
        case "sqs2pg_commit_seconds_count":
            snapshot.stages["commit"].count = value
        case "sqs2pg_lag_seconds_bucket":
            snapshot.lag.append(value)
        case _ if name in _NAMES:
            snapshot.counts[_NAMES[name]] = value
        case _ if (short := name.removeprefix("sqs2pg_")) in snapshot.gauges:
            snapshot.gauges[short] = value if math.isfinite(value) else None


def merge(parts: Sequence[Snapshot]) -> Snapshot:
    """Return one snapshot of several workers of a pipeline: sums of counts, the latest of the rest.

    Needs at least one part.
    """
    latest = max(parts, key=lambda part: part.at)
    merged = msgspec.structs.replace(
        latest,
        started_at=min(part.started_at for part in parts),
        processes=len(parts),
        writers=sum(part.writers for part in parts),
        under_way_s=sum(part.under_way_s for part in parts),
        paused=any(part.paused for part in parts),
        well=all(part.well for part in parts),
    )
    for part in parts:
        if part is not latest:
            merged = add_counts(merged, part)
    for name in latest.ready:
        bad = [p.ready[name] for p in parts if name in p.ready and not p.ready[name].ok]
        merged.ready = merged.ready | {name: (bad or [latest.ready[name]])[0]}
    for part in parts:
        if part.state != "running":
            merged.state, merged.restart = part.state, part.restart
    # Each reads the same for itself: a number is stale where nobody could read it again.
    merged.stale = _least([part.stale for part in parts])
    merged.resting = _least([part.resting for part in parts])
    merged.gauges = {name: _join(name, [p.gauges.get(name) for p in parts]) for name in GAUGES}
    return merged


def _least(ages: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the least age of what all have."""
    named = set.intersection(*map(set, ages))
    return {name: min(one[name] for one in ages) for name in sorted(named)}


def add_counts(to: Snapshot, more: Snapshot) -> Snapshot:
    """Return `to` plus the counts, faults, stages and lag of `more`, but not its gauges."""
    stages = dict(to.stages)
    for name, stage in more.stages.items():
        had = stages.get(name, StageTime())
        stages[name] = StageTime(had.seconds + stage.seconds, had.count + stage.count)
    return msgspec.structs.replace(
        to,
        counts=_sums([to.counts, more.counts]),
        faults=_sums([to.faults, more.faults]),
        stages=stages,
        lag=[one + other for one, other in zip_longest(to.lag, more.lag, fillvalue=0.0)],
    )


def _sums(parts: Sequence[dict[str, float]]) -> dict[str, float]:
    names = {name for part in parts for name in part}
    return {name: sum(part.get(name, 0.0) for part in parts) for name in sorted(names)}


def _join(name: str, values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return join_gauge(f"sqs2pg_{name}", known)


_SHARED = (
    "sqs2pg_queue_",
    "sqs2pg_dlq_",
    "sqs2pg_database_",
    "sqs2pg_fleet_",
    "sqs2pg_quarantine_",
)


_FLAGS = {"sqs2pg_receiving_paused", "sqs2pg_pipeline_up", "sqs2pg_build_info"}


def join_gauge(name: str, values: Sequence[float]) -> float:
    """Join the workers' values of one gauge. Values that all read from one place are not added."""
    known = [value for value in values if not math.isnan(value)] or [math.nan]
    if name.endswith("_expiry_timestamp_seconds") or name in {
        "sqs2pg_started_timestamp_seconds",
        "sqs2pg_database_up",
        "process_start_time_seconds",
        "process_max_fds",
    }:
        return min(known)
    if name.endswith("_timestamp_seconds") or name.startswith(_SHARED):
        return max(known)
    return max(known) if name in _FLAGS else sum(known)


def lag_quantile(before: Sequence[float], after: Sequence[float], share: float) -> float | None:
    """Return the lag below which `share` (0 to 1) of the batches between two snapshots stayed.

    Linear within a bucket, like Prometheus' histogram_quantile, and at most the last finite bound.
    None if there was no batch between them.
    """
    if not after or len(before) != len(after):
        before = [0.0] * len(after)
    counts = [b - a for a, b in zip(before, after, strict=True)]
    total = counts[-1] if counts else 0.0
    if total <= 0:
        return None
    rank, lower, below = share * total, 0.0, 0.0
    for bound, count in zip(LAG_BOUNDS, counts, strict=False):
        if count >= rank:
            if math.isinf(bound):
                return lower
            inside = count - below
            return lower + (bound - lower) * ((rank - below) / inside if inside else 1.0)
        lower, below = bound, count
    return lower


def encode(value: Any) -> bytes:
    """Return JSON; numbers that are not finite become null."""
    return msgspec.json.encode(value)
