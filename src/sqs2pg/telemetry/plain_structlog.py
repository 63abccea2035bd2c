"""structlog without its console renderer, and without rich, which that draws tracebacks with.

They are 60 modules, a tenth of a start. We log no tracebacks, and `log.py` renders lines itself.
What is left out is loaded where it is used, in tests. Where structlog is loaded already, nothing is
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
        if name.startswith("__"):
            raise AttributeError(name)
        sys.modules.pop(self.__name__, None)
        import structlog.dev as loaded

        return getattr(loaded, name)


def _load() -> None:
    stand_ins = {"rich": None, "structlog.dev": _Dev("structlog.dev")}
    before = {name: sys.modules[name] for name in stand_ins if name in sys.modules}
    sys.modules.update(stand_ins)  # type: ignore[arg-type]  # None makes `import` an ImportError
    try:
        import structlog
    finally:
        for name, stand_in in stand_ins.items():
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]
        sys.modules.update(before)
    of_package = structlog.__getattr__

    def load(name: str) -> Any:
        if name != "dev":
            return of_package(name)
        import structlog.dev as loaded

        return loaded

    if isinstance(structlog.dev, _Dev):
        del structlog.dev
    structlog.__getattr__ = load


if "structlog" not in sys.modules:
    _load()

import structlog  # noqa: E402  after the above
