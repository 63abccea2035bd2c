"""The fields of a state table that are staged, and go to no column of it.

With `delete_when` a line also says whether it deletes the row of its key, and has the marks by
which that key is remembered: an HMAC of each of its values, before any mask. Both are made like any
other column, so each executor of a mapping makes them. Pure.
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
MARK = "sqs2pg_mark_"
"""The staged columns of marks begin so; the number of the key's column follows."""


def staged_fields(target: Target) -> tuple[Field, ...]:
    """Return the fields that are staged besides those of the table."""
    when = target.write.delete_when
    if when is None:
        return ()
    by_column = {field.column: field for field in target.fields}
    deletes = Field(column=DELETES, expression=_expression(when), type="boolean")
    return (
        deletes,
        *(
            msgspec.structs.replace(
                by_column[column],
                column=f"{MARK}{number}",
                mask="pseudonymize",
                recover=False,
                length_max=None,
            )
            for number, column in enumerate(target.write.key)
        ),
    )


def with_staged_fields(settings: Settings) -> Settings:
    """Return the settings of a mapping that makes the staged fields, too, last in each target."""
    targets = iter(settings.targets)
    if not any(target.write.delete_when for target in settings.targets):
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
        assert step is not None, "the rules refuse a path through every element"
        made += f"[{step}]" if isinstance(step, int) else f".{_json(step)}"
    return made


def _literal(value: str | float | bool) -> str:
    return "`" + _json(value).replace("`", "\\`") + "`"


def _json(value: str | float | bool) -> str:
    return msgspec.json.encode(value).decode()
