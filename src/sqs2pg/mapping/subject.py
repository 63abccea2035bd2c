"""Subjects: the id of the person that a row or a body is about, in the form that the target stores.

Also for a quarantined body, if it can be read at all: it may be anything, and only one field of one
JSON object is looked for. Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.convert import Converter, numeric
from sqs2pg.mapping.field_types import FIELD_TYPES
from sqs2pg.mapping.json_slices import number, parse, string
from sqs2pg.mask.canonical import CANONICAL, shown
from sqs2pg.mask.registry import OF_CANONICAL_FORM, properties
from sqs2pg.settings import Field, source_paths

SubjectReader = Callable[[str], str | None]
"""From a body to the reference of the person it is about, or None."""


def stored_form(fields: Iterable[Field], subject: str) -> Converter:
    """Return the function that normalises a person's id to the form stored in the target column.

    So a person is found by the id that the table shows: a uuid in lower case, 7 for 7.0. Where the
    column has masks of canonical forms, it is the canonical form of the field's kind, since all
    spellings of an id have one mask there. `subject` is `vault.subject`. The function raises
    PermanentFault where the field's type or kind refuses the id.
    """
    about = next((field for field in fields if field.source == subject), None)
    type_ = about.type if about else "text"
    convert = _shown_number if type_ == "numeric" else FIELD_TYPES[type_].convert
    if about is None or about.kind == "text" or about.mask not in OF_CANONICAL_FORM:
        return convert
    kind, canonical = about.kind, CANONICAL[about.kind]

    def normalized(value: str) -> str:
        return shown(kind, canonical(convert(value)))

    return normalized


def _shown_number(value: str) -> str:
    """Return a number as a column of type `numeric` shows it: its own digits, no exponent."""
    exact = Decimal(numeric(value))
    return f"{exact or abs(exact):f}"


def subject_column(fields: Iterable[Field], subject: str) -> str | None:
    """Return the column of a target that says whose a row is; None where none can be searched.

    `subject` is `vault.subject`. The mask of such a column gives equal ids equal results.
    """
    for field in fields:
        if field.source == subject:
            mask = properties(field.mask)
            if field.mask == "keep" or (mask.deterministic and mask.joinable):
                return field.column
    return None


def subject_reader(reference: Callable[[str], str], source: str) -> SubjectReader:
    """Return the function that finds a body's subject.

    `source` is the field with the person's id, a path of `settings/source_paths.py`; a member of
    just that name comes first. `reference` makes the reference of an id.
    """
    # Without `[]`: an array is read as it is, and is no id, so its many people give None.
    steps = [step for step in source_paths.parse(source) if step is not source_paths.EACH]

    def read(body: str) -> str | None:
        try:
            document = parse(body)
            found = document.member(source) if document.is_object else None
            id_ = document.read(steps) if found is None else found
            if id_ is None:
                return None
            name = string(id_.text) if id_.text[0] == '"' else number(id_.text)
            return reference(name) if name else None
        except PermanentFault:
            return None

    return read
