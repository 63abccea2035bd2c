"""Logs: one event per line, with fields from an allow-list, so that no value can slip in.

JSON, or short lines on a terminal. The loggers of all libraries go through the same gate: a
library's text may quote a body or a driver's message, so only its logger's name and level are kept.
The log belongs to the process, not to a pipeline.

The error that ends a command is one line of this log, too, where a supervisor reads the log. On a
terminal, and for commands that keep no log, it is two lines of text.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from sqs2pg.telemetry.lean_structlog import structlog
from sqs2pg.telemetry.log_sampling import RepeatLimiter

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor

    from sqs2pg.settings.process_sections import LogSettings

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
        "pipeline",  # its name in the settings
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
        "lines",
        "object_lines",
        "more",
        "since",  # when a pause began
    }
)


LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("auto", "json", "text")
LEVEL_VARIABLE, FORMAT_VARIABLE = "SQS2PG_LOG__LEVEL", "SQS2PG_LOG__FORMAT"
WARNINGS_MAX = 20
"""Warnings of one kind that are logged in ten seconds; the others are counted."""

PINNED = ("asyncio", "boto3", "botocore", "psycopg", "psycopg.pool", "urllib3", "uvloop")
"""Loggers of libraries that see bodies, credentials or rows. They are kept at WARNING, even if
something set them lower: botocore at DEBUG logs whole requests, asyncio at DEBUG the arguments of
slow calls."""


def _only_allowed(_logger: Any, _method: str, event: EventDict) -> EventDict:
    return {key: value for key, value in event.items() if key in ALLOWED}


_KIND = ("event", "level", "code", "logger", "pipeline")
"""Warnings alike in these are of one kind."""


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
        kind = tuple(str(event.get(name, "")) for name in _KIND)
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
            others = ("others", "", "", "", "")
            text, _, code, logger, pipeline = kind if isinstance(kind, tuple) else others
            fields = {"code": code, "logger": logger, "pipeline": pipeline}
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


class _Options(NamedTuple):
    """How the process logs."""

    level: str = "info"
    format: str = "auto"
    supervised: bool = False
    """Its command runs under a supervisor, which reads the log."""

    @property
    def in_json(self) -> bool:
        """Whether log lines are JSON."""
        return self.format == "json" or (self.format == "auto" and not sys.stderr.isatty())

    @property
    def errors_in_json(self) -> bool:
        """Whether the error that ends the command is."""
        return self.format == "json" or (self.supervised and self.in_json)


_options = _Options()


def from_environment(environ: Mapping[str, str] = os.environ, *, supervised: bool = False) -> None:
    """Set up logging for a command that has not read its settings yet.

    A word that is neither level nor format is left to the settings, which refuse it. `supervised`:
    the command is one that runs under a supervisor.
    """
    level, chosen = (environ.get(name, "").lower() for name in (LEVEL_VARIABLE, FORMAT_VARIABLE))
    configure(
        level=level if level in LEVELS else "info",
        format=chosen if chosen in FORMATS else "auto",
        supervised=supervised,
    )


def configure(
    *,
    level: str | None = None,
    format: str | None = None,  # noqa: A002  as the setting is called
    supervised: bool | None = None,
) -> None:
    """Set up logging for the process, on the present stderr, before anything else logs.

    `level` is one of LEVELS, `format` one of FORMATS; `auto` is text on a terminal, else JSON.
    `supervised`: the error that ends the command has the form of the log. What is not given stays
    as it was; so a second call without arguments follows a stderr that was replaced.
    """
    global _sampler, _options  # noqa: PLW0603  one per process, as structlog's configuration
    _sampler = _Sampler()
    given: dict[str, Any] = {"level": level, "format": format, "supervised": supervised}
    _options = _options._replace(**{k: v for k, v in given.items() if v is not None})
    in_json = _options.in_json
    renderer: Processor = structlog.processors.JSONRenderer() if in_json else _line
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _sampler,
            structlog.processors.TimeStamper(fmt="iso" if in_json else "%H:%M:%S", utc=True),
            _only_allowed,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[_options.level.upper()]
        ),
        # Asked for at every line: a progress display puts itself in stderr's place while it is
        # shown, so that lines go above it. A line and its end are one write: workers share it.
        logger_factory=lambda *_: structlog.WriteLogger(sys.stderr),
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


def follow(settings: LogSettings, *, verbose: bool = False) -> None:
    """Log as the settings say; `verbose` logs more."""
    configure(level="debug" if verbose else settings.level, format=settings.format)


def is_json() -> bool:
    """Whether log lines are JSON."""
    return _options.in_json


def report_error(what: str, hint: str, *, code: str = "", exit_code: int | None = None) -> None:
    """Print an error on stderr: as one line of JSON, or as `error:` and `hint:` for people.

    `exit_code`: that with which the process ends for it. It is shown at every level of the log.
    """
    if not _options.errors_in_json:
        _write_at_once(f"error: {what}" + (f"\nhint: {hint}" if hint else ""))
        return
    event: dict[str, Any] = {"event": what, "level": "error", "code": code, "hint": hint}
    event |= structlog.contextvars.get_contextvars()
    event = {key: value for key, value in event.items() if value}
    if exit_code is not None:
        event["exit_code"] = exit_code
    event["timestamp"] = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    _write_at_once(json.dumps(event))


def _write_at_once(line: str) -> None:
    """Write a line with its end by one call: unbuffered, two would let another process between."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
