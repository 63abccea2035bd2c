"""Source paths: where a field's value is in a document, as in `user.address.city`, `items[0].sku`.

    name            a member of an object
    a.b             a member of a member
    a[0], a[-1]     an element of an array, from the start or the end
    a['b.c']        a member whose name holds a dot or a bracket
    a[]             each element of the array that `explode` names, one row per element
    $               the whole document

A value is missing where it, or any step on the way to it, is absent or null. Another shape than the
path expects (an object for an array, a text for an object) is a fault, never a missing value.
No I/O here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from sqs2pg.errors import PermanentFault, SettingsError

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


def read(value: Any, steps: Sequence[str | int]) -> Any:
    """Return the value at the end of the steps; None where it is missing or null.

    Raises PermanentFault `wrong_type` where a step meets another shape.
    """
    for step in steps:
        if value is None:
            return None
        if type(step) is str:
            if type(value) is not dict:
                raise PermanentFault("wrong_type")
            value = value.get(step)
        else:
            if type(value) is not list:
                raise PermanentFault("wrong_type")
            index = int(step)
            value = value[index] if -len(value) <= index < len(value) else None
    return value


def scopes(document: Any, steps: Sequence[Step]) -> Iterator[tuple[Any, ...]]:
    """Yield for each record where its sources start: the document, then an element per depth.

    `steps` are those of `explode`. Raises PermanentFault: `missing_field` where the array is
    missing or null, `wrong_type` where the value is not an array.
    """
    if EACH not in steps:
        yield (document,)
        return
    end = steps.index(EACH)
    array = read(document, [step for step in steps[:end] if step is not EACH])
    if array is None:
        raise PermanentFault("missing_field")
    if type(array) is not list:
        raise PermanentFault("wrong_type")
    for element in array:
        for inner in scopes(element, steps[end + 1 :]):
            yield (document, *inner)


def _bad(text: str) -> SettingsError:
    return SettingsError(
        f"{text!r} is not a path to a value",
        code="bad_path",
        hint="write user.address.city, items[0].sku, items[].sku or user['first.name']",
    )
