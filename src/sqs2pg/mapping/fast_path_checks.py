"""The fast path's checks: in which order the reference looks for what is wrong with a document.

With them the C code names the fault of a document that has one, where it is certain
(`native/judge.c`); a test of generated mappings holds it to what `documents.py` says. No I/O here.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqs2pg.mapping.documents import Source, sources_of
from sqs2pg.mapping.fast_path_tree import Tree
from sqs2pg.settings import Settings

_CHECKS_MAX = 128  # as in native/plan.h
_AS_THEY_STAND = frozenset({"any", "array", "number", "boolean"})
"""Kinds whose text is the JSON itself: a string among them has its quotes, and is not empty."""

Check = tuple[int, bool, bool]
"""A source as the extension takes it: slot, whether it must be there, whether a string's text is
what is between the quotes."""


def compile_checks(settings: Settings, tree: Tree) -> tuple[Check, ...] | None:
    """Return the checks of a mapping; None where something else is to be looked at before them."""
    if (
        settings.unknown_fields == "quarantine"
        or settings.routed
        or settings.filters
        or settings.ledger.dedupe_key
        or any(target.explode for target in settings.targets)
        or any(source.expression for _, source in _checked(settings))
    ):
        return None
    checks = tuple(
        (tree.slot(target, source.name)[1], source.required, source.kind not in _AS_THEY_STAND)
        for target, source in _checked(settings)
    )
    return checks if len(checks) <= _CHECKS_MAX else None


def checked_names(settings: Settings) -> list[str]:
    """Return what a fault of each check names."""
    return [source.shown or source.name for _, source in _checked(settings)]


def _checked(settings: Settings) -> Iterator[tuple[int, Source]]:
    """Yield the sources that are in a document, each with the number of its target."""
    for number, target in enumerate(settings.targets):
        for source in sources_of(target):
            if source.kind != "none":
                yield number, source
