"""psycopg without what it loads and hardly uses.

It asks `importlib.metadata` for its own version, which loads `email`, `zipfile` and 30 more modules
and parses texts, although the name of a folder has it, too. It imports `ctypes.util` for the case
that its C code is missing. It makes classes for each type of ranges and multiranges, of which we
read and write none: here they come as texts, as values of other unknown types do. Together they are
a quarter of what the driver costs a start. Where psycopg or one of the modules is loaded already,
that one is left as it is.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["psycopg"]


class _Metadata(ModuleType):
    """Stands for `importlib.metadata`, as far as the driver uses it."""

    class PackageNotFoundError(ModuleNotFoundError):
        """As the one that it stands for."""

    def version(self, name: str) -> str:
        """Return the version of an installed distribution. Raises PackageNotFoundError."""
        start, end = f"{name.replace('-', '_')}-", ".dist-info"
        beside = Path(sys.modules["psycopg"].__path__[0]).parent
        with os.scandir(beside) as every:
            for one in every:
                if one.name.startswith(start) and one.name.endswith(end):
                    return one.name.removeprefix(start).removesuffix(end)
        _withdraw(self)
        from importlib import metadata

        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            raise self.PackageNotFoundError(name) from None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        _withdraw(self)
        from importlib import metadata

        return getattr(metadata, name)


class _Ctypes(ModuleType):
    """Stands for `ctypes` until something of it is used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        _withdraw(*_CTYPES)
        import ctypes.util

        return getattr(ctypes, name)


class _Ranges(ModuleType):
    """Stands for `psycopg.types.range` and `multirange`: knows the types, and has no class."""

    @staticmethod
    def RangeInfo(name: str, oid: int, array_oid: int, **_: int) -> Any:  # noqa: N802  the driver's
        """Return what the driver knows of any type."""
        from psycopg.types import TypeInfo

        return TypeInfo(name, oid, array_oid)

    MultirangeInfo = RangeInfo

    def register_default_adapters(self, context: object) -> None:
        """Register nothing."""


_CTYPES = (_Ctypes("ctypes"), ModuleType("ctypes.util"))


@contextmanager
def _in_place(*stand_ins: ModuleType) -> Iterator[None]:
    sys.modules.update({one.__name__: one for one in stand_ins})
    try:
        yield
    finally:
        _withdraw(*stand_ins)


def _withdraw(*stand_ins: ModuleType) -> None:
    for one in stand_ins:
        if sys.modules.get(one.__name__) is one:
            del sys.modules[one.__name__]


def _stand_ins() -> Iterator[ModuleType]:
    if "psycopg" in sys.modules:
        return
    if "importlib.metadata" not in sys.modules:
        yield _Metadata("importlib.metadata")
    if "ctypes" not in sys.modules:
        yield from _CTYPES
    yield from map(_Ranges, ("psycopg.types.range", "psycopg.types.multirange"))


try:
    with _in_place(*_stand_ins()):
        import psycopg
except (AttributeError, ImportError, TypeError):  # a version that needs more than they have
    for loaded in [name for name in sys.modules if name.partition(".")[0] == "psycopg"]:
        del sys.modules[loaded]
    import psycopg
