"""Routes: which records go to which table, and which to none. Part of the mapping's settings.

They are only declared here; `load.py` reads them and `rules.py` checks them together. No I/O.
"""

from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import Meta

from sqs2pg.settings.fields import JSON_NAME, NO_NUL, Declared, Field
from sqs2pg.settings.when import When
from sqs2pg.settings.write_modes import APPEND, WriteMode


class Route(WriteMode, frozen=True):
    """`[[route]]`: the records that go to one table. A record goes to every route that takes it,
    unless it is dropped.
    """

    table: Annotated[str, Meta(pattern=NO_NUL, description="table or schema.table")] = ""
    drop: Annotated[
        bool,
        Meta(
            description="a filter: the records that `when` takes go to no table, whatever other "
            "routes say; it has no other key than `when`"
        ),
    ] = False
    when: Annotated[
        When | None,
        Meta(
            description="a route without `when` takes the records that no other route matched",
            extra_json_schema={
                "if": {"type": "object"},
                "then": {"oneOf": [{"required": ["field"]}, {"required": ["expression"]}]},
            },
        ),
    ] = None
    explode: Annotated[
        str, Meta(max_length=256, pattern=JSON_NAME, description="an array; one row per element")
    ] = ""
    field: tuple[Declared, ...] = ()


# In terms of JSON Schema: a route has a table unless it drops.
_TABLE_UNLESS_DROPPED = Meta(
    extra_json_schema={
        "if": {"properties": {"drop": {"const": True}}, "required": ["drop"]},
        "else": {"required": ["table"]},
    }
)
DeclaredRoute = Annotated[Route, _TABLE_UNLESS_DROPPED]


class Target(msgspec.Struct, frozen=True):
    """One table and its fields, from `[sink]` and `[[field]]` or from a `[[route]]`."""

    table: str
    fields: tuple[Field, ...]
    explode: str = ""
    when: When | None = None
    route: str = ""
    """Its route as faults and errors name it, such as `route[0]`; "" without one."""
    write: WriteMode = APPEND
    subject: str = ""
    """The source of the person's id: `vault.subject`."""
    seals: bool = False
    """Whether the vault is on, so that what a field with `recover` hides is sealed."""

    @property
    def updated_columns(self) -> tuple[str, ...]:
        """The columns that a newer row changes in mode "upsert", in the mapping's order."""
        write = self.write
        columns = [field.column for field in self.fields]
        wanted = {*(write.update or columns), write.newer}
        return tuple(name for name in columns if name in wanted and name not in write.key)


class Filter(msgspec.Struct, frozen=True):
    """A `[[route]]` with `drop = true`: the records that go to no table."""

    when: When
    route: str


def conditions(targets: Iterable[Target], filters: Iterable[Filter] = ()) -> list[tuple[When, str]]:
    """Return each `when` of a mapping and its route, those of filters last.

    A `delete_when` is one, too.
    """
    found = [
        (when, target.route)
        for target in targets
        for when in (target.when, target.write.delete_when)
        if when is not None
    ]
    return [*found, *((one.when, one.route) for one in filters)]
