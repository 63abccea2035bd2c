"""Spans: one per batch, linked to the producers' spans, with a child for each stage that took time.

Place in the flow: the processor reports each batch when it begins and when it has ended. At the
begin the ids of the producers' spans are noted in its report. A thread makes spans from the reports
(`spans.py`), with the times that were measured, and exports many batches at once; the event loop
makes no spans. Only the trace and span ids of a message are read, which are hexadecimal numbers:
the W3C attribute `traceparent`, else the AWSTraceHeader that X-Ray's producers set. A tracestate is
text of the producer, and is not passed on.

Names follow OpenTelemetry's semantic conventions for messaging and databases. Needs the extra
`otel`, which is imported only if it is asked for.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import structlog

from sqs2pg import __version__
from sqs2pg.errors import SettingsError
from sqs2pg.message import Message
from sqs2pg.settings import TelemetrySettings
from sqs2pg.telemetry.batch_log import BatchReport, ProducerSpan

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.export import SpanExporter

    from sqs2pg.telemetry.spans import SpanMaker

LINKS_MAX = 128
"""Links per span; the default limit of OpenTelemetry's SDKs."""
EXPORT_S = 2
"""Limit on one export with its retries, seconds: shutdown must not wait for a collector."""
EXPORT_EVERY_S = 5.0
"""Seconds between exports; the default of OpenTelemetry's SDKs."""
BATCHES_MAX = 150
"""Batches per export: about the 512 spans of the SDKs' default."""
WAITING_MAX = 2_048
"""Batches that may wait for export; each further one replaces the oldest."""
TRACEPARENT = "traceparent"
"""The message attribute for the W3C Trace Context, as AWS and OpenTelemetry use it."""

_W3C = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
# The header as X-Ray's own producers write it; and its parts, in any order and among others.
_XRAY = re.compile(r"Root=1-([0-9a-f]{8})-([0-9a-f]{24});Parent=([0-9a-f]{16});Sampled=([01])")
_XRAY_ROOT = re.compile(r"(?:^|;)\s*Root=1-([0-9a-f]{8})-([0-9a-f]{24})(?:;|$)")
_XRAY_PARENT = re.compile(r"(?:^|;)\s*Parent=([0-9a-f]{16})(?:;|$)")

log = structlog.get_logger(__name__)


def producer_of(message: Message) -> ProducerSpan | None:
    """Return the span that sent a message.

    None if there is none, or if it is malformed or all zeros (W3C Trace Context, 3.2.2).
    """
    given = (message.message_attributes or {}).get(TRACEPARENT)
    if given is not None and (match := _W3C.fullmatch(given.string_value or "")):
        trace, span, flags = match.groups()
        found = int(trace, 16), int(span, 16), bool(int(flags, 16) & 1)
        return found if found[0] and found[1] else None
    header = message.attributes.aws_trace_header
    if not header:
        return None
    if match := _XRAY.fullmatch(header):
        time_s, rest, span, flag = match.groups()
        return int(time_s + rest, 16), int(span, 16), flag == "1"
    root, parent = _XRAY_ROOT.search(header), _XRAY_PARENT.search(header)
    if root is None or parent is None:
        return None
    return int(root[1] + root[2], 16), int(parent[1], 16), "Sampled=1" in header


def producers_of(messages: Iterable[Message]) -> list[ProducerSpan]:
    """Return the different spans that sent messages, at most the first `LINKS_MAX`."""
    found: dict[tuple[int, int], ProducerSpan] = {}
    for message in messages:
        # Checked here and not in the function: messages of most queues have neither.
        if message.message_attributes or message.attributes.aws_trace_header:
            producer = producer_of(message)
            if producer is not None and producer[:2] not in found:
                found[producer[:2]] = producer
                if len(found) >= LINKS_MAX:
                    break
    return list(found.values())


class Traces:
    """Takes the reports of batches; its thread makes spans from them and exports them."""

    def __init__(self, queue: str, table: str, exporter: SpanExporter, resource: Resource) -> None:
        from sqs2pg.telemetry.spans import SpanMaker

        self._maker = SpanMaker(queue, table, resource)
        self._send = _sender(exporter, self._maker)
        self._exporter = exporter
        self._waiting: deque[BatchReport] = deque(maxlen=WAITING_MAX)
        self._dropped = self._dropped_logged = 0
        self._closing = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._keep_exporting, name="spans", daemon=True)
        self._thread.start()

    def begin(self, report: BatchReport, messages: Sequence[Message]) -> None:
        """Note a batch's trace id and producers in its report.

        Call it before the messages are read for anything else. Reading each of them once is cheap
        then, because it also loads them into the CPU's caches.
        """
        trace_id = secrets.randbits(128) or 1  # 0 is not a valid id
        report.trace_id = f"{trace_id:032x}"
        report.producers = producers_of(messages)

    def end(self, report: BatchReport) -> None:
        """Queue the report of a batch that has ended for export. It must not change any more."""
        waiting = len(self._waiting)
        self._dropped += waiting == WAITING_MAX
        self._waiting.append(report)
        if waiting == WAITING_MAX // 2:
            self._wake.set()

    def close(self) -> None:
        """Export what waits, until an export fails. Blocking."""
        self._closing = True
        self._wake.set()
        self._thread.join()
        self._exporter.shutdown()

    def _keep_exporting(self) -> None:
        taken = True
        while not self._closing:
            self._wake.wait(EXPORT_EVERY_S)
            self._wake.clear()
            taken = self._export_all()
            if lost := self._dropped - self._dropped_logged:
                log.warning("batches are not traced: too many waited to be exported", count=lost)
                self._dropped_logged += lost
        if taken:
            self._export_all()

    def _export_all(self) -> bool:
        """Export what waits, until an export fails; return whether none failed."""
        while self._waiting:
            if not self._export(min(len(self._waiting), BATCHES_MAX)):
                return False
        return True

    def _export(self, count: int) -> bool:
        """Export the oldest batches; return whether the collector took them."""
        try:
            # Only this thread takes reports out.
            reports = [self._waiting.popleft() for _ in range(count)]
            sampled = list(filter(self._maker.samples, reports))
            return not sampled or self._send(sampled)
        except Exception as error:  # noqa: BLE001  later exports may succeed
            log.warning("spans were not exported", code=type(error).__name__)
            return False


def _sender(exporter: SpanExporter, maker: SpanMaker) -> Callable[[Sequence[BatchReport]], bool]:
    """Return a function that exports batches, and returns whether the collector took them."""
    from opentelemetry.sdk.trace.export import SpanExportResult

    # `_client` is not public: it is the part of an OTLP exporter that sends encoded spans. An
    # exporter without it, of another version or kind, gets the spans themselves.
    client = vars(exporter).get("_client")
    if client is not None and callable(getattr(client, "export", None)):
        from sqs2pg.telemetry.span_encoder import SpanEncoder

        encoder = SpanEncoder(maker)
        return lambda reports: bool(client.export(encoder.encode(reports)).success)

    def send(reports: Sequence[BatchReport]) -> bool:
        spans = [span for report in reports for span in maker.spans_of(report)]
        return exporter.export(spans) is SpanExportResult.SUCCESS

    return send


def start_traces(
    settings: TelemetrySettings, queue: str, table: str, pipeline: str
) -> Traces | None:
    """Return the tracing of batches, or None if it is off.

    Raises SettingsError if the extra is missing.
    """
    if not settings.traces or os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise missing_extra() from None
    exporter = OTLPSpanExporter(endpoint=endpoint_of(settings, "traces"), timeout=EXPORT_S)
    return Traces(queue, table, exporter, resource_of(pipeline))


def endpoint_of(settings: TelemetrySettings, signal: str) -> str | None:
    """Return the URL for `traces` or `metrics`; None leaves it to OpenTelemetry's environment."""
    return f"{settings.endpoint.rstrip('/')}/v1/{signal}" if settings.endpoint else None


def resource_of(pipeline: str) -> Resource:
    """Return the resource of spans and metrics: the service, its version and its pipeline."""
    from opentelemetry.sdk.resources import Resource

    # create() reads OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES, which override these.
    return Resource.create(
        {"service.name": "sqs2pg", "service.version": __version__, "sqs2pg.pipeline": pipeline}
    )


def missing_extra() -> SettingsError:
    """Return the error for telemetry that is asked for without the extra."""
    return SettingsError(
        "telemetry needs OpenTelemetry, which is not installed",
        code="missing_extra",
        hint="pip install 'sqs2pg[otel]', or turn telemetry.traces and telemetry.metrics off",
    )
