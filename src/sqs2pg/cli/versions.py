"""The versions beside our own that speed and behaviour depend on, for reports of problems."""

from __future__ import annotations

import platform
from importlib import metadata

from sqs2pg import native

_PACKAGES = ("cryptography", "msgspec", "psycopg", "botocore")


def versions() -> list[str]:
    """Return name and version of each part: the interpreter, our C code, and packages."""
    return [
        f"Python {platform.python_version()}",
        f"native extension {_native_extension()}",
        *(f"{name} {metadata.version(name)}" for name in _PACKAGES),
    ]


def _native_extension() -> str:
    """Return how it computes SHA-256, or why there is none in use."""
    extension = native.extension()
    if extension is not None:
        return str(extension.SHA256)
    return "none" if native.EXTENSION is None else "not in use"
