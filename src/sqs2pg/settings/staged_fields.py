"""The fields of a state table that are staged, and go to no column of it.

With `delete_when` a line also says whether it deletes the row of its key. Where that, or an
erasure, deletes rows that have versions, it has the marks by which a key is remembered: an HMAC of
each of its values, before any mask. All are made like any other column, so each executor of a
mapping makes them. Pure.
"""

from __future__ import annotations

import msgspec

from sqs2pg.settings import source_paths
from sqs2pg.settings.fields import USER_LOGINS, Field
from sqs2pg.settings.routes import Target
from sqs2pg.settings.sections import Settings
from sqs2pg.settings.when import When

DELETES = "sqs2pg_deletes"
"""The staged column that says whether a line deletes."""
NOT_ONE_FORM = ("jsonb", "interval")
"""Types whose equal values have different texts, in PostgreSQL, too."""
MARK = "sqs2pg_mark_"
"""The staged columns of marks begin so; the number of the key's column follows."""


def staged_fields(target: Target) -> tuple[Field, ...]:
    """Return the fields that are staged besides those of the table."""
    when, made = target.write.delete_when, list[Field]()
    if when is not None:
        made.append(Field(column=DELETES, expression=_expression(when), type="boolean"))
    marked = marked_columns(target)
    return (*made, *(staged_field(target, c) for c in target.write.key if c in marked))


def staged_field(target: Target, column: str) -> Field:
    """Return the field of the mark of a column of the key."""
    field = next(field for field in target.fields if field.column == column)
    return msgspec.structs.replace(
        field,
        column=f"{MARK}{target.write.key.index(column)}",
        mask="pseudonymize",
        recover=False,
        length_max=None,
    )


def marked_columns(target: Target) -> tuple[str, ...]:
    """Return the columns of the key that have a mark: all of them, or the person's id alone.

    An erasure deletes rows where the person's id is part of the key. It deletes others only if it
    is asked to, and remembers them if each column of the key is kept.
    """
    write = target.write
    by_column = {field.column: field for field in target.fields}
    key = [by_column[column] for column in write.key if column in by_column]
    markable = [field.column for field in key if is_markable(field)]
    if write.delete_when is not None:
        return write.key
    if write.mode != "upsert" or not write.newer:
        return ()
    person = person_column(target)
    if len(markable) == len(key):
        may_be_erased = target.seals and all(field.mask == "keep" for field in key)
        return write.key if person or may_be_erased else ()
    return (person,) if person in markable else ()


def is_markable(field: Field) -> bool:
    """Whether equal values of a field may have one form, as a mark needs."""
    has_one = field.type not in NOT_ONE_FORM and not field.type.endswith("[]")
    return has_one and field.over_length != "truncate"


def person_column(target: Target) -> str:
    """Return the column of the key that has the person's id; "" where the key has none.

    Without a mask, or with one that gives equal ids equal tokens: the rules refuse others in a key.
    """
    about = {field.column for field in target.fields if field.first_source == target.subject}
    return next((column for column in target.write.key if column in about), "")


def person_mark(target: Target) -> str:
    """Return the staged column of the mark of the person's id; "" where there is none."""
    person = person_column(target)
    if person not in marked_columns(target):
        return ""
    return f"{MARK}{target.write.key.index(person)}"


def with_staged_fields(settings: Settings) -> Settings:
    """Return the settings of a mapping that makes the staged fields, too, last in each target."""
    targets = iter(settings.targets)
    if not any(map(staged_fields, settings.targets)):
        return settings
    if not settings.routed:
        [target] = targets
        declared = settings.field or USER_LOGINS
        return msgspec.structs.replace(settings, field=(*declared, *staged_fields(target)))
    routes = [
        route
        if route.drop
        else msgspec.structs.replace(route, field=(*route.field, *staged_fields(next(targets))))
        for route in settings.route
    ]
    return msgspec.structs.replace(settings, route=tuple(routes))


def _expression(when: When) -> str:
    """Return JMESPath that is true where a condition holds, and false where it does not."""
    if when.expression:
        return f"!(!({when.expression}))"
    path = _path(when.field)
    conditions = []
    if when.exists is not None:
        conditions.append(f"{path} {'!=' if when.exists else '=='} `null`")
    wanted: list[str | float | bool] = [*when.any_of]
    if when.equals is not None:
        wanted.append(when.equals)
    if wanted:
        conditions.append(" || ".join(f"{path} == {_literal(one)}" for one in wanted))
    return " && ".join(f"({condition})" for condition in conditions)


def _path(path: str) -> str:
    made = "@"
    for step in source_paths.parse(path):
        # An expression sees of an array that is exploded the record's own element alone.
        index = 0 if step is source_paths.EACH else step
        made += f"[{index}]" if isinstance(index, int) else f".{_json(index)}"
    return made


def _literal(value: str | float | bool) -> str:
    return "`" + _json(value).replace("`", "\\`") + "`"


def _json(value: str | float | bool) -> str:
    return msgspec.json.encode(value).decode()
