"""Logs: one event per line, with fields from an allow-list, so that no value can slip in.

JSON, or short lines on a terminal. The loggers of all libraries go through the same gate: a
library's text may quote a body or a driver's message, so only its logger's name and level are kept.
The log belongs to the process, not to a pipeline.
"""

from __future__ import annotations

import logging
import sys
import threading
from typing import TYPE_CHECKING, Any

from sqs2pg.telemetry.log_sampling import RepeatLimiter
from sqs2pg.telemetry.plain_structlog import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor

# What a log line may contain: codes, counts, names from settings or catalog, times. Adding to this
# list is a decision about personal data: see docs/decisions.
ALLOWED = frozenset(
    {
        "event",
        "level",
        "timestamp",
        "logger",
        "code",
        "stage",
        "attempt",
        "messages",
        "message_id",
        "message_ids",
        "reference",  # of a person: 32 hex digits of an HMAC
        "received",
        "written",
        "duplicate",
        "quarantined",
        "released",
        "seconds",
        "busy_seconds",
        "messages_per_second",
        "left",
        "sent",
        "signal",
        "worker",
        "workers",
        "exit_code",
        "queue",
        "table",
        "column",
        "line",  # its number in an archive
        "hint",  # of an error of ours
        "day",
        "sqlstate",
        "receives",
        "visible_in_s",
        "where",
        "count",
        "act",
        "anchor",
        "replayed",
        "still_bad",
        "reversed",
        "batch",
        "trace_id",
        "decode_ms",
        "mask_ms",
        "write_ms",
        "commit_ms",
        "lag_s",
        "more",
    }
)


WARNINGS_MAX = 20
"""Warnings of one kind that are logged in ten seconds; the others are counted."""

PINNED = ("asyncio", "boto3", "botocore", "psycopg", "psycopg.pool", "urllib3", "uvloop")
"""Loggers of libraries that see bodies, credentials or rows. They are kept at WARNING, even if
something set them lower: botocore at DEBUG logs whole requests, asyncio at DEBUG the arguments of
slow calls."""


def _only_allowed(_logger: Any, _method: str, event: EventDict) -> EventDict:
    return {key: value for key, value in event.items() if key in ALLOWED}


class _Sampler:
    """Limits repeated warnings; the next one that is logged brings the number held back.

    So nothing can flood the log, not even a library that logs in a loop. Lines at level info are
    limited where they are made (`batch_log.py`).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._repeats = RepeatLimiter(lines_max=WARNINGS_MAX)

    def __call__(self, _logger: Any, _method: str, event: EventDict) -> EventDict:
        if event.get("level") in {"debug", "info"}:
            return event
        kind = tuple(str(event.get(name, "")) for name in ("event", "level", "code", "logger"))
        with self._lock:
            more = self._repeats.admit(kind)
        if more is None:
            raise structlog.DropEvent
        if more:
            event["more"] = more
        return event

    def flush(self) -> None:
        """Log how many were held back in windows that are over."""
        with self._lock:
            overdue = self._repeats.overdue()
        for kind, more in overdue:
            text, _, code, logger = kind if isinstance(kind, tuple) else ("others", "", "", "")
            fields = {"code": code, "logger": logger}
            given = {name: value for name, value in fields.items() if value}
            structlog.get_logger().info(f"more of: {text}", count=more, **given)


_sampler = _Sampler()


def flush_repeats() -> None:
    """Log how many warnings were held back in windows that are over."""
    _sampler.flush()


def _line(_logger: Any, _method: str, event: EventDict) -> str:
    return short_line(event)


def short_line(event: EventDict) -> str:
    """Return an event as shown on a terminal: time of day, level, text, fields."""
    event = dict(event)
    stamp, level = event.pop("timestamp", ""), event.pop("level", "")
    if "T" in stamp:  # from a worker's JSON line
        stamp = stamp.partition("T")[2][:8]
    text = event.pop("event", "")
    rest = " ".join(f"{key}={value}" for key, value in event.items())
    return f"{stamp} {level:7} {text} {rest}".rstrip()


class _LibraryGate(logging.Handler):
    """Logs that a library has logged something, but not what."""

    def emit(self, record: logging.LogRecord) -> None:
        # Rounded to a level that structlog knows; a library may have levels of its own.
        level = min(max(record.levelno // 10 * 10, logging.DEBUG), logging.CRITICAL)
        structlog.get_logger().log(level, "library log line, text withheld", logger=record.name)


def configure(*, verbose: bool = False) -> None:
    """Set up logging for the process, on stderr. Call once, before anything else logs."""
    global _sampler  # noqa: PLW0603  one per process, as structlog's configuration
    _sampler = _Sampler()
    on_terminal = sys.stderr.isatty()
    renderer: Processor = _line if on_terminal else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            _sampler,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if on_terminal else "iso", utc=True),
            _only_allowed,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.DEBUG if verbose else logging.INFO
        ),
        # Asked for at every line: a progress display puts itself in stderr's place while it is
        # shown, so that lines go above it.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [_LibraryGate()]
    root.setLevel(logging.WARNING)
    # A handler that a library or a sitecustomize has put on a logger would bypass the gate.
    for logger in root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.handlers = [h for h in logger.handlers if isinstance(h, logging.NullHandler)]
            logger.propagate = True
    for name in PINNED:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)  # a warning's text may quote a value
