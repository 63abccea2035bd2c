"""Throughput with 1, 2, 4 and 8 consumers on this machine, and the bottleneck of each point.

    python -m benchmarks.scale --runs 3

Each point is a drain as `measure` defines it, by `sqs2pg run --drain --workers N`. The use of the
cores shows the bottleneck: all cores were busy, or the consumers' own cores were, or neither. In
the last case the consumers waited for the disk of the commit or for the queue. The load of other
processes is measured and reported. Results go to results/scale.json, the picture to docs/images.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from . import machine
from .contenders.contender import Contender
from .contenders.pipeline import launch
from .measure import Backlog, drain
from .plot import svg
from .rig import Rig, open_rig

CONSUMERS = (1, 2, 4, 8)
HERE = Path(__file__).parent
RESULTS = HERE / "results" / "scale.json"
PICTURE = HERE.parent / "docs" / "images" / "scale.svg"
BUSY = 0.85
"""Cores, or the consumers' share of them, count as busy from this usage on."""


@dataclass(frozen=True)
class ScalePoint:
    """One drain by a number of consumers. CPU use in cores: 1.0 is one busy core."""

    consumers: int
    rate: float
    """Messages per second."""
    pipeline_cpu_us: float
    postgres_cpu_us: float
    queue_server_cpu_us: float
    pipeline_cores: float
    all_cores: float
    """Consumers, PostgreSQL and queue server together."""
    machine_cores: float
    """Everything on the machine, including other processes."""
    wal_bytes_row: float

    def bottleneck(self, cores: int) -> str:
        """Return what limited this point."""
        others = max(0.0, self.machine_cores - self.all_cores)
        # The machine is observed longer than the drain lasts, so the higher figure is right.
        if max(self.machine_cores, self.all_cores) >= BUSY * cores:
            words = f"all {cores} cores are busy"
            return f"{words}, {others:.1f} of them with other work" if others > 0.2 else words
        if self.pipeline_cores >= BUSY * min(self.consumers, cores):
            return "the consumers' own core" if self.consumers == 1 else "the consumers' own cores"
        return "waiting for the disk of the commit or for the queue"


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def _busy_s() -> float:
    """Return the busy seconds of all cores together since boot; see proc(5), /proc/stat."""
    fields = [int(f) for f in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    idle = fields[3] + fields[4]
    return (sum(fields[:8]) - idle) / os.sysconf("SC_CLK_TCK")


def measure(rig: Rig, consumers: int, messages: int, limit_s: float) -> ScalePoint:
    """Drain a new queue into a new database with this many consumers."""
    contender = Contender(
        name=f"sqs2pg{consumers}",
        title=f"{consumers} consumers",
        says=f"`sqs2pg run --drain --workers {consumers}`",
        trial=messages,
        launch=lambda target: launch(target, consumers),
        version=lambda: "",
    )
    with rig.stand() as stand:
        [(before,)] = stand.query("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")
        began, busy = time.perf_counter(), _busy_s()
        run = drain(stand, contender, Backlog(messages, malformed_share=0.0), limit_s)
        took, busy = time.perf_counter() - began, _busy_s() - busy
        [(after,)] = stand.query("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")
    used = [run.pipeline_cpu_s or 0.0, run.postgres_cpu_s or 0.0, run.queue_server_cpu_s or 0.0]
    return ScalePoint(
        consumers=consumers,
        rate=round(run.rate, 1),
        pipeline_cpu_us=round(run.cpu_us("pipeline") or 0.0, 1),
        postgres_cpu_us=round(run.cpu_us("postgres") or 0.0, 1),
        queue_server_cpu_us=round(run.cpu_us("queue_server") or 0.0, 1),
        pipeline_cores=round(used[0] / run.seconds, 2),
        all_cores=round(sum(used) / run.seconds, 2),
        machine_cores=round(busy / took, 2),
        wal_bytes_row=round(float(after - before) / run.messages, 1),
    )


def median(points: Sequence[ScalePoint]) -> ScalePoint:
    """Return the point with the median rate."""
    middle = statistics.median_low([point.rate for point in points])
    return next(point for point in points if point.rate == middle)


def draw(points: Sequence[ScalePoint], machine_cores: int, says: str) -> str:
    """Return the curve as SVG, with a line of text on the bottleneck of each point."""
    left, top, width, height = 70, 60, 420, 220
    bottom, most = top + height, max(point.rate for point in points) * 1.1
    last = max(point.consumers for point in points)

    def at(point: ScalePoint) -> tuple[float, float]:
        return left + width * point.consumers / last, bottom - height * point.rate / most

    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(at, points))
    parts = [
        '<text class="head" x="10" y="22">Throughput by number of consumers, one machine</text>',
        f'<text class="small" x="10" y="42">{escape(says)}</text>',
        f'<line class="axis" x1="{left}" y1="{bottom}" x2="{left + width}" y2="{bottom}"/>',
        f'<line class="axis" x1="{left}" y1="{top}" x2="{left}" y2="{bottom}"/>',
        f'<polyline class="line" points="{line}"/>',
        (
            f'<text class="small" x="{left + width}" y="{bottom + 34}" text-anchor="end">'
            "consumers</text>"
        ),
        f'<text class="small" x="{left - 8}" y="{top + 4}" text-anchor="end">messages/s</text>',
    ]
    for point in points:
        x, y = at(point)
        parts += [
            f'<circle class="ours" cx="{x:.1f}" cy="{y:.1f}" r="4"/>',
            (
                f'<text class="small" x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">'
                f"{point.consumers}</text>"
            ),
            f'<text x="{x + 8:.1f}" y="{y - 8:.1f}">{point.rate:,.0f}</text>',
        ]
    foot = bottom + 62
    for index, point in enumerate(points):
        words = (
            f"{point.consumers}: {point.bottleneck(machine_cores)} "
            f"(consumers {point.pipeline_cores:.2f}, with servers {point.all_cores:.2f}, "
            f"everything {point.machine_cores:.2f} of {machine_cores} cores)"
        )
        parts.append(f'<text class="small" x="10" y="{foot + 20 * index}">{escape(words)}</text>')
    return svg("Throughput by number of consumers", parts, foot + 20 * len(points))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure in turns, save the medians, draw them."""
    parser = argparse.ArgumentParser(prog="benchmarks.scale", description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=3, help="runs of each number, in turns (3)")
    parser.add_argument(
        "--messages", type=int, default=150_000, help="messages in each drain (150000)"
    )
    parser.add_argument(
        "--consumers", default="1,2,4,8", help="numbers of consumers, comma-separated"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    options = parser.parse_args(arguments)
    numbers = [int(number) for number in options.consumers.split(",")]
    found: dict[int, list[ScalePoint]] = {number: [] for number in numbers}
    with open_rig(settings={}) as rig:
        for turn in range(options.runs):
            for number in numbers:
                point = measure(rig, number, options.messages, 120.0)
                found[number].append(point)
                print(f"{turn + 1}/{options.runs} {point}", file=sys.stderr)
    points = [median(found[number]) for number in numbers]
    stamp = {"at": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), "cores": cores()}
    stamp |= {"commit": machine.commit(), "messages": options.messages, "runs": options.runs}
    kept = {"points": [asdict(point) for point in points], "stamp": stamp}
    options.results.write_text(json.dumps(kept, indent=1) + "\n")
    says = f"{stamp['cores']} cores, shared with PostgreSQL and queue server; {stamp['at']}"
    options.picture.write_text(draw(points, cores(), says))
    for point in points:
        print(f"{point.consumers}: {point.rate:,.0f} messages/s, {point.bottleneck(cores())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
