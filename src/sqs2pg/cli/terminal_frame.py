"""A pipeline on a terminal: one frame of what `run` shows live and `top` attaches to.

Drawn from the same snapshots and points as the status page (`status/recorder.py`). No I/O here.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sqs2pg.message import RowChanges
from sqs2pg.status.recorder import Point
from sqs2pg.status.snapshot import Snapshot, StageTime
from sqs2pg.telemetry.metrics import STAGES

_BARS = "▁▂▃▄▅▆▇█"
_MEAN_S = 5.0
FAULTS_MAX = 6
WORKERS_MAX = 8
_STYLES = {"receive": "cyan", "decode": "green", "mask": "magenta", "write": "blue"}


def frame(snapshot: Snapshot, points: Sequence[Point], *, width: int, lost: bool = False) -> Group:
    """Return one frame, `width` columns wide. `lost`: nobody answers, so it shows old data."""
    parts: list[RenderableType] = [
        _head(snapshot, lost=lost),
        Text(""),
        _rates(snapshot, points, width),
        Text(""),
        _stages(snapshot, points),
    ]
    if snapshot.faults:
        parts += [Text(""), _faults(snapshot)]
    if len(snapshot.workers) > 1:
        parts += [Text(""), _workers(snapshot)]
    return Group(*parts)


def state_of(snapshot: Snapshot, *, lost: bool = False) -> tuple[str, str]:
    """Return the state in a few words, and its style."""
    bad = [name for name, check in snapshot.ready.items() if not check.ok]
    if lost:
        return "no answer, trying again", "bold red"
    if not snapshot.processes:
        return "workers are starting", "yellow"
    if not snapshot.well:
        return "stalled", "bold red"
    if snapshot.pause:
        return f"paused since {snapshot.pause.since_text}, {snapshot.pause.cause}", "yellow"
    if snapshot.paused:
        return "paused: the database is away", "bold red"
    if any(snapshot.ready[name].detail == "not read yet" for name in bad):
        return "starting", "yellow"
    if not bad and (old_s := snapshot.stale.get("database")) is not None:
        return f"the database has not answered for {span(old_s)}", "yellow"
    return (f"not ready: {bad[0]}", "yellow") if bad else ("running", "green")


def _head(snapshot: Snapshot, *, lost: bool) -> Text:
    words, style = state_of(snapshot, lost=lost)
    text = Text.assemble(("● ", style), (words, style), "  ", (snapshot.pipeline, "bold"))
    text.append(f"  {snapshot.queue} → {snapshot.table}", "dim")
    text.append(f"  up {span(snapshot.at - snapshot.started_at)}", "dim")
    if snapshot.processes > 1 or len(snapshot.workers) > 1:
        fleet = len(snapshot.workers)
        text.append(f"  {snapshot.processes} here, {fleet} workers in all", "dim")
    text.no_wrap = True
    return text


def _rates(snapshot: Snapshot, points: Sequence[Point], width: int) -> Table:
    gauges, counts = snapshot.gauges, snapshot.counts
    table = Table.grid(padding=(0, 3), pad_edge=False)
    columns = [
        ("written", f"{mean(points, 'written'):,.0f}/s", number(counts.get("written")), "blue"),
        ("received", f"{mean(points, 'received'):,.0f}/s", number(counts.get("received")), ""),
        ("quarantined", _rate(points, "quarantined"), number(counts.get("quarantined")), "yellow"),
        ("duplicate", _rate(points, "duplicate"), number(counts.get("duplicate")), ""),
        ("lag p95", span(latest(points, "lag_p95")), f"p50 {span(latest(points, 'lag_p50'))}", ""),
        (
            "waiting",
            number(gauges.get("queue_visible_messages")),
            f"oldest {span(gauges.get('queue_oldest_age_seconds'))}"
            if (old_s := (snapshot.stale | snapshot.resting).get("queue")) is None
            else f"{span(old_s)} ago",
            "cyan",
        ),
        ("held", number(gauges.get("in_flight_messages")), _left(gauges), ""),
    ]
    for _ in columns:
        table.add_column(no_wrap=True)
    table.add_row(*(Text(name, "dim") for name, *_ in columns))
    table.add_row(*(Text(big, f"bold {style}".strip()) for _, big, _, style in columns))
    table.add_row(*(Text(small, "dim") for _, _, small, _ in columns))
    outer = Table.grid()
    outer.add_row(table)
    rows = {name: counts.get(f"rows_{name}", 0.0) for name in RowChanges._fields}
    if any(count for name, count in rows.items() if name != "inserted"):
        did = "  ".join(f"{number(count)} {name}" for name, count in rows.items() if count)
        outer.add_row(Text(f"rows: {did}", "dim"))
    if lines := counts.get("object_lines"):
        outer.add_row(Text(f"lines of S3 objects: {number(lines)}", "dim"))
    outer.add_row(Text(sparkline([point.written for point in points], max(10, width - 4)), "blue"))
    return outer


def _left(gauges: dict[str, float | None]) -> str:
    isolated, dead = gauges.get("isolated_messages"), gauges.get("dlq_visible_messages")
    said = [f"isolated {number(isolated)}"] if isolated else []
    said += [] if dead is None else [f"dead letters {number(dead)}"]
    return ", ".join(said)


def _rate(points: Sequence[Point], name: str) -> str:
    rate = mean(points, name)
    return f"{rate:,.1f}/s" if 0 < rate < 10 else f"{rate:,.0f}/s"


def _stages(snapshot: Snapshot, points: Sequence[Point]) -> Table:
    table = Table.grid(padding=(0, 2), pad_edge=False)
    busy = {name: _busy(points, name) for name in STAGES}
    inside = sum(busy[name] for name in ("decode", "mask", "write"))
    for name in STAGES:
        stage = snapshot.stages.get(name, StageTime())
        # What was done within another stage has no time of its own.
        each = stage.seconds / stage.count if stage.count and stage.seconds else None
        unit = "a batch" if name in {"decode", "mask", "write"} else "a request"
        share = busy[name] / inside if inside and unit == "a batch" else 0.0
        more = ""
        if name == "write" and (commit := snapshot.stages.get("commit", StageTime())).count:
            more = f"COMMIT {span(commit.seconds / commit.count)}"
        style = _STYLES.get(name, "")
        table.add_row(
            Text(name, style),
            Text(f"{span(each)} {unit}"),
            Text("█" * round(share * 24) + "░" * (24 - round(share * 24)), style)
            if unit == "a batch"
            else Text(""),
            Text(f"{share:.0%} of time" if share else "", "dim"),
            Text(more, "dim"),
        )
    return table


def _busy(points: Sequence[Point], stage: str) -> float:
    return sum(point.busy.get(stage, 0.0) for point in points[-10:])


def _faults(snapshot: Snapshot) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    table.add_column("faults, by code", header_style="dim", no_wrap=True)
    table.add_column("stage", header_style="dim")
    table.add_column("times", header_style="dim", justify="right")
    ranked = sorted(snapshot.faults.items(), key=lambda item: -item[1])
    for key, times in ranked[:FAULTS_MAX]:
        stage, _, code = key.partition(" ")
        table.add_row(Text(code, "yellow"), stage, f"{times:,.0f}")
    if len(ranked) > FAULTS_MAX:
        table.add_row(f"and {len(ranked) - FAULTS_MAX} codes more", "", "")
    return table


def _workers(snapshot: Snapshot) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    for name in ("worker", "state", "messages/s", "written", "quarantined", "heartbeat"):
        right = name in {"messages/s", "written", "quarantined", "heartbeat"}
        table.add_column(name, header_style="dim", justify="right" if right else "left")
    # What a worker does is known from its heartbeats alone, and they are read from the database.
    lost = "database" in snapshot.stale
    for worker in snapshot.workers[:WORKERS_MAX]:
        late = lost or worker.heartbeat_s > 30
        state = "not known" if lost else "late" if late else worker.state
        table.add_row(
            f"{worker.host}:{worker.pid}",
            Text(state, "yellow" if late else ""),
            "-" if late else f"{worker.per_second:,.0f}",
            f"{worker.written:,}",
            f"{worker.quarantined:,}",
            f"{span(worker.heartbeat_s)} ago",
        )
    if len(snapshot.workers) > WORKERS_MAX:
        table.add_row(f"and {len(snapshot.workers) - WORKERS_MAX} more")
    return table


def mean(points: Sequence[Point], name: str) -> float:
    """Return the mean of a rate over the last seconds."""
    if not points:
        return 0.0
    since = points[-1].at - _MEAN_S
    values = [getattr(point, name) for point in points if point.at > since]
    return float(sum(values)) / len(values)


def latest(points: Sequence[Point], name: str) -> float | None:
    """Return the latest known value of the last minute."""
    for point in reversed(points[-60:]):
        value = getattr(point, name)
        if value is not None:
            return float(value)
    return None


def sparkline(values: Sequence[float], width: int) -> str:
    """Return the last `width` values as bars; the highest value is a full bar."""
    shown = values[-width:]
    top = max(shown, default=0.0)
    if top <= 0:
        return _BARS[0] * len(shown)
    return "".join(_BARS[min(7, int(value / top * 7.999))] for value in shown)


def number(value: float | None) -> str:
    """Return a count for people."""
    if value is None:
        return "-"
    if value >= 1e7:
        return f"{value / 1e6:,.1f} M"
    return f"{value:,.0f}"


def span(seconds: float | None) -> str:
    """Return a time for people."""
    if seconds is None:
        return "-"
    if seconds < 0.0995:
        return f"{seconds * 1000:.{1 if seconds < 0.00995 else 0}f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    for limit, unit, size in ((90, "s", 1), (5_400, "min", 60), (129_600, "h", 3_600)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"
