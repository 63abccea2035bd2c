"""Spans: one a batch, linked to the producers' spans, with a child for each stage that took time.

Place in the flow: told by the processor when a batch has ended (`BatchReport`); the spans are made
then, with the times that were measured, so that nothing of it is in the way of the batch. Of the
messages only the trace and span ids are read, which are hexadecimal numbers: the W3C `traceparent`
attribute, else the AWSTraceHeader that X-Ray's producers set. A tracestate is a producer's text,
and not carried.

Names follow OpenTelemetry's semantic conventions for messaging and databases. Needs the extra
`otel`; who does not ask for it does not import it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING

from sqs2pg import __version__
from sqs2pg.errors import SettingsError
from sqs2pg.journal import BatchReport
from sqs2pg.message import Message
from sqs2pg.settings import Telemetry

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.trace import Link, Span

LINKS_MAX = 128
"""Links a span; the default limit of OpenTelemetry's SDKs."""
EXPORT_S = 2
"""How long one export may take, its retries included: an end must not wait for a collector."""
TRACEPARENT = "traceparent"
"""The message attribute of the W3C Trace Context, by AWS's and OpenTelemetry's own usage."""

_W3C = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_XRAY_ROOT = re.compile(r"(?:^|;)\s*Root=1-([0-9a-f]{8})-([0-9a-f]{24})(?:;|$)")
_XRAY_PARENT = re.compile(r"(?:^|;)\s*Parent=([0-9a-f]{16})(?:;|$)")
_NS = 1_000_000_000
_attributes = attrgetter("message_attributes")
_trace_header = attrgetter("attributes.aws_trace_header")


def producer_of(message: Message) -> tuple[int, int, bool] | None:
    """Return trace id, span id and whether it was sampled, of the span that sent a message.

    None where it has none, or one that is malformed or all zeros (W3C Trace Context, 3.2.2).
    """
    given = (message.message_attributes or {}).get(TRACEPARENT)
    if given is not None and (match := _W3C.fullmatch(given.string_value or "")):
        trace, span, flags = match.groups()
        found = int(trace, 16), int(span, 16), bool(int(flags, 16) & 1)
        return found if found[0] and found[1] else None
    header = message.attributes.aws_trace_header
    if not header:
        return None
    root, parent = _XRAY_ROOT.search(header), _XRAY_PARENT.search(header)
    if root is None or parent is None:
        return None
    return int(root[1] + root[2], 16), int(parent[1], 16), "Sampled=1" in header


class Traces:
    """Makes spans of batches, and exports them in the background."""

    def __init__(
        self, queue: str, table: str, processor: SpanProcessor, resource: Resource
    ) -> None:
        from opentelemetry.sdk.trace import TracerProvider

        self._queue = queue
        self._table = table
        # Sampling is the SDK's: OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG.
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("sqs2pg", __version__)

    def batch(self, report: BatchReport, messages: Sequence[Message]) -> str:
        """Make the spans of a batch that has ended; return its trace id, 32 hexadecimal digits."""
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        began = int(report.began * _NS)
        decoded = began + int(report.decode_s * _NS)
        masked = decoded + int(report.mask_s * _NS)
        ended = masked + int(report.write_s * _NS)
        span = self._tracer.start_span(
            f"process {self._queue}",
            kind=SpanKind.CONSUMER,
            links=list(_links(messages)),
            start_time=began,
            attributes={
                "messaging.system": "aws_sqs",
                "messaging.destination.name": self._queue,
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "messaging.batch.message_count": report.messages,
                "sqs2pg.batch.id": report.id,
                "sqs2pg.written": report.written,
                "sqs2pg.duplicate": report.duplicate,
                "sqs2pg.quarantined": report.quarantined,
                "sqs2pg.slow_path": report.slow,
            },
        )
        context = set_span_in_context(span)
        for name, start, end in (("decode", began, decoded), ("mask", decoded, masked)):
            if end > start:  # the native short cut does both in one, and it is told as the first
                self._tracer.start_span(name, context=context, start_time=start).end(end)
        write = self._tracer.start_span(
            f"COPY {self._table}",
            context=context,
            kind=SpanKind.CLIENT,
            start_time=masked,
            attributes={
                "db.system.name": "postgresql",
                "db.operation.name": "COPY",
                "db.collection.name": self._table,
                "db.operation.batch.size": report.messages,
            },
        )
        if report.code:
            self._fail([write, span], report.code, Status(StatusCode.ERROR, report.code))
        else:
            write.add_event("commit", {"seconds": report.commit_s}, timestamp=ended)
        write.end(ended)
        span.end(ended)
        return f"{span.get_span_context().trace_id:032x}"

    def _fail(self, spans: list[Span], code: str, status: object) -> None:
        for span in spans:
            span.set_attribute("error.type", code)
            span.set_status(status)  # type: ignore[arg-type]  # of the SDK, imported late

    def close(self) -> None:
        """Export what is left, within the SDK's own limit."""
        self._provider.shutdown()


def _links(messages: Sequence[Message]) -> Iterator[Link]:
    from opentelemetry.trace import Link, SpanContext, TraceFlags

    # Two passes in C: most queues' messages have neither, and a look at each costs a call.
    if not (any(map(_attributes, messages)) or any(map(_trace_header, messages))):
        return
    seen: set[tuple[int, int]] = set()
    for message in messages:
        producer = producer_of(message)
        if producer is None or producer[:2] in seen:
            continue
        trace_id, span_id, sampled = producer
        seen.add((trace_id, span_id))
        flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
        yield Link(SpanContext(trace_id, span_id, is_remote=True, trace_flags=flags))
        if len(seen) >= LINKS_MAX:
            return


def start_traces(settings: Telemetry, queue: str, table: str, pipeline: str) -> Traces | None:
    """Return what traces batches, or None where it is off.

    Raises SettingsError where the extra is missing.
    """
    if not settings.traces:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise missing_extra() from None
    endpoint = f"{settings.endpoint.rstrip('/')}/v1/traces" if settings.endpoint else None
    exporter = OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_S)
    return Traces(queue, table, BatchSpanProcessor(exporter), resource_of(pipeline))


def resource_of(pipeline: str) -> Resource:
    """Return what spans and metrics are of: the service, its version and its pipeline."""
    from opentelemetry.sdk.resources import Resource

    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win over the name, as create() reads them.
    return Resource.create(
        {"service.name": "sqs2pg", "service.version": __version__, "sqs2pg.pipeline": pipeline}
    )


def missing_extra() -> SettingsError:
    """Return the error of who asks for telemetry without the extra."""
    return SettingsError(
        "telemetry needs OpenTelemetry, which is not installed",
        code="missing_extra",
        hint="pip install 'sqs2pg[otel]', or turn telemetry.traces and telemetry.metrics off",
    )
