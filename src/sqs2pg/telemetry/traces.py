"""Spans: one a batch, linked to the producers' spans, with a child for each stage that took time.

Place in the flow: told by the processor of a batch that begins, whose producers' ids are noted in
its report, and of one that has ended. A thread makes spans of the reports (`spans.py`), with the
times that were measured, and exports many batches at once: the event loop makes none. Of the
messages only the trace and span ids are read, which are hexadecimal numbers: the W3C `traceparent`
attribute, else the AWSTraceHeader that X-Ray's producers set. A tracestate is a producer's text,
and not carried.

Names follow OpenTelemetry's semantic conventions for messaging and databases. Needs the extra
`otel`; who does not ask for it does not import it.
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
from sqs2pg.telemetry.batch_log import BatchReport, Producer

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.export import SpanExporter

    from sqs2pg.telemetry.spans import SpanMaker

LINKS_MAX = 128
"""Links a span; the default limit of OpenTelemetry's SDKs."""
EXPORT_S = 2
"""How long one export may take, its retries included: an end must not wait for a collector."""
EXPORT_EVERY_S = 5.0
"""From one export to the next; the default of OpenTelemetry's SDKs."""
BATCHES_MAX = 150
"""Batches an export: about as many spans as the SDKs' 512."""
WAITING_MAX = 2_048
"""Batches that wait for their export; one more takes the place of the oldest."""
TRACEPARENT = "traceparent"
"""The message attribute of the W3C Trace Context, by AWS's and OpenTelemetry's own usage."""

_W3C = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
# As X-Ray's own producers spell it; and its parts, in whatever order and among whatever others.
_XRAY = re.compile(r"Root=1-([0-9a-f]{8})-([0-9a-f]{24});Parent=([0-9a-f]{16});Sampled=([01])")
_XRAY_ROOT = re.compile(r"(?:^|;)\s*Root=1-([0-9a-f]{8})-([0-9a-f]{24})(?:;|$)")
_XRAY_PARENT = re.compile(r"(?:^|;)\s*Parent=([0-9a-f]{16})(?:;|$)")

log = structlog.get_logger(__name__)


def producer_of(message: Message) -> Producer | None:
    """Return the span that sent a message.

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
    if match := _XRAY.fullmatch(header):
        time_s, rest, span, flag = match.groups()
        return int(time_s + rest, 16), int(span, 16), flag == "1"
    root, parent = _XRAY_ROOT.search(header), _XRAY_PARENT.search(header)
    if root is None or parent is None:
        return None
    return int(root[1] + root[2], 16), int(parent[1], 16), "Sampled=1" in header


def producers_of(messages: Iterable[Message]) -> list[Producer]:
    """Return the different spans that sent messages, the first `LINKS_MAX` of them."""
    found: dict[tuple[int, int], Producer] = {}
    for message in messages:
        # Here and not in a function: most queues' messages have neither.
        if message.message_attributes or message.attributes.aws_trace_header:
            producer = producer_of(message)
            if producer is not None and producer[:2] not in found:
                found[producer[:2]] = producer
                if len(found) >= LINKS_MAX:
                    break
    return list(found.values())


class Traces:
    """Takes the reports of batches; its thread makes spans of them, and exports them."""

    def __init__(self, queue: str, table: str, exporter: SpanExporter, resource: Resource) -> None:
        from sqs2pg.telemetry.spans import SpanMaker

        self._maker = SpanMaker(queue, table, resource)
        self._send = _sender(exporter, self._maker)
        self._exporter = exporter
        self._waiting: deque[BatchReport] = deque(maxlen=WAITING_MAX)
        self._pushed_out = self._told = 0
        self._closing = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._keep_exporting, name="spans", daemon=True)
        self._thread.start()

    def begin(self, report: BatchReport, messages: Sequence[Message]) -> None:
        """Note a batch's trace id and producers in its report.

        Best before the messages are read for anything else: a look at each is cheap while they
        are in the caches, or brings them there.
        """
        trace_id = secrets.randbits(128) or 1  # nought is no id
        report.trace_id = f"{trace_id:032x}"
        report.producers = producers_of(messages)

    def end(self, report: BatchReport) -> None:
        """Take a batch that has ended, to be exported soon. Not to be changed any more."""
        waiting = len(self._waiting)
        self._pushed_out += waiting == WAITING_MAX
        self._waiting.append(report)
        if waiting == WAITING_MAX // 2:
            self._wake.set()

    def close(self) -> None:
        """Export what is left, up to the first export that fails. Blocking."""
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
            if lost := self._pushed_out - self._told:
                log.warning("batches are not traced: too many waited to be exported", count=lost)
                self._told += lost
        if taken:
            self._export_all()

    def _export_all(self) -> bool:
        """Export what waits, up to the first export that fails; return whether none did."""
        while self._waiting:
            if not self._export(min(len(self._waiting), BATCHES_MAX)):
                return False
        return True

    def _export(self, count: int) -> bool:
        """Export the oldest batches, once; return whether the collector took them."""
        try:
            # Nobody else takes any out.
            reports = [self._waiting.popleft() for _ in range(count)]
            sampled = list(filter(self._maker.samples, reports))
            return not sampled or self._send(sampled)
        except Exception as error:  # noqa: BLE001  the next ones may well be exported
            log.warning("spans were not exported", code=type(error).__name__)
            return False


def _sender(exporter: SpanExporter, maker: SpanMaker) -> Callable[[Sequence[BatchReport]], bool]:
    """Return what exports the spans of batches, and returns whether the collector took them."""
    from opentelemetry.sdk.trace.export import SpanExportResult

    # Not public: an OTLP exporter's part that sends what is encoded. One without it, of another
    # version or kind, is given the spans.
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
    """Return what traces batches, or None where it is off.

    Raises SettingsError where the extra is missing.
    """
    if not settings.traces or os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise missing_extra() from None
    endpoint = f"{settings.endpoint.rstrip('/')}/v1/traces" if settings.endpoint else None
    exporter = OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_S)
    return Traces(queue, table, exporter, resource_of(pipeline))


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
