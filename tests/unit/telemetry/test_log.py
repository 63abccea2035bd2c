"""Logs: only fields of the allow-list are logged, whoever logs."""

from __future__ import annotations

import ast
import asyncio
import gc
import io
import json
import logging
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from sqs2pg.message import Message, SystemAttributes
from sqs2pg.telemetry import log
from tests.syntax import nodes_of

CANARY = "canary-4711"
LIBRARIES = ["psycopg", "psycopg.pool", "botocore.parsers", "botocore", "asyncio", "urllib3", "any"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _logging_put_back() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    structure, options = structlog.get_config(), log._options  # noqa: SLF001  of the process
    yield
    log._options = options  # noqa: SLF001
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**structure)


def configured(
    monkeypatch: pytest.MonkeyPatch, *, terminal: bool = False, verbose: bool = False
) -> io.StringIO:
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    log.configure(level="debug" if verbose else "info", format="auto", supervised=False)
    return stream


def events(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_off_a_terminal_a_line_is_one_json_object(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = configured(monkeypatch)
    structlog.get_logger().info("drained", written=3, seconds=0.5)
    [event] = events(stream)
    assert event.pop("timestamp").endswith("Z")
    assert event == {"event": "drained", "level": "info", "written": 3, "seconds": 0.5}


def test_on_a_terminal_a_line_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = configured(monkeypatch, terminal=True)
    structlog.get_logger().warning("released", code="postgres_57P01", messages=7)
    structlog.get_logger().warn("again")
    first, second = stream.getvalue().splitlines()
    assert first.split()[1:] == ["warning", "released", "code=postgres_57P01", "messages=7"]
    assert second.split()[1:] == ["warning", "again"]


def test_the_format_may_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = configured(monkeypatch, terminal=True)
    log.configure(format="json")
    structlog.get_logger().info("drained")
    assert [event["event"] for event in events(stream)] == ["drained"]
    stream = configured(monkeypatch)
    log.configure(format="text")
    structlog.get_logger().info("drained")
    assert stream.getvalue().split()[1:] == ["info", "drained"]


@pytest.mark.parametrize(
    ("terminal", "form", "supervised", "in_json"),
    [
        (False, "auto", True, True),
        (False, "auto", False, False),
        (True, "auto", True, False),
        (True, "json", False, True),
        (False, "json", False, True),
        (False, "text", True, False),
    ],
)
def test_an_error_has_the_form_of_the_log_under_a_supervisor(
    monkeypatch: pytest.MonkeyPatch, *, terminal: bool, form: str, supervised: bool, in_json: bool
) -> None:
    stream = configured(monkeypatch, terminal=terminal)
    log.configure(level="error", format=form, supervised=supervised)
    for _ in range(log.WARNINGS_MAX + 1):  # it is never taken for a repeat
        log.report_error("it broke", "mend it", code="some_code", exit_code=1)
    if not in_json:
        assert stream.getvalue() == "error: it broke\nhint: mend it\n" * (log.WARNINGS_MAX + 1)
        return
    told = events(stream)
    assert len(told) == log.WARNINGS_MAX + 1
    assert told[0].pop("timestamp").endswith("Z")
    assert told[0] == {
        "event": "it broke",
        "level": "error",
        "code": "some_code",
        "hint": "mend it",
        "exit_code": 1,
    }


def test_words_of_the_environment_that_are_wrong_are_left_to_the_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = configured(monkeypatch)
    log.from_environment({"SQS2PG_LOG__LEVEL": "loud", "SQS2PG_LOG__FORMAT": "xml"})
    structlog.get_logger().info("news")
    log.from_environment({"SQS2PG_LOG__LEVEL": "WARNING", "SQS2PG_LOG__FORMAT": "json"})
    structlog.get_logger().info("news")
    assert len(events(stream)) == 1


@pytest.mark.parametrize("terminal", [False, True])
def test_a_field_that_is_not_on_the_list_is_dropped(
    monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    stream = configured(monkeypatch, terminal=terminal)
    logger = structlog.get_logger().bind(user_id=CANARY)
    logger.info("event", ip=CANARY, body=CANARY, device_id=CANARY, error=CANARY, code="kept")
    structlog.get_logger("name", secret=CANARY).error("event", exc_info=True, stack=CANARY)
    assert CANARY not in stream.getvalue()
    assert "kept" in stream.getvalue()


def test_the_allow_list_has_no_field_of_the_mapping_and_no_body() -> None:
    assert not log.ALLOWED & {"user_id", "ip", "device_id", "locale", "body", "value", "exc_info"}
    assert not log.ALLOWED & {"exception", "error", "message", "row", "record", "receipt_handle"}


@pytest.mark.parametrize("terminal", [False, True])
def test_an_exception_s_text_and_trace_do_not_get_out(
    monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    stream = configured(monkeypatch, terminal=terminal)
    try:
        raise ValueError(CANARY)  # noqa: TRY301  the traceback must show this line
    except ValueError as error:
        structlog.get_logger().exception("failed", code="bug")
        structlog.get_logger().error("failed", exc_info=error, exception=str(error))
        logging.getLogger("any").exception("failed")
    assert CANARY not in stream.getvalue()
    assert "Traceback" not in stream.getvalue()
    assert len(stream.getvalue().splitlines()) == 3


def test_a_message_in_an_allowed_field_hides_its_body(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = configured(monkeypatch)
    message = Message("id", CANARY, CANARY, SystemAttributes(0))
    structlog.get_logger().info("odd", where=message, count=[message])
    assert CANARY not in stream.getvalue()
    [event] = events(stream)
    assert event["where"] == "Message(id)"


@pytest.mark.parametrize("name", LIBRARIES)
def test_only_the_logger_and_level_of_a_library_s_line_are_logged(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    stream = configured(monkeypatch)
    logger = logging.getLogger(name)
    logger.warning("detail: %s", CANARY)
    logger.error(CANARY, extra={"row": CANARY}, stack_info=True)
    found = events(stream)
    assert [(event["level"], event["logger"]) for event in found] == [
        ("warning", name),
        ("error", name),
    ]
    assert CANARY not in stream.getvalue()


def test_a_library_s_debug_lines_stay_in_even_when_its_logger_is_set_to_debug(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logger = logging.getLogger("botocore.endpoint")
    monkeypatch.setattr(logger, "level", logging.DEBUG)
    for verbose in (False, True):
        stream = configured(monkeypatch, verbose=verbose)
        logger.debug("Sending http request: %s", CANARY)
        assert CANARY not in stream.getvalue()
        assert len(events(stream)) == verbose


@pytest.mark.parametrize("level", [1, 5, 15, 25, 35, 45, 55, 1_000])
def test_a_level_of_a_library_s_own_is_no_trouble(
    monkeypatch: pytest.MonkeyPatch, level: int
) -> None:
    stream = configured(monkeypatch, verbose=True)
    logger = logging.getLogger("own.level")
    monkeypatch.setattr(logger, "level", 1)
    logger.log(level, CANARY)
    [event] = events(stream)
    assert event["logger"] == "own.level"
    assert CANARY not in stream.getvalue()


def test_a_task_that_fails_unseen_is_reported_without_its_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = configured(monkeypatch)

    async def fail() -> None:
        raise ValueError(CANARY)

    async def main() -> None:
        task = asyncio.create_task(fail())
        await asyncio.wait([task])
        del task
        gc.collect()

    asyncio.run(main())
    assert [event["logger"] for event in events(stream)] == ["asyncio"]
    assert CANARY not in stream.getvalue()


def test_verbose_logs_debug_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    for verbose in (False, True):
        stream = configured(monkeypatch, verbose=verbose)
        structlog.get_logger().debug("detail")
        structlog.get_logger().info("news")
        assert [e["event"] for e in events(stream)] == ["detail", "news"][not verbose :]


def test_setting_up_twice_does_not_say_things_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    configured(monkeypatch)
    stream = configured(monkeypatch)
    logging.getLogger("any").warning(CANARY)
    assert len(events(stream)) == 1


@pytest.mark.parametrize("name", log.PINNED)
def test_a_library_that_was_turned_up_is_turned_down_again(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    logger = logging.getLogger(name)
    monkeypatch.setattr(logger, "level", logging.DEBUG)
    stream = configured(monkeypatch, verbose=True)
    logger.debug("the whole request: %s", CANARY)
    assert stream.getvalue() == ""


def test_a_handler_hung_on_a_library_s_logger_is_taken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    logger, aside = logging.getLogger("botocore.parsers"), io.StringIO()
    monkeypatch.setattr(logger, "handlers", [logging.StreamHandler(aside)])
    monkeypatch.setattr(logger, "propagate", False)
    stream = configured(monkeypatch)
    logger.error("answer: %s", CANARY)
    assert aside.getvalue() == ""
    assert [event["logger"] for event in events(stream)] == ["botocore.parsers"]


def test_a_warning_s_text_does_not_get_out(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = configured(monkeypatch)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(True)
            warnings.warn(CANARY, stacklevel=1)
    finally:
        logging.captureWarnings(False)
    assert [event["logger"] for event in events(stream)] == ["py.warnings"]
    assert CANARY not in stream.getvalue()


def test_a_warning_in_a_loop_is_counted_and_told_as_a_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = configured(monkeypatch)
    for number in range(1_000):
        structlog.get_logger().warning("receive failed", code="aws_away", attempt=number)
        logging.getLogger("any.library").error(CANARY)
        structlog.get_logger().info("news")
    found = events(stream)
    told = [event["event"] for event in found]
    assert told.count("receive failed") == log.WARNINGS_MAX
    assert told.count("library log line, text withheld") == log.WARNINGS_MAX
    assert told.count("news") == 1_000, "info lines are not repeats"
    # When its ten seconds are over, the number is logged once.
    for window in log._sampler._repeats._windows.values():  # noqa: SLF001  a log has no clock to set
        window.ends = 0.0
    log.flush_repeats()
    log.flush_repeats()
    more = events(stream)[len(found) :]
    assert [(event["event"], event["count"]) for event in more] == [
        ("more of: receive failed", 1_000 - log.WARNINGS_MAX),
        ("more of: library log line, text withheld", 1_000 - log.WARNINGS_MAX),
    ]
    assert more[0]["code"] == "aws_away"


def test_kinds_of_warning_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = configured(monkeypatch)
    for number in range(100):
        structlog.get_logger().warning("failed", code=f"code{number % 4}")
    assert len(events(stream)) == 4 * log.WARNINGS_MAX


def test_a_worker_s_json_line_is_shown_as_a_short_line() -> None:
    line = '{"event": "receive failed", "level": "warning", "code": "aws_away", "timestamp": "%s"}'
    shown = log.short_line(json.loads(line % "2026-11-25T15:22:43.213215Z"))
    assert shown == "15:22:43 warning receive failed code=aws_away"


CALL = re.compile(r"\blog(ger)?\s*\.\s*(debug|info|warning|error)\b")


def test_no_line_of_ours_loses_a_field() -> None:
    """A field that is not on the list would be dropped in silence: an operator would miss it."""
    package = Path(log.__file__).parents[1]
    lost = [
        f"{file.relative_to(package)}: {keyword.arg}"
        for file in package.rglob("*.py")
        if CALL.search(file.read_text(encoding="utf-8"))
        for call in nodes_of(file)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr in {"debug", "info", "warning", "error"}
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id in {"log", "logger"}
        for keyword in call.keywords
        if keyword.arg is not None and keyword.arg not in log.ALLOWED
    ]
    assert lost == []


class Stream(io.StringIO):
    """Keeps each write apart."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    def write(self, text: str) -> int:
        self.writes.append(text)
        return super().write(text)


def test_a_line_and_its_end_are_written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unbuffered, as in a container, two writes of two workers could come in turns."""
    stream = Stream()
    monkeypatch.setattr(sys, "stderr", stream)
    log.configure()
    structlog.get_logger().warning("a line")
    log.report_error("what", "hint", code="other")
    assert len(stream.writes) == 2
    assert all(text.endswith("\n") for text in stream.writes)
