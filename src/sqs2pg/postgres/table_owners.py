"""Who owns a target, beside who owns our schema: the owner of a table runs code in other hands.

The expressions of a table's constraints, defaults, indexes and triggers run with the rights of
whoever writes to it. Where a superuser owns our schema (its functions attach and drop partitions)
or erases people, another role that owns the target would become superuser by that. So a superuser
does not work on the tables of others. Among plain roles it is said, and people decide.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqs2pg.errors import FatalFault
from sqs2pg.postgres.catalog import WITH_PARTITIONS
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.identifiers import quote_identifier

# A table and its partitions, which may have owners of their own. `works` is who would write.
_OTHERS = f"""SELECT format('%%I.%%I', n.nspname, c.relname), o.rolname, works.rolname,
       works.rolsuper
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_roles o ON o.oid = c.relowner
JOIN pg_catalog.pg_roles works ON works.rolname = {{works}}
WHERE c.oid IN ({WITH_PARTITIONS})
AND NOT o.rolsuper AND NOT pg_catalog.pg_has_role(o.oid, works.oid, 'MEMBER')
ORDER BY 1 LIMIT 1"""
_WE = "current_user"
_SCHEMA_OWNER = """(SELECT pg_catalog.pg_get_userbyid(p.proowner) FROM pg_catalog.pg_proc p
    JOIN pg_catalog.pg_namespace f ON f.oid = p.pronamespace
    WHERE f.nspname = 'sqs2pg' AND p.proname = 'attach_next_period')"""


async def refuse_as_superuser(session: Session, tables: Iterable[str]) -> None:
    """Raise FatalFault `table_of_another` where we are a superuser and a table is another role's.

    Call it before the first statement that changes rows of the tables, which are quoted for SQL.
    Raises psycopg.Error.
    """
    for table in tables:
        found = await session.execute(_OTHERS.format(works=_WE), [table, table])
        for name, owner, us, superuser in found:
            if superuser:
                raise FatalFault(
                    f"table {name} belongs to role {owner}, and this login, {us}, is a superuser: "
                    "triggers and expressions of the table would run as one",
                    code="table_of_another",
                    hint=f"use a login of {owner} that also owns the schema sqs2pg; or, if "
                    f"{us} is to own both: {_give(name, us)}",
                )


async def check_owner(session: Session, table: str) -> str:
    """Return what to tell people about the owner of a target; empty where there is nothing.

    `table` is quoted for SQL. Raises FatalFault `table_of_another` where the owner of our schema is
    a superuser and that of the target is not; psycopg.Error.
    """
    for name, owner, ours, superuser in await session.execute(
        _OTHERS.format(works=_SCHEMA_OWNER), [table, table]
    ):
        if superuser:
            raise FatalFault(
                f"table {name} belongs to role {owner}, and the schema sqs2pg to {ours}, a "
                f"superuser: through the table's expressions {owner} could become superuser",
                code="table_of_another",
                hint="migrate as a plain role that owns both: DROP what a superuser has made of "
                f"sqs2pg and pii, if anything, and migrate as {owner}; or {_give(name, ours)}",
            )
        return (
            f"table {name} belongs to {owner}, and the schema sqs2pg to {ours}: expressions and "
            f"triggers of the table run with the rights of {ours}"
        )
    return ""


def _give(table: str, role: str) -> str:
    return f"ALTER TABLE {table} OWNER TO {quote_identifier(role)}"
