"""psycopg without what it loads and hardly uses: a quarter of what the driver costs a start.

It asks `importlib.metadata` for its own version, which loads `email`, `zipfile` and 30 more modules
and parses texts, although the name of a folder has it, too. It imports `ctypes.util` for the case
that its C code is missing. It makes classes for each type of ranges and multiranges, of which we
read and write none: here they come as texts, as values of other unknown types do.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from sqs2pg.lean_imports import StandIn, lean

__all__ = ["psycopg"]


class _Metadata(StandIn):
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
        metadata = self.real()
        try:
            return str(metadata.version(name))
        except metadata.PackageNotFoundError:
            raise self.PackageNotFoundError(name) from None

    def load(self) -> Any:
        from importlib import metadata

        return metadata


class _Ctypes(StandIn):
    def load(self) -> Any:
        import ctypes.util

        return ctypes


class _Ranges(StandIn):
    """Knows the types, and has no class for them."""

    @staticmethod
    def RangeInfo(name: str, oid: int, array_oid: int, **_: int) -> Any:  # noqa: N802  the driver's
        """Return what the driver knows of any type."""
        from psycopg.types import TypeInfo

        return TypeInfo(name, oid, array_oid)

    MultirangeInfo = RangeInfo

    def register_default_adapters(self, context: object) -> None:
        """Register nothing."""


with lean(
    "psycopg",
    _Metadata("importlib.metadata"),
    _Ctypes("ctypes"),
    _Ctypes("ctypes.util"),
    _Ranges("psycopg.types.range"),
    _Ranges("psycopg.types.multirange"),
):
    import psycopg

import psycopg  # noqa: E402  whole, where it needs more than the above have
