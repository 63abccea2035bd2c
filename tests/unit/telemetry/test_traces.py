"""Producers' contexts, in both spellings; and spans made of a batch that has ended."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
import structlog
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from sqs2pg.message import Message, MessageAttribute, SystemAttributes
from sqs2pg.settings import TelemetrySettings
from sqs2pg.telemetry import traces as traces_module
from sqs2pg.telemetry.batch_log import BatchReport
from sqs2pg.telemetry.traces import LINKS_MAX, Traces, producer_of, start_traces

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
W3C = f"00-{TRACE}-{SPAN}-01"
XRAY = f"Root=1-{TRACE[:8]}-{TRACE[8:]};Parent={SPAN};Sampled=1"


def message(traceparent: str | None = None, header: str | None = None, **more: str) -> Message:
    attributes = {name: MessageAttribute("String", value) for name, value in more.items()}
    if traceparent is not None:
        attributes["traceparent"] = MessageAttribute("String", traceparent)
    system = SystemAttributes(0, aws_trace_header=header)
    return Message("m", "r", "canary body", system, attributes or None)


@pytest.mark.parametrize(
    "given",
    [
        message(W3C),
        message(header=XRAY),
        message(W3C, header="Root=1-00000001-000000000000000000000001;Parent=0000000000000001"),
        message(header=f"Sampled=1;Parent={SPAN};Root=1-{TRACE[:8]}-{TRACE[8:]};Lineage=1:a:0"),
        message(W3C + "-what a later version adds"),
    ],
)
def test_a_producer_is_found_in_either_spelling_and_w3c_comes_first(given: Message) -> None:
    assert producer_of(given) == (int(TRACE, 16), int(SPAN, 16), True)


@pytest.mark.parametrize(
    "given",
    [
        message(),
        message(""),
        message("canary"),
        message(f"00-{'0' * 32}-{SPAN}-01"),
        message(f"00-{TRACE}-{'0' * 16}-01"),
        message(W3C.upper()),
        message(header="Root=canary;Parent=canary"),
        message(header=f"Root=1-{TRACE[:8]}-{TRACE[8:]}"),
        message(other="canary"),
    ],
)
def test_a_malformed_trace_header_names_no_producer(given: Message) -> None:
    assert producer_of(given) is None


def test_a_producer_s_decision_not_to_sample_is_kept() -> None:
    expected = (int(TRACE, 16), int(SPAN, 16), False)
    assert producer_of(message(f"00-{TRACE}-{SPAN}-00")) == expected
    assert producer_of(message(header=XRAY.replace("Sampled=1", "Sampled=0"))) == expected
    assert producer_of(message(header=XRAY.replace("Sampled=1", "Sampled=?"))) == expected


def spans_of(report: BatchReport, messages: list[Message]) -> tuple[str, dict[str, Any]]:
    exporter = InMemorySpanExporter()
    traces = Traces("q", "t", exporter, Resource.create({}))
    traces.begin(report, messages)
    traces.end(report)
    traces.close()
    spans = {span.name: span for span in exporter.get_finished_spans()}
    return report.trace_id, spans


def test_a_batch_is_a_span_with_links_and_a_child_a_stage() -> None:
    report = BatchReport(
        "b-1", 1000.0, 3, written=2, quarantined=1, decode_s=0.5, mask_s=0.25, write_s=2.0
    )
    trace_id, spans = spans_of(report, [message(W3C), message(W3C), message(header=XRAY)])
    batch, write = spans["process q"], spans["COPY t"]
    assert set(spans) == {"process q", "decode", "mask", "COPY t"}
    assert f"{batch.context.trace_id:032x}" == trace_id
    assert batch.kind is SpanKind.CONSUMER
    assert write.kind is SpanKind.CLIENT
    assert [link.context.trace_id for link in batch.links] == [int(TRACE, 16)], "each one once"
    assert batch.attributes["messaging.system"] == "aws_sqs"
    assert batch.attributes["messaging.batch.message_count"] == 3
    assert batch.attributes["sqs2pg.quarantined"] == 1
    assert write.attributes["db.system.name"] == "postgresql"
    assert batch.start_time == spans["decode"].start_time == 1000 * 10**9
    assert spans["mask"].start_time == spans["decode"].end_time == int(1000.5 * 10**9)
    assert write.end_time == batch.end_time == int(1002.75 * 10**9)
    for child in ("decode", "mask", "COPY t"):
        assert spans[child].parent.span_id == batch.context.span_id
    assert "canary" not in "".join(span.to_json() for span in spans.values())


def test_a_batch_that_was_released_is_an_error_with_its_code() -> None:
    _, spans = spans_of(BatchReport("b", 0.0, 1, released=1, code="postgres_57P01"), [message()])
    for name in ("process q", "COPY t"):
        assert spans[name].status.status_code is StatusCode.ERROR
        assert spans[name].attributes["error.type"] == "postgres_57P01"


def test_links_are_bounded() -> None:
    many = [message(f"00-{n:032x}-{n:016x}-01") for n in range(1, 2 * LINKS_MAX)]
    _, spans = spans_of(BatchReport("b", 0.0, len(many)), many)
    assert len(spans["process q"].links) == LINKS_MAX


@pytest.mark.parametrize("sampler", ["always_off", "parentbased_always_off"])
def test_the_sampler_is_that_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    trace_id, spans = spans_of(BatchReport("b", 0.0, 1), [message(W3C)])
    assert not spans
    assert int(trace_id, 16)


def test_the_environment_can_turn_traces_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert start_traces(TelemetrySettings(traces=True), "q", "t", "p") is None


class Slow(SpanExporter):
    """Exports only once `go_on` is set, with the result it was given."""

    def __init__(self, result: SpanExportResult) -> None:
        self.result = result
        self.asked, self.go_on = threading.Event(), threading.Event()
        self.exports: list[list[str]] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.exports.append([span.attributes["sqs2pg.batch.id"] for span in spans if span.links])
        self.asked.set()
        self.go_on.wait()
        return self.result


def noted(exporter: SpanExporter, count: int) -> Traces:
    """Return traces that took so many batches, named by their numbers."""
    traces = Traces("q", "t", exporter, Resource.create({}))
    take(traces, range(count))
    return traces


def take(traces: Traces, numbers: Iterable[int]) -> None:
    for number in numbers:
        report = BatchReport(str(number), 0.0, 1)
        traces.begin(report, [message(W3C)])
        traces.end(report)


def test_too_many_waiting_spans_push_out_the_oldest_and_a_log_line_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(traces_module, "WAITING_MAX", 4)
    exporter = Slow(SpanExportResult.SUCCESS)
    with structlog.testing.capture_logs() as lines:
        traces = noted(exporter, 3)
        assert exporter.asked.wait(10), "half of what may wait is exported at once"
        take(traces, range(3, 10))
        exporter.go_on.set()
        traces.close()
    told = [one for export in exporter.exports for one in export]
    assert told[-4:] == ["6", "7", "8", "9"]
    [line] = lines
    assert line["count"] == 10 - len(told)


def test_the_end_waits_for_one_export_that_fails_and_for_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(traces_module, "BATCHES_MAX", 2)
    exporter = Slow(SpanExportResult.FAILURE)
    exporter.go_on.set()
    noted(exporter, 6).close()
    assert exporter.exports == [["0", "1"]]


class Broken(SpanExporter):
    """Raises."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        raise RuntimeError("canary")


def test_an_exporter_that_raises_is_reported_by_its_kind() -> None:
    with structlog.testing.capture_logs() as lines:
        noted(Broken(), 1).close()
    assert [line["code"] for line in lines] == ["RuntimeError"]
    assert "canary" not in str(lines)
