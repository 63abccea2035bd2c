"""Source paths: where a field's value is in a document, as in `user.address.city`, `items[0].sku`.

    name            a member of an object
    a.b             a member of a member
    a[0], a[-1]     an element of an array, from the start or the end
    a['b.c']        a member whose name holds a dot or a bracket
    a[]             each element of the array that `explode` names, one row per element
    $               the whole document

A value is missing where it, or any step on the way to it, is absent or null. Another shape than the
path expects (an object for an array, a text for an object) is a fault, never a missing value. What
follows the paths is in `mapping/`. No I/O here.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

import msgspec

from sqs2pg.errors import SettingsError

EACH = None
"""The step of `[]`."""
Step = str | int | None

_STEP = re.compile(
    r"(?:\A|\.)([^.\[\]]+)"  # a name, after a dot but at the start
    r"|\[(-?[0-9]{1,9})\]"
    r"|\['([^']+)'\]"
    r"|(\[\])"
)
_PLAIN = re.compile(r"[^.\[\]]+\Z")


class SourcePath(msgspec.Struct, frozen=True):
    """Where a value is: how many exploded arrays deep, and the steps from there."""

    depth: int
    """0: from the document; 1: from an element of the exploded array; and so on."""
    steps: tuple[str | int, ...]


def is_plain(source: str) -> bool:
    """Whether a source is a name at the top of the document and nothing more."""
    return bool(_PLAIN.match(source)) and source != "$"


def member(path: str, name: str) -> str:
    """Return the path of a member of the object at a path, "" for the document.

    It is "" for a name that no source can have: empty, not printable, with quotes or a backslash.
    """
    if not name or not name.isprintable() or any(c in name for c in "\"\\'"):
        return ""
    if not is_plain(name):
        return f"{path}['{name}']"
    return f"{path}.{name}" if path else name


@functools.lru_cache(1024)  # a mapping's compiler asks for each path many times
def parse(text: str) -> tuple[Step, ...]:
    """Return the steps of a path; none for `$`. Raises SettingsError `bad_path`."""
    if text == "$":
        return ()
    steps: list[Step] = []
    position = 0
    rest = text.removeprefix("$.")
    while position < len(rest):
        match = _STEP.match(rest, position)
        if match is None or match.end() == position:
            raise _bad(text)
        name, index, quoted, each = match.groups()
        steps.append(name or quoted or (EACH if each else int(index)))
        position = match.end()
    if not steps or rest.startswith("."):
        raise _bad(text)
    return tuple(steps)


def compile_sources(sources: Sequence[str], explode: str = "") -> dict[str, SourcePath]:
    """Return the path of each source, given the array that is exploded ("" for none).

    Raises SettingsError `bad_path` for a text that is no path, and for `[]` where nothing is
    exploded.
    """
    whole = explode_steps(explode)
    ends = [0, *(index + 1 for index, step in enumerate(whole) if step is EACH)]
    found: dict[str, SourcePath] = {}
    for text in sources:
        steps = parse(text)
        depth = steps.count(EACH)
        if depth >= len(ends) or steps[: ends[depth]] != whole[: ends[depth]]:
            raise SettingsError(
                f"the source {text!r} goes through each element of an array that is not exploded",
                code="bad_path",
                hint=f"explode is {explode!r}"
                if explode
                else "set `explode` to the array, next to the fields, or name one element: [0]",
            )
        rest = steps[ends[depth] :]
        found[text] = SourcePath(depth, tuple(step for step in rest if step is not EACH))
    return found


def contains(outer: str, inner: str) -> bool:
    """Whether the value at `outer` holds, or may hold, the value at `inner`; equal paths do.

    An index may be that of any element, so indexes are not compared.
    """
    if outer == inner:
        return True
    above, below = ([_kind(step) for step in parse(text)] for text in (outer, inner))
    return above == below[: len(above)]


def _kind(step: Step) -> Step:
    return step if isinstance(step, str) else EACH


def explode_steps(explode: str) -> tuple[Step, ...]:
    """Return the steps of `explode`, the last of them EACH; () where nothing is exploded."""
    if not explode:
        return ()
    steps = parse(explode)
    return steps if steps and steps[-1] is EACH else (*steps, EACH)


def _bad(text: str) -> SettingsError:
    return SettingsError(
        f"{text!r} is not a path to a value",
        code="bad_path",
        hint="write user.address.city, items[0].sku, items[].sku or user['first.name']",
    )
