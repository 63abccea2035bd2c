"""Makes OpenTelemetry spans from batches that have ended.

Place in the flow: behind `traces.py`, in its thread. Each span is made in one step, as the SDK's
exporters take it. To begin, extend and end it by the SDK's own calls costs ten times as much.
The sampler is the SDK's: OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG. Imports the extra `otel`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from sqs2pg import __version__
from sqs2pg.telemetry.batch_log import BatchReport, ProducerSpan

_NS = 1_000_000_000
_NOT_SAMPLED, _SAMPLED = TraceFlags(TraceFlags.DEFAULT), TraceFlags(TraceFlags.SAMPLED)


class _OneResource(Resource):
    """The resource of all spans.

    An exporter hashes it for each span, and the SDK computes that hash from its JSON.
    """

    __hash__ = object.__hash__


class SpanMaker:
    """Makes the spans of one queue's batches."""

    def __init__(self, queue: str, table: str, resource: Resource) -> None:
        self._name = f"process {queue}"
        self._table = table
        self._same = {
            "messaging.system": "aws_sqs",
            "messaging.destination.name": queue,
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
        }
        self._resource = _OneResource(resource.attributes, resource.schema_url)
        self._scope = InstrumentationScope("sqs2pg", __version__)
        self._sampler = TracerProvider(resource=resource, shutdown_on_exit=False).sampler

    def samples(self, report: BatchReport) -> bool:
        """Return whether a batch is sampled: one decision for all of its spans."""
        sampled = self._sampler.should_sample(
            None, int(report.trace_id, 16), self._name, SpanKind.CONSUMER, self._same
        )
        return sampled.decision is Decision.RECORD_AND_SAMPLE

    def spans_of(self, report: BatchReport) -> Iterator[ReadableSpan]:
        """Yield a batch's span and the spans of its stages."""
        began, decoded, masked, ended = times_of(report)
        trace_id = int(report.trace_id, 16)
        error = {"error.type": report.code} if report.code else {}
        status = Status(StatusCode.ERROR, report.code) if report.code else Status()
        batch = self._context(trace_id)
        yield ReadableSpan(
            self._name,
            batch,
            resource=self._resource,
            attributes={
                **self._same,
                "messaging.batch.message_count": report.messages,
                "sqs2pg.batch.id": report.id,
                "sqs2pg.written": report.written,
                "sqs2pg.duplicate": report.duplicate,
                "sqs2pg.quarantined": report.quarantined,
                "sqs2pg.slow_path": report.slow,
                **error,
            },
            links=[_link(producer) for producer in report.producers],
            kind=SpanKind.CONSUMER,
            status=status,
            start_time=began,
            end_time=ended,
            instrumentation_scope=self._scope,
        )
        for stage, start, end in (("decode", began, decoded), ("mask", decoded, masked)):
            if end > start:  # the native fast path does both in one step, reported as the first
                yield ReadableSpan(
                    stage,
                    self._context(trace_id),
                    parent=batch,
                    resource=self._resource,
                    start_time=start,
                    end_time=end,
                    instrumentation_scope=self._scope,
                )
        commit = Event("commit", {"seconds": report.commit_s}, ended)
        yield ReadableSpan(
            f"COPY {self._table}",
            self._context(trace_id),
            parent=batch,
            resource=self._resource,
            attributes={
                "db.system.name": "postgresql",
                "db.operation.name": "COPY",
                "db.collection.name": self._table,
                "db.operation.batch.size": report.messages,
                **error,
            },
            events=() if report.code else (commit,),
            kind=SpanKind.CLIENT,
            status=status,
            start_time=masked,
            end_time=ended,
            instrumentation_scope=self._scope,
        )

    def _context(self, trace_id: int) -> SpanContext:
        span_id = secrets.randbits(64) or 1  # 0 is not a valid id
        return SpanContext(trace_id, span_id, is_remote=False, trace_flags=_SAMPLED)


def times_of(report: BatchReport) -> tuple[int, int, int, int]:
    """Return when a batch was begun, decoded, masked, written; nanoseconds since the epoch."""
    began = int(report.began * _NS)
    decoded = began + int(report.decode_s * _NS)
    masked = decoded + int(report.mask_s * _NS)
    return began, decoded, masked, masked + int(report.write_s * _NS)


def _link(producer: ProducerSpan) -> Link:
    trace_id, span_id, sampled = producer
    flags = _SAMPLED if sampled else _NOT_SAMPLED
    return Link(SpanContext(trace_id, span_id, is_remote=True, trace_flags=flags))
