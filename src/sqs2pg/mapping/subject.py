"""Subjects: the id of the person that a row or a body is about, in the form that the target stores.

Also for a quarantined body, if it can be read at all: it may be anything, and only one field of one
JSON object is looked for. Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from functools import partial

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.conversions import edited_or_missing
from sqs2pg.mapping.convert import Converter, numeric, text
from sqs2pg.mapping.field_types import FIELD_TYPES
from sqs2pg.mapping.json_slices import (
    Slice,
    members_at_once,
    number,
    parse,
    raw_text,
    string,
)
from sqs2pg.mask.canonical import CANONICAL, shown
from sqs2pg.mask.registry import OF_CANONICAL_FORM, properties
from sqs2pg.settings import Field, source_paths

SubjectReader = Callable[[str], str | None]
"""From a body to the reference of the person it is about, or None."""


def stored_form(fields: Iterable[Field], subject: str) -> Converter:
    """Return the function that normalises a person's id to the form stored in the target column.

    So a person is found by the id that the table shows: a uuid in lower case, 7 for 7.0, a text as
    `trim`, `lower` and `upper` leave it. Where the column has masks of canonical forms, it is the
    canonical form of the field's kind, since all spellings of an id have one mask there. `subject`
    is `vault.subject`. The function raises PermanentFault where the field's type or kind refuses
    the id.
    """
    about = next((field for field in fields if field.first_source == subject), None)
    if about is None:
        return text
    convert = _shown_number if about.type == "numeric" else FIELD_TYPES[about.type].convert
    if about.kind != "text" and about.mask in OF_CANONICAL_FORM:
        convert = _in_canonical_form(about.mask_kind, convert)
    if not about.edits_text:
        return convert
    edit = edited_or_missing(about)
    return lambda value: convert(edit(value))


def _in_canonical_form(kind: str, convert: Converter) -> Converter:
    canonical = CANONICAL[kind]
    return lambda value: shown(kind, canonical(convert(value)))


def _shown_number(value: str) -> str:
    """Return a number as a column of type `numeric` shows it: its own digits, no exponent."""
    exact = Decimal(numeric(value))
    return f"{exact or abs(exact):f}"


def subject_column(fields: Iterable[Field], subject: str) -> str | None:
    """Return the column of a target that says whose a row is; None where none can be searched.

    `subject` is `vault.subject`. The mask of such a column gives equal ids equal results.
    """
    for field in fields:
        if field.first_source == subject:
            mask = properties(field.mask)
            if field.mask == "keep" or (mask.deterministic and mask.joinable):
                return field.column
    return None


def subject_sources(fields: Iterable[Field], subject: str) -> tuple[str, ...]:
    """Return the paths at which a person's id is looked for, in their order."""
    about = next((field for field in fields if field.first_source == subject), None)
    return about.sources if about else (subject,)


def subject_reader(reference: Callable[[str], str], *sources: str) -> SubjectReader:
    """Return the function that finds a body's subject.

    `sources` are those of the field with the person's id, paths of `settings/source_paths.py`; at
    each a member of just that name comes first. `reference` makes the reference of an id.
    """
    # Without `[]`: an array is read as it is, and is no id, so its many people give None.
    paths = [
        (source, [step for step in source_paths.parse(source) if step is not source_paths.EACH])
        for source in sources
    ]

    if all(steps == [source] for source, steps in paths):
        return partial(_read_member, reference, sources)

    def find(document: Slice) -> Slice | None:
        for source, steps in paths:
            found = document.member(source) if document.is_object else None
            id_ = document.read(steps) if found is None else found
            if id_ is not None and id_.text != "null":
                return id_
        return None

    def read(body: str) -> str | None:
        try:
            id_ = find(parse(body))
            if id_ is None:
                return None
            return _referred(reference, id_.text)
        except PermanentFault:
            return None

    return read


def _read_member(reference: Callable[[str], str], names: Sequence[str], body: str) -> str | None:
    """Find the subject among the members of the body itself, in one pass."""
    members = members_at_once(body) or {}
    for name in names:
        raw = members.get(name)
        if raw is not None and (id_ := raw_text(raw)) != "null":
            try:
                return _referred(reference, id_)
            except PermanentFault:
                return None
    return None


def _referred(reference: Callable[[str], str], id_: str) -> str | None:
    """Return the reference of an id, given as JSON. Raises PermanentFault where it is none."""
    name = string(id_) if id_[0] == '"' else number(id_)
    return reference(name) if name else None
