"""Document paths: where the steps of a path lead in a document. No I/O here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.json_slices import Slice, raw_text
from sqs2pg.settings.source_paths import EACH, Step


def scopes(document: Slice, steps: Sequence[Step]) -> Iterator[tuple[Slice, ...]]:
    """Yield for each record where its sources start: the document, then an element per depth.

    `steps` are those of `explode`. Raises PermanentFault: `missing_field` where the array is
    missing or null, `wrong_type` where the value is not an array.
    """
    if EACH not in steps:
        yield (document,)
        return
    end = steps.index(EACH)
    array = document.read([step for step in steps[:end] if step is not EACH])
    if array is None:
        raise PermanentFault("missing_field")
    if not array.is_array:
        raise PermanentFault("wrong_type")
    for raw in array.elements():
        for inner in scopes(Slice(raw_text(raw)), steps[end + 1 :]):
            yield (document, *inner)


def exists(value: Slice, names: Sequence[str]) -> bool:
    """Whether a path exists, in any element of the arrays on its way."""
    if not names:
        return True
    if value.is_array:
        return any(exists(Slice(raw_text(raw)), names) for raw in value.elements())
    if not value.is_object:
        return False
    below = value.member(names[0])
    return below is not None and exists(below, names[1:])
