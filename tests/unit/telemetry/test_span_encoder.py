"""Spans of many batches in one request: the same bytes as OpenTelemetry's encoder gives."""

from __future__ import annotations

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource

from sqs2pg.telemetry.batch_log import BatchReport
from sqs2pg.telemetry.span_encoder import SpanEncoder
from sqs2pg.telemetry.spans import SpanMaker

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PRODUCERS = [(int(TRACE, 16), 0x00F067AA0BA902B7, True), (7, 8, False)]
PLAIN = BatchReport(
    *("b-1", 1000.5, 3),
    written=2,
    quarantined=1,
    decode_s=0.5,
    mask_s=0.25,
    write_s=2.0,
    commit_s=0.125,
    trace_id=TRACE,
)
FAST_PATH = BatchReport("b-2", 1001.0, 2000, written=2000, decode_s=0.01, write_s=0.02)
LINKED = BatchReport("b-3", 1.0, 2, duplicate=2, mask_s=0.01, slow=True, producers=PRODUCERS)
EMPTY = BatchReport("b-4", 0.0, 0)
RELEASED = BatchReport(
    "b-5", 5.0, 1, released=1, write_s=0.5, code="postgres_57P01", producers=PRODUCERS
)
for number, made in enumerate((FAST_PATH, LINKED, EMPTY, RELEASED), 1):
    made.trace_id = f"{number:032x}"


def without_span_ids(request: ExportTraceServiceRequest) -> ExportTraceServiceRequest:
    """Number the spans instead, so that two requests with random ids can be compared."""
    numbers: dict[bytes, bytes] = {b"": b""}
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                assert len(span.span_id) == 8
                assert span.span_id not in numbers
                numbers[span.span_id] = str(len(numbers)).encode()
                span.span_id = numbers[span.span_id]
                span.parent_span_id = numbers[span.parent_span_id]
    return request


@pytest.mark.parametrize(
    "reports",
    [[PLAIN], [FAST_PATH], [LINKED], [EMPTY], [RELEASED], [LINKED, PLAIN, RELEASED, FAST_PATH]],
    ids=lambda reports: " ".join(report.id for report in reports),
)
def test_the_encoder_gives_what_opentelemetry_s_gives(reports: list[BatchReport]) -> None:
    maker = SpanMaker("q", "t", Resource.create({"service.name": "s"}))
    spans = [span for report in reports for span in maker.spans_of(report)]
    encoded = SpanEncoder(maker).encode(reports)
    found = without_span_ids(ExportTraceServiceRequest.FromString(encoded))
    assert found == without_span_ids(encode_spans(spans))
    assert found.resource_spans[0].scope_spans[0].spans, "nothing was compared"


def test_the_sample_leaves_nothing_behind() -> None:
    encoder = SpanEncoder(SpanMaker("q", "t", Resource.create({})))
    encoder.encode([LINKED])
    request = ExportTraceServiceRequest.FromString(encoder.encode([PLAIN]))
    [scope] = request.resource_spans[0].scope_spans
    assert [span.name for span in scope.spans] == ["process q", "decode", "mask", "COPY t"]
    assert not any(span.links for span in scope.spans)
