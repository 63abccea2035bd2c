"""Logs: one event a line, by an allow-list of fields, so that no value can slip in.

JSON off a terminal, short lines on one. Every logger of every library goes through the same
gate: a library's own text may quote a body or a driver's message, so only its logger's name and
level are kept.
"""

from __future__ import annotations

import logging
import sys
import threading
from typing import Any

import structlog
from structlog.typing import EventDict, Processor

from sqs2pg.telemetry.log_sampling import Repeats

# What a log line may say: codes, counts, names from settings or catalog, times. Adding to this
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
        "received",
        "written",
        "duplicate",
        "quarantined",
        "released",
        "seconds",
        "messages_per_second",
        "left",
        "sent",
        "signal",
        "worker",
        "workers",
        "exit_code",
        "queue",
        "table",
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


REPEATS_TOLD = 20
"""Warnings of one kind in ten seconds; those beyond are counted."""

PINNED = ("asyncio", "boto3", "botocore", "psycopg", "psycopg.pool", "urllib3", "uvloop")
"""Loggers of libraries that see bodies, credentials or rows: kept at WARNING, whoever turned them
up before. botocore at DEBUG logs whole requests; asyncio at DEBUG the arguments of slow calls."""


def _only_allowed(_logger: Any, _method: str, event: EventDict) -> EventDict:
    return {key: value for key, value in event.items() if key in ALLOWED}


class _Sampler:
    """Counts repeats of a warning instead of telling each; the next that is told brings the count.

    Behind it the log cannot be flooded, whoever logs in a loop, a library included. Lines at info
    are bounded where they are made (`batch_log.py`).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._repeats = Repeats(told_max=REPEATS_TOLD)

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
        """Tell how many were kept back in windows that are over."""
        with self._lock:
            overdue = self._repeats.overdue()
        for kind, more in overdue:
            text, _, code, logger = kind if isinstance(kind, tuple) else ("others", "", "", "")
            told = {"code": code, "logger": logger}
            given = {name: value for name, value in told.items() if value}
            structlog.get_logger().info(f"more of: {text}", count=more, **given)


_sampler = _Sampler()


def flush_repeats() -> None:
    """Tell how many warnings were kept back in windows that are over."""
    _sampler.flush()


def _line(_logger: Any, _method: str, event: EventDict) -> str:
    return short_line(event)


def short_line(event: EventDict) -> str:
    """Return an event as a terminal shows it: time of day, level, text, fields."""
    event = dict(event)
    stamp, level = event.pop("timestamp", ""), event.pop("level", "")
    if "T" in stamp:  # a worker's own, as JSON has it
        stamp = stamp.partition("T")[2][:8]
    text = event.pop("event", "")
    rest = " ".join(f"{key}={value}" for key, value in event.items())
    return f"{stamp} {level:7} {text} {rest}".rstrip()


class _LibraryGate(logging.Handler):
    """Passes on that a library logged, never what."""

    def emit(self, record: logging.LogRecord) -> None:
        # Rounded to a level that structlog knows; a library may log at one of its own.
        level = min(max(record.levelno // 10 * 10, logging.DEBUG), logging.CRITICAL)
        structlog.get_logger().log(level, "library log line, text withheld", logger=record.name)


def configure(*, verbose: bool = False) -> None:
    """Set up logging for the process, on stderr. Call once, before anything else logs."""
    global _sampler  # noqa: PLW0603  structlog's configuration is the process's, and so is this
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
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [_LibraryGate()]
    root.setLevel(logging.WARNING)
    # A handler that a library, or somebody's sitecustomize, hung on a logger would pass by it.
    for logger in root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.handlers = [h for h in logger.handlers if isinstance(h, logging.NullHandler)]
            logger.propagate = True
    for name in PINNED:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)  # a warning's text may quote what it warns of
