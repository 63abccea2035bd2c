"""structlog without what draws lines and collects tracebacks, until something asks for it.

Its `dev` and `tracebacks` load rich: 60 modules, a tenth of a start. We log no tracebacks, and
`log.py` renders lines itself.
"""

from __future__ import annotations

import sys
from typing import Any

from sqs2pg.lean_imports import StandIn, lean

__all__ = ["structlog"]


class _Dev(StandIn):
    """Has what structlog names among its defaults."""

    _has_colors = sys.platform != "win32"

    class ConsoleRenderer:
        """Makes the real one when it renders."""

        def __init__(self, **options: Any) -> None:
            self._options = options

        def __call__(self, *line: Any) -> Any:
            from structlog.dev import ConsoleRenderer

            return ConsoleRenderer(**self._options)(*line)

    @staticmethod
    def set_exc_info(*line: Any) -> Any:
        """Pass a line on to the real one."""
        from structlog.dev import set_exc_info

        return set_exc_info(*line)

    def load(self) -> Any:
        import structlog.dev as dev

        return dev


class _Tracebacks(StandIn):
    class ExceptionDictTransformer:
        """Makes the real one when there is an exception."""

        def __init__(self, **options: Any) -> None:
            self._options = options

        def __call__(self, *raised: Any) -> Any:
            from structlog.tracebacks import ExceptionDictTransformer

            return ExceptionDictTransformer(**self._options)(*raised)

    def load(self) -> Any:
        import structlog.tracebacks as tracebacks

        return tracebacks


class _Pickle(StandIn):
    class PicklingError(Exception):
        """For loggers that are pickled. Nobody pickles ours."""

    def load(self) -> Any:
        import pickle

        return pickle


with lean(
    "structlog",
    _Dev("structlog.dev"),
    _Tracebacks("structlog.tracebacks"),
    _Pickle("pickle"),
):
    import structlog

import structlog  # noqa: E402  whole, where it needs more than the above have
