"""Encodes the spans of many batches as one OTLP request.

Place in the flow: between `spans.py` and the exporter, in the thread of `traces.py`. Encoding span
by span with OpenTelemetry's encoder was most of the cost of tracing: a tenth of a millisecond per
batch, a whole one for a batch with 128 links. So OpenTelemetry encodes one sample. Each batch is a
copy of it, with its own ids, times and numbers. The result is what OpenTelemetry's encoder would
give, in the same order. Imports the extra `otel`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from sqs2pg.telemetry.batch_log import BatchReport
from sqs2pg.telemetry.spans import SpanMaker, times_of

_SAMPLE = BatchReport(
    *("sample", 0.0, 1),
    decode_s=1.0,
    mask_s=1.0,
    write_s=1.0,
    trace_id=f"{1:032x}",
    producers=[(1, 1, True)],
)


class SpanEncoder:
    """Encodes the spans that one SpanMaker makes."""

    def __init__(self, maker: SpanMaker) -> None:
        self._maker = maker
        self._request = encode_spans(list(maker.spans_of(_SAMPLE)))
        [scope] = self._request.resource_spans[0].scope_spans
        self._batch, self._decode, self._mask, self._write = map(_copy, scope.spans)
        self._link_flags = self._batch.links[0].flags
        del self._batch.links[:], scope.spans[:]
        self._in_batch, self._in_write = _places(self._batch), _places(self._write)

    def encode(self, reports: Iterable[BatchReport]) -> bytes:
        """Return the request that exports the spans of batches."""
        request = ExportTraceServiceRequest()
        request.CopyFrom(self._request)
        spans = request.resource_spans[0].scope_spans[0].spans
        for report in reports:
            if report.code:  # rare, and different from the sample
                made = encode_spans(list(self._maker.spans_of(report)))
                spans.extend(made.resource_spans[0].scope_spans[0].spans)
            else:
                self._add(spans, report)
        encoded: bytes = request.SerializeToString()
        return encoded

    def _add(self, spans: Any, report: BatchReport) -> None:
        began, decoded, masked, ended = times_of(report)
        trace_id = bytes.fromhex(report.trace_id)
        batch = _add(spans, self._batch, trace_id, began, ended)
        values, at = batch.attributes, self._in_batch
        values[at["messaging.batch.message_count"]].value.int_value = report.messages
        values[at["sqs2pg.batch.id"]].value.string_value = report.id
        values[at["sqs2pg.written"]].value.int_value = report.written
        values[at["sqs2pg.duplicate"]].value.int_value = report.duplicate
        values[at["sqs2pg.quarantined"]].value.int_value = report.quarantined
        values[at["sqs2pg.slow_path"]].value.bool_value = report.slow
        flags = self._link_flags
        for producer, span_id, _ in report.producers:
            batch.links.add(
                trace_id=producer.to_bytes(16, "big"),
                span_id=span_id.to_bytes(8, "big"),
                flags=flags,
            )
        stages = (
            (self._decode, began, decoded),
            (self._mask, decoded, masked),
            (self._write, masked, ended),
        )
        for sample, start, end in stages:
            if end > start or sample is self._write:
                span = _add(spans, sample, trace_id, start, end)
                span.parent_span_id = batch.span_id
        at = self._in_write
        span.attributes[at["db.operation.batch.size"]].value.int_value = report.messages
        [commit] = span.events
        commit.time_unix_nano = ended
        commit.attributes[0].value.double_value = report.commit_s


def _add(spans: Any, sample: Span, trace_id: bytes, start: int, end: int) -> Span:
    span: Span = spans.add()
    span.CopyFrom(sample)
    span.trace_id, span.span_id = trace_id, secrets.token_bytes(8)
    span.start_time_unix_nano, span.end_time_unix_nano = start, end
    return span


def _copy(span: Span) -> Span:
    copied = Span()
    copied.CopyFrom(span)
    return copied


def _places(span: Span) -> dict[str, int]:
    return {attribute.key: place for place, attribute in enumerate(span.attributes)}
