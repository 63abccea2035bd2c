"""Whose: the subject reference of a body that was set aside, where it can be read at all.

The body may be anything; what is looked for is one field of one JSON object. Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from sqs2pg.errors import PermanentFault

Whose = Callable[[str], str | None]
"""From a body to its subject's reference, or None."""


def whose(reference: Callable[[str], str], source: str) -> Whose:
    """Return the function that finds a body's subject; `source` is the field that names it."""

    def read(body: str) -> str | None:
        try:
            found: Any = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return None
        name = _at(found, source)
        if not isinstance(name, (str, int)) or isinstance(name, bool) or name == "":
            return None
        try:
            return reference(str(name))
        except PermanentFault:
            return None

    return read


def _at(tree: Any, source: str) -> Any:
    """Return what stands at a name, or else at a path of names joined by dots."""
    if isinstance(tree, dict) and source in tree:
        return tree[source]
    for name in source.split("."):
        if not isinstance(tree, dict):
            return None
        tree = tree.get(name)
    return tree
