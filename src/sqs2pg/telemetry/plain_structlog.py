"""structlog without what draws and collects tracebacks: its `dev` and `tracebacks`, and rich.

They are 60 modules, a tenth of a start. We log no tracebacks, and `log.py` renders lines itself.
What is left out is loaded as soon as it is used. Where structlog is loaded already, nothing is
changed.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

__all__ = ["structlog"]


class _Dev(ModuleType):
    """Stands for `structlog.dev` while structlog names its defaults."""

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

    def __getattr__(self, name: str) -> Any:
        # What this version of structlog does not ask for.
        return _found(self, name)


class _Tracebacks(ModuleType):
    """Stands for `structlog.tracebacks` in the same way."""

    class ExceptionDictTransformer:
        """Makes the real one when there is an exception."""

        def __init__(self, **options: Any) -> None:
            self._options = options

        def __call__(self, *raised: Any) -> Any:
            from structlog.tracebacks import ExceptionDictTransformer

            return ExceptionDictTransformer(**self._options)(*raised)

    def __getattr__(self, name: str) -> Any:
        return _found(self, name)


class _Pickle(ModuleType):
    """Stands for `pickle`, of which structlog wants one name for loggers that are pickled."""

    class PicklingError(Exception):
        """As the one that it stands for."""


def _found(stand_in: ModuleType, name: str) -> Any:
    """Return what the real module has."""
    if name.startswith("__"):
        raise AttributeError(name)
    if sys.modules.get(stand_in.__name__) is stand_in:
        del sys.modules[stand_in.__name__]
    return getattr(_loaded(stand_in.__name__), name)


def _loaded(name: str) -> ModuleType:
    if name == "structlog.dev":
        import structlog.dev as dev

        return dev
    import structlog.tracebacks as tracebacks

    return tracebacks


def _load() -> None:
    parts = [_Dev("structlog.dev"), _Tracebacks("structlog.tracebacks")]
    # None makes `import rich` an ImportError.
    stand_ins: dict[str, Any] = {part.__name__: part for part in parts} | {"rich": None}
    before = {name: sys.modules[name] for name in stand_ins if name in sys.modules}
    if "pickle" not in sys.modules:
        stand_ins["pickle"] = _Pickle("pickle")
    sys.modules.update(stand_ins)
    try:
        import structlog
    finally:
        for name, stand_in in stand_ins.items():
            if name in sys.modules and sys.modules[name] is stand_in:
                del sys.modules[name]
        sys.modules.update(before)
    of_package = structlog.__getattr__

    def load(name: str) -> Any:
        return _loaded(f"structlog.{name}") if name in ("dev", "tracebacks") else of_package(name)

    for part in parts:
        name = part.__name__.rpartition(".")[2]
        if vars(structlog).get(name) is part:
            delattr(structlog, name)
    structlog.__getattr__ = load


if "structlog" not in sys.modules:
    _load()

import structlog  # noqa: E402  after the above
