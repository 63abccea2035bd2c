"""Known names: the members that a mapping reads, to find those that it does not know. No I/O."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sqs2pg.mapping.json_slices import Slice, raw_text
from sqs2pg.settings import Filter, Target, source_paths
from sqs2pg.settings.expression_rules import syntaxes
from sqs2pg.settings.routes import conditions


class KnownNames(msgspec.Struct):
    """The member names that a mapping reads at one point of a document; None: any name."""

    members: dict[str, KnownNames] | None
    scalar: bool = False
    """A field wants a text, a number or a boolean here: an object is `wrong_type`, whatever its
    names."""
    indexed: bool = False
    """It is an array, and one element is read, by its index."""


def member_names(path: str) -> list[str]:
    """Return the names on a path, without the arrays that it goes through."""
    return [step for step in source_paths.parse(path) if isinstance(step, str)]


def known_names(
    targets: Sequence[Target],
    dedupe_key: str,
    dropped: Sequence[str] = (),
    filters: Sequence[Filter] = (),
) -> KnownNames:
    """Return the names that the mapping reads, from the document's top."""
    root = KnownNames({})
    texts = [dedupe_key, *dropped] if dedupe_key else list(dropped)
    for target in targets:
        texts += [source for field in target.fields for source in field.body_sources]
        texts += [target.explode] if target.explode else []
    texts += [when.field for when, _ in conditions(targets, filters) if when.field]
    paths = list(map(source_paths.parse, texts))
    read = syntaxes(targets, filters)
    made = [path for syntax in read for path in sorted(syntax.named, key=str)]
    present = [path for syntax in read for path in sorted(syntax.present, key=str)]
    for steps in (*paths, *made, *present):
        at = root
        for step in steps:
            at.indexed = at.indexed or isinstance(step, int)
            if at.members is None:
                break
            if isinstance(step, str):
                at = at.members.setdefault(step, KnownNames({}))
        if not steps:
            root.members = None
    for target in targets:
        for field in target.fields:
            mark = _allow_all_below if field.type == "jsonb" else _expect_scalar
            for source in field.body_sources:
                mark(root, member_names(source))
    for name in dropped:
        _allow_all_below(root, member_names(name))
    for path in made:
        _allow_all_below(root, [step for step in path if isinstance(step, str)])
    return root


def _expect_scalar(at: KnownNames, steps: Sequence[str]) -> None:
    for step in steps:
        if at.members is None:
            return
        at = at.members[step]
    at.scalar = at.members == {}


def _allow_all_below(at: KnownNames, steps: Sequence[str]) -> None:
    """Allow any name below a path: the field takes all of it."""
    for step in steps:
        if at.members is None:
            return
        at = at.members[step]
    at.members = None


def has_unknown(value: Slice, known: KnownNames) -> bool:
    """Whether there is a name that no path of the mapping has."""
    if value.is_array:
        texts = filter(_has_inside, map(raw_text, value.elements()))
        return any(has_unknown(Slice(text), known) for text in texts)
    if not value.is_object or known.members is None or known.scalar:
        return False
    below = known.members
    if not value.members().keys() <= below.keys():
        return True
    return any(
        has_unknown(Slice(text), below[name])
        for name, raw in value.members().items()
        if _has_inside(text := raw_text(raw))
    )


def _has_inside(text: str) -> bool:
    return text[0] in "{["
