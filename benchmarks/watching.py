"""The cost of each part of monitoring alone: CPU, µs per batch, line, scrape or snapshot.

`python -m benchmarks.watching` calls each part repeatedly in one thread and takes the least of
several turns, so that other work on the machine has little effect. `benchmarks/overhead.py`
measures all parts together in a drain, where caches are cold: two to three times as much.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import generate_latest

from sqs2pg.errors import Stage
from sqs2pg.message import Message, SystemAttributes
from sqs2pg.settings import Settings, TelemetrySettings
from sqs2pg.status.probes import ProbeResults
from sqs2pg.status.recorder import Moment, point_between
from sqs2pg.status.snapshot import About, encode, take_snapshot
from sqs2pg.telemetry.batch_log import BatchLog, BatchReport
from sqs2pg.telemetry.emf import EmfLines
from sqs2pg.telemetry.liveness import Liveness
from sqs2pg.telemetry.log import configure
from sqs2pg.telemetry.metrics import Metrics
from sqs2pg.telemetry.otlp import start_export
from sqs2pg.telemetry.span_encoder import SpanEncoder
from sqs2pg.telemetry.spans import SpanMaker
from sqs2pg.telemetry.traces import LINKS_MAX, Traces

BATCH = 1_400
"""Messages per batch, as seen in a drain of 150,000."""
_TURNS = 15


def cpu_us(call: Callable[[], object], times: int = 20) -> float:
    """Return the CPU time of one call in µs, the least of several turns."""
    least = float("inf")
    for _ in range(_TURNS):
        began = time.thread_time()
        for _ in range(times):
            call()
        least = min(least, (time.thread_time() - began) / times)
    return round(least * 1e6, 1)


def report(number: int, *, links: int = 0) -> BatchReport:
    """Return the report of a typical batch."""
    return BatchReport(
        *(f"abcdef-{number}", time.time(), BATCH),
        written=BATCH,
        decode_s=0.01,
        write_s=0.02,
        commit_s=0.001,
        lag_s=1.0,
        trace_id=f"{number + 1:032x}",
        producers=[(n + 1, n + 1, True) for n in range(links)],
    )


def spans() -> dict[str, float]:
    """Return the cost of tracing, µs per batch."""
    plain = [Message(f"{n}", "r", "{}", SystemAttributes(n)) for n in range(BATCH)]
    header = "Root=1-00000001-0000000000000000{:08x};Parent={:016x};Sampled=1"
    traced = [
        Message(f"{n}", "r", "{}", SystemAttributes(n, aws_trace_header=header.format(n, n + 1)))
        for n in range(BATCH)
    ]
    traces = Traces("q", "t", InMemorySpanExporter(), Resource.create({}))
    encoder = SpanEncoder(SpanMaker("q", "t", Resource.create({})))
    noted = report(0)
    few = [report(n) for n in range(100)]
    linked = [report(n, links=LINKS_MAX) for n in range(100)]
    found = {
        "batch_producers_none": cpu_us(lambda: traces.begin(noted, plain)),
        "batch_producers_each": cpu_us(lambda: traces.begin(noted, traced)),
        "batch_spans": round(cpu_us(lambda: encoder.encode(few), 1) / len(few), 1),
        "batch_spans_128_links": round(cpu_us(lambda: encoder.encode(linked), 1) / len(few), 1),
    }
    traces.close()
    return found


def lines() -> dict[str, float]:
    """Return the cost of the log, µs per batch: with a log line, and beyond the limit of lines."""
    now = 0.0
    batch_log, noted = BatchLog(clock=lambda: now), report(0)

    def alone() -> None:
        nonlocal now
        now += 1.0
        batch_log.committed(noted)

    found = {"log_line": cpu_us(alone)}
    for _ in range(20):
        batch_log.committed(noted)
    return found | {"batch_without_line": cpu_us(lambda: batch_log.committed(noted))}


def numbers() -> dict[str, float]:
    """Return the cost of counting a batch, and of each way to read the counts, in µs."""
    metrics, noted, now = Metrics(), report(0), time.time()
    for code in ("not_json", "wrong_type", "missing"):
        metrics.count_fault(Stage.DECODE, code)
    liveness, results, registry = Liveness(Settings()), ProbeResults(), metrics.registry
    before = take_snapshot(registry, 0.0, About(), liveness, results)
    moment = Moment(before, point_between(before, before))
    export = start_export(TelemetrySettings(metrics=True), registry, now, "p")
    assert export is not None
    collected, emf = export.collect(), EmfLines(registry, "p")
    return {
        "batch_counted": cpu_us(lambda: metrics.observe_batch(noted, now)),
        "snapshot": cpu_us(lambda: take_snapshot(registry, 0.0, About(), liveness, results)),
        "point": cpu_us(lambda: point_between(before, before)),
        "stream_frame": cpu_us(lambda: encode(moment)),
        "scrape": cpu_us(lambda: generate_latest(registry)),
        "otlp_metrics": cpu_us(export.collect)
        + cpu_us(lambda: encode_metrics(collected).SerializeToString()),
        "emf_line": cpu_us(emf.next_line),
    }


def main() -> None:
    """Print the cost of all parts as one line of JSON, in µs."""
    # The log lines are discarded: only the cost of making them is measured.
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        configure()
        gc.freeze()
        gc.set_threshold(100_000)  # as the pipeline does
        found = spans() | lines() | numbers()
    print(json.dumps({name: round(us, 1) for name, us in found.items()}))


if __name__ == "__main__":
    main()
