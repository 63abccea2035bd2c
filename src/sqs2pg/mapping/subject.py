"""Whose: the name of the person that a row or a body is about, in the form that the target has it.

Of a body that was set aside, where it can be read at all: it may be anything, and what is looked
for is one field of one JSON object. Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

import msgspec

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.convert import Converter
from sqs2pg.mapping.field_types import FIELD_TYPES
from sqs2pg.mask.canonical import CANONICAL, shown
from sqs2pg.mask.registry import OF_CANONICAL_FORM
from sqs2pg.settings import Field

Whose = Callable[[str], str | None]
"""From a body to its subject's reference, or None."""

# Numbers keep every digit, as in `documents.py`.
_decode = msgspec.json.Decoder(float_hook=Decimal).decode


def naming(fields: Iterable[Field], subject: str) -> Converter:
    """Return what makes of a person's name in a message the one by which they are known.

    It is that of the target's column, so that who is asked for as the table shows them is found:
    lower case of a uuid, 7 of 7.0; and where the column has masks of canonical forms, the form of
    its kind: one mask is one person, in whatever spelling. `subject` is `vault.subject`. Raises
    PermanentFault where the field's type or kind refuses the name.
    """
    about = next((field for field in fields if field.source == subject), None)
    convert = FIELD_TYPES[about.type if about else "text"].convert
    if about is None or about.kind == "text" or about.mask not in OF_CANONICAL_FORM:
        return convert
    kind, canonical = about.kind, CANONICAL[about.kind]

    def named(value: str) -> str:
        return shown(kind, canonical(convert(value)))

    return named


def whose(reference: Callable[[str], str], source: str) -> Whose:
    """Return the function that finds a body's subject; `source` is the field that names it."""

    def read(body: str) -> str | None:
        try:
            found: Any = _decode(body)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return None
        name = _at(found, source)
        if not isinstance(name, (str, int, Decimal)) or isinstance(name, bool) or name == "":
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
