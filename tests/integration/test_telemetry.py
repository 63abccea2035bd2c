"""Spans and metrics at a collector that speaks OTLP over HTTP; EMF is for Lambda only."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from structlog.testing import capture_logs

from sqs2pg.settings import TelemetrySettings
from sqs2pg.sqs.wire import OutgoingMessage
from sqs2pg.telemetry.batch_log import BatchReport
from sqs2pg.telemetry.traces import start_traces
from tests import native
from tests.collector import Collector
from tests.integration.support import Assemble, send
from tests.logins import login

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CANARIES = ("203.0.113.77", "canary-user")


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as made:
        yield made


@pytest.mark.parametrize(
    ("executor", "stages"), [("0", {"decode", "mask"}), ("1", {"decode"})], ids=["python", "native"]
)
async def test_spans_and_metrics_reach_a_collector_and_hold_no_value(
    pipeline: Assemble,
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
    executor: str,
    stages: set[str],
) -> None:
    monkeypatch.setenv("SQS2PG_NATIVE", executor)
    monkeypatch.setattr("sqs2pg.native.EXTENSION", native.extension())
    telemetry = {"traces": True, "metrics": True, "endpoint": collector.endpoint}
    async with pipeline(telemetry=telemetry) as ready:
        traced = OutgoingMessage(
            login(1, ip=CANARIES[0]),
            attributes={
                "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01",
                "tracestate": f"user={CANARIES[1]}",
            },
        )
        await send(ready, [traced, login(2, user_id=CANARIES[1]), f"not json {CANARIES[0]}"])
        async with ready.periodic:
            await ready.consumer.run(drain_settle_s=0.3)
    spans = collector.spans()
    batches = [span for span in spans if span.name.startswith("process ")]
    links = [link.trace_id.hex() for span in batches for link in span.links]
    assert links == [TRACE]
    named = {span.name for span in spans}
    assert named >= {*stages, "COPY user_logins"}
    assert named.isdisjoint({"decode", "mask"} - stages), "the C code does both in one step"
    metrics = collector.metrics()
    received = metrics["sqs2pg_messages_received"].sum
    assert received.is_monotonic
    assert received.data_points[0].as_double == 3
    lag = metrics["sqs2pg_lag_seconds"].histogram.data_points[0]
    assert lag.count == sum(lag.bucket_counts) >= 1
    assert len(lag.bucket_counts) == len(lag.explicit_bounds) + 1
    assert "sqs2pg_dlq_visible_messages" not in metrics, "unknown is not zero"
    for _, body in collector.bodies:
        for value in CANARIES:
            assert value.encode() not in body


def test_the_exporters_own_encoding_is_passed_by(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    monkeypatch.setattr(OTLPSpanExporter, "export", None)
    telemetry = TelemetrySettings(traces=True, endpoint=collector.endpoint)
    traces = start_traces(telemetry, "q", "t", "p")
    assert traces is not None
    for number in range(400):
        report = BatchReport(str(number), 1.0, 1, write_s=1.0)
        traces.begin(report, [])
        traces.end(report)
    traces.close()
    numbers = [
        attribute.value.string_value
        for span in collector.spans()
        for attribute in span.attributes
        if attribute.key == "sqs2pg.batch.id"
    ]
    assert numbers == [str(number) for number in range(400)]


async def test_a_collector_that_is_away_is_counted_and_nothing_else(pipeline: Assemble) -> None:
    telemetry = {"metrics": True, "endpoint": "http://127.0.0.1:1", "every_s": 1}
    async with pipeline(telemetry=telemetry) as ready:
        await send(ready, [login(1)])
        async with ready.periodic:
            totals = await ready.consumer.run(drain_settle_s=0.3)
        labels = {"stage": "status", "code": "otlp_unavailable"}
        assert ready.metrics.registry.get_sample_value("sqs2pg_faults_total", labels)
    assert totals.written == 1


async def test_emf_has_no_effect_outside_lambda_and_one_warning_says_so(
    pipeline: Assemble, capsys: pytest.CaptureFixture[str]
) -> None:
    with capture_logs() as logs:
        async with pipeline(telemetry={"emf": True}) as ready:
            await send(ready, [login(1), "not json"])
            async with ready.periodic:
                await ready.consumer.run(drain_settle_s=0.3)
    assert capsys.readouterr().out == ""
    told = [
        (line["log_level"], line["event"]) for line in logs if line.get("code", "")[:3] == "emf"
    ]
    assert told == [("warning", "telemetry.emf has no effect outside AWS Lambda")]


def test_opentelemetry_is_not_imported_if_it_is_off() -> None:
    code = (
        "import sys, sqs2pg.runners.pipeline, sqs2pg.cli.run\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
