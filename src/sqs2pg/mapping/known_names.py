"""Known names: the members that a mapping reads, to find those that it does not know. No I/O."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sqs2pg.settings import Target, source_paths


class KnownNames(msgspec.Struct):
    """The member names that a mapping reads at one point of a document; None: any name."""

    members: dict[str, KnownNames] | None
    scalar: bool = False
    """A field wants a text, a number or a boolean here: an object is `wrong_type`, whatever its
    names."""
    indexed: bool = False
    """It is an array of which one element is read, by its index."""


def member_names(path: str) -> list[str]:
    """Return the names on a path, without the arrays that it goes through."""
    return [step for step in source_paths.parse(path) if isinstance(step, str)]


def known_names(
    targets: Sequence[Target], dedupe_key: str, dropped: Sequence[str] = ()
) -> KnownNames:
    """Return the names that the mapping reads, from the document's top."""
    root = KnownNames({})
    texts = [dedupe_key, *dropped] if dedupe_key else list(dropped)
    for target in targets:
        texts += [source for field in target.fields for source in field.body_sources]
        texts += [target.explode] if target.explode else []
        texts += [target.when.field] if target.when else []
    for text in texts:
        steps = source_paths.parse(text)
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
